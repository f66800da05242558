//! Listings: `iptables -t nat -L`, with or without `-n`, `-v` and `--line-numbers`.

use super::{ParseError, Parsed, rule};
use crate::nat::{
    loaded::{Chains, Loaded},
    model::{Chain, Match, Rule, Table, Target, Test},
};

/// Reads the listing of the nat table.
pub fn list(text: &str) -> Result<Parsed, ParseError> {
    let mut chains = Chains::empty(Table::Nat);
    for name in text.lines().filter_map(|line| line.strip_prefix("Chain ")) {
        if let Some(name) = name.split_whitespace().next() {
            chains.chains.entry(Chain::named(name)).or_default();
        }
    }
    let mut chain = None;
    let mut columns = Columns::default();
    let mut without_interfaces = false;
    for (line, number) in text.lines().zip(1..) {
        let wrong = |why: String| ParseError { line: number, why };
        if let Some(head) = line.strip_prefix("Chain ") {
            let name =
                head.split_whitespace().next().ok_or_else(|| wrong("a chain has no name".to_owned()))?;
            let name = Chain::named(name);
            if head.contains("(policy DROP") {
                chains.dropping.push(name.clone());
            }
            chain = Some(name);
        } else if line.split_whitespace().any(|word| word == "prot") && line.contains("destination") {
            columns = Columns::of(line);
            without_interfaces |= !columns.interfaces;
        } else if let Some(chain) = &chain
            && !line.trim().is_empty()
        {
            let rule = columns.row(line, &chains).map_err(wrong)?;
            chains.chains.entry(chain.clone()).or_default().push(rule);
        }
        // Anything before the first chain is the prompt and the command of whoever copied the listing.
    }
    if without_interfaces && let Some(rules) = chains.chains.get_mut(&Chain::ISTIO_OUTPUT) {
        assume_lo(rules);
    }
    let assumptions = without_interfaces.then(|| {
        "the listing does not show interfaces (-v does): rules that in Istio hold for lo only were taken so".to_owned()
    });
    Ok(Parsed {
        loaded: Loaded { tables: [(Table::Nat, chains)].into() },
        assumptions: assumptions.into_iter().collect(),
    })
}

#[derive(Clone, Copy, Default)]
struct Columns {
    line_numbers: bool,
    counters: bool,
    interfaces: bool,
}

impl Columns {
    fn of(header: &str) -> Self {
        let has = |name| header.split_whitespace().any(|word| word == name);
        Self { line_numbers: has("num"), counters: has("pkts"), interfaces: has("in") }
    }

    fn row(self, line: &str, chains: &Chains) -> Result<Rule, String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let skipped = usize::from(self.line_numbers) + 2 * usize::from(self.counters);
        let words = words.get(skipped..).ok_or("the row is shorter than its header")?;
        let interfaces = 2 * usize::from(self.interfaces);
        // A rule may lack a target, and old listings of IPv6 rules leave the options' column empty.
        let options = words.iter().position(|word| matches!(*word, "--" | "-f" | "!f"));
        let (target, protocol, rest) = match (options, words) {
            (Some(1), [protocol, _, rest @ ..]) => ("", *protocol, rest),
            (Some(2), [target, protocol, _, rest @ ..]) | (None, [target, protocol, rest @ ..]) => {
                (*target, *protocol, rest)
            }
            _ => return Err("the row does not have a target, a protocol and options".to_owned()),
        };
        let mut matches = Vec::new();
        let column = |text: &str| match text.strip_prefix('!') {
            Some(text) => (true, text.to_owned()),
            None => (false, text.to_owned()),
        };
        if self.interfaces {
            let [incoming, outgoing, ..] = rest else { return Err("the row has no interfaces".to_owned()) };
            for (text, test) in [
                (incoming, Test::InInterface as fn(String) -> Test),
                (outgoing, Test::OutInterface as fn(String) -> Test),
            ] {
                let (negated, name) = column(text);
                if !matches!(name.as_str(), "any" | "*") {
                    matches.push(Match { negated, test: test(name) });
                }
            }
        }
        let [source, destination, extra @ ..] = &rest[interfaces..] else {
            return Err("the row has no source and destination".to_owned());
        };
        for (text, test) in [
            (source, Test::Source as fn(ipnet::IpNet) -> Test),
            (destination, Test::Destination as fn(ipnet::IpNet) -> Test),
        ] {
            let (negated, text) = column(text);
            if let Some(cidr) = address(&text)? {
                matches.push(Match { negated, test: test(cidr) });
            }
        }
        let (negated, name) = column(protocol);
        if let Some(protocol) = rule::protocol(&name)? {
            matches.push(Match { negated, test: Test::Protocol(protocol) });
        }
        let mut extra = Extra { words: extra, target: None };
        extra.read(&mut matches)?;
        let target = extra.target(target, chains)?;
        Ok(Rule { matches, target })
    }
}

/// What a row says behind the columns: the modules' own words, then the target's.
struct Extra<'a> {
    words: &'a [&'a str],
    target: Option<Target>,
}

impl Extra<'_> {
    fn read(&mut self, matches: &mut Vec<Match>) -> Result<(), String> {
        while let Some((test, negated, used)) = self.next()? {
            matches.extend(test.map(|test| Match { negated, test }));
            self.words = &self.words[used..];
        }
        Ok(())
    }

    /// The next test, whether it is negated, and the number of words it takes.
    fn next(&mut self) -> Result<Option<(Option<Test>, bool, usize)>, String> {
        let negated = self.words.first() == Some(&"!");
        let start = usize::from(negated);
        let (test, used) = match &self.words[start..] {
            [] => return Ok(None),
            ["tcp" | "udp", ..] => (None, 1),
            ["owner", "UID", "match", user, ..] => (Some(owner(rule::user(user).map(Test::Uid), user)), 4),
            ["owner", "GID", "match", group, ..] => {
                (Some(owner(rule::group(group).map(Test::Gid), group)), 4)
            }
            ["ctstate" | "state", states, ..] => {
                (Some(Test::ConntrackState(states.split(',').map(str::to_owned).collect())), 2)
            }
            ["multiport", "dports", ports, ..] => {
                let (negated, ports) = strip_not(ports);
                let ports = ports.split(',').map(rule::ports).collect::<Result<_, _>>()?;
                return Ok(Some((Some(Test::AnyDestinationPorts(ports)), negated, 3)));
            }
            [module @ ("mark" | "connmark"), "match", "!", value, ..] => {
                return Ok(Some((Some(mark(module, value)?), true, 4)));
            }
            [module @ ("mark" | "connmark"), "match", value, ..] => (Some(mark(module, value)?), 3),
            ["/*", rest @ ..] => {
                let end = rest.iter().position(|word| *word == "*/").ok_or("a comment is not closed")?;
                (Some(Test::Comment(rest[..end].join(" "))), end + 2)
            }
            ["redir", "ports", port, ..] => {
                self.target = port.parse().ok().map(Target::Redirect);
                (None, if self.target.is_some() { 3 } else { return Ok(Some(self.rest())) })
            }
            ["TPROXY", "redirect", socket, "mark", value, ..] => {
                let port = socket.rsplit(':').next().and_then(|port| port.parse().ok());
                let port = port.ok_or_else(|| format!("`{socket}` is not an address and a port"))?;
                self.target = Some(Target::Tproxy { port, mark: rule::mark(value)?.value });
                (None, 5)
            }
            ["MARK", "set", value, ..] => {
                self.target = Some(Target::SetMark(rule::mark(value)?.value));
                (None, 3)
            }
            ["CONNMARK", "save", ..] => {
                self.target = Some(Target::SaveMark);
                (None, 2)
            }
            ["CONNMARK", "restore", ..] => {
                self.target = Some(Target::RestoreMark);
                (None, 2)
            }
            ["CT", "zone", zone, ..] => {
                self.target = Some(Target::Zone(rule::number(zone)?));
                (None, 3)
            }
            [word, ..] => match ports(word)? {
                Some((test, negated)) => return Ok(Some((Some(test), negated, start + 1))),
                None => return Ok(Some(self.rest())),
            },
        };
        Ok(Some((test, negated, start + used)))
    }

    /// Everything that is left, as a test nothing here can evaluate.
    fn rest(&self) -> (Option<Test>, bool, usize) {
        (Some(Test::Other(self.words.join(" "))), false, self.words.len())
    }

    fn target(self, name: &str, chains: &Chains) -> Result<Target, String> {
        Ok(match (name, self.target) {
            ("REDIRECT" | "TPROXY" | "MARK" | "CONNMARK" | "CT", Some(target)) => target,
            ("", None) => Target::None,
            ("RETURN", None) => Target::Return,
            ("ACCEPT", None) => Target::Accept,
            ("DROP", None) => Target::Drop,
            (name, None)
                if Chain::named(name).is_istio() || chains.chains.contains_key(&Chain::named(name)) =>
            {
                Target::Jump(Chain::named(name))
            }
            (name, None) => Target::Other(format!("-j {name}")),
            (name, Some(_)) => return Err(format!("the target {name} has another target's options")),
        })
    }
}

fn owner(test: Option<Test>, name: &str) -> Test {
    test.unwrap_or_else(|| Test::Other(format!("owner {name}")))
}

fn mark(module: &str, value: &str) -> Result<Test, String> {
    let mark = rule::mark(value)?;
    Ok(if module == "mark" { Test::Mark(mark) } else { Test::ConnectionMark(mark) })
}

/// `dpt:80`, `dpts:!80:90`, `spt:domain`.
fn ports(word: &str) -> Result<Option<(Test, bool)>, String> {
    let Some((side, ports)) = word.split_once(':') else { return Ok(None) };
    let (negated, ports) = strip_not(ports);
    Ok(match side {
        "dpt" | "dpts" => Some((Test::DestinationPorts(rule::ports(ports)?), negated)),
        "spt" | "spts" => Some((Test::SourcePorts(rule::ports(ports)?), negated)),
        _ => None,
    })
}

fn strip_not(text: &str) -> (bool, &str) {
    text.strip_prefix('!').map_or((false, text), |text| (true, text))
}

fn address(text: &str) -> Result<Option<ipnet::IpNet>, String> {
    match text {
        "anywhere" | "0.0.0.0/0" | "::/0" => Ok(None),
        "localhost" => rule::cidr("127.0.0.1/32").map(Some),
        "ip6-localhost" => rule::cidr("::1/128").map(Some),
        // /etc/networks names the loopback network on many hosts.
        other => rule::cidr(&other.replacen("loopback/", "127.0.0.0/", 1)).map(Some),
    }
}

/// Restricts those rules of `ISTIO_OUTPUT` to `lo` that are so in every release that has them: what comes from
/// 127.0.0.6, calls of the workload to itself, and the rule about others in front of the one about the proxy.
fn assume_lo(rules: &mut [Rule]) {
    let owner = |part: &&Match| matches!(part.test, Test::Uid(_) | Test::Gid(_));
    for index in 0..rules.len() {
        let (rule, next) = (&rules[index], rules.get(index + 1));
        let returns = rule.target == Target::Return;
        let passthrough = returns && rule.matches.iter().any(|part| matches!(part.test, Test::Source(_)));
        let to_itself = rule.target.jump().is_some()
            && rule.matches.iter().any(|part| part.negated && matches!(part.test, Test::Destination(_)));
        let others = returns
            && rule.matches.iter().find(owner).is_some_and(|part| {
                let proxy = part.test.clone().is();
                part.negated
                    && next.is_some_and(|next| next.matches == [proxy] && next.target == Target::Return)
            });
        if passthrough || to_itself || others {
            rules[index].matches.push(Test::OutInterface("lo".to_owned()).is());
        }
    }
}
