//! What `iptables -t TABLE -L` prints (measured with 1.8.9).

use std::fmt::{self, Write as _};

use ipnet::IpNet;

use super::{
    loaded::Loaded,
    model::{Chain, Family, Match, Rule, Table, Target, Test},
    services,
};
use crate::capture::PortRange;

/// How to print a listing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Style {
    /// Names for ports and well-known addresses, as without `-n`.
    pub names: bool,
    /// Counters and interfaces, as with `-v`.
    pub verbose: bool,
}

/// Packets and bytes that a rule has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Count {
    /// In five characters, as `-v` prints it without `-x`: from 100,000 on in thousands, millions and so on.
    fn short(number: u64) -> String {
        if number < 100_000 {
            return number.to_string();
        }
        let mut rounded = number;
        for unit in ["K", "M", "G"] {
            rounded = (rounded + 500) / 1000;
            if rounded < 10_000 {
                return format!("{rounded}{unit}");
            }
        }
        format!("{}T", (rounded + 500) / 1000)
    }
}

/// The listing of one table; `count` tells what the rule at a place (counted from 1) of a chain has seen, and for
/// place 0 of a chain that the kernel calls, what reached its end.
#[must_use]
pub fn text(
    loaded: &Loaded,
    table: Table,
    family: Family,
    style: Style,
    count: impl Fn(&Chain, usize) -> Count,
) -> String {
    let mut text = String::new();
    let Some(chains) = loaded.tables.get(&table) else { return text };
    for (chain, rules) in chains.in_order(table) {
        if !text.is_empty() {
            text.push('\n');
        }
        let head = if chain.is_built_in() {
            let policy = if chains.dropping.contains(chain) { "DROP" } else { "ACCEPT" };
            let counts = if style.verbose { at_the_end(count(chain, 0)) } else { String::new() };
            format!("policy {policy}{counts}")
        } else {
            let jumps = |rule: &&Rule| rule.target.jump() == Some(chain);
            format!("{} references", chains.chains.values().flatten().filter(jumps).count())
        };
        text.extend(["Chain ", chain.name(), " (", &head, ")\n"]);
        text.push_str(if style.verbose {
            " pkts bytes target     prot opt in     out     source               destination         \n"
        } else {
            "target     prot opt source               destination         \n"
        });
        for (rule, place) in rules.iter().zip(1..) {
            let row = Row { rule, family, style, count: count(chain, place) };
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{row}");
        }
    }
    text
}

fn at_the_end(count: Count) -> String {
    format!(" {} packets, {} bytes", Count::short(count.packets), Count::short(count.bytes))
}

struct Row<'a> {
    rule: &'a Rule,
    family: Family,
    style: Style,
    count: Count,
}

impl fmt::Display for Row<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.style.verbose {
            write!(f, "{:>5} {:>5} ", Count::short(self.count.packets), Count::short(self.count.bytes))?;
        }
        write!(f, "{:<9} ", target_name(&self.rule.target))?;
        self.column(f, "all", |test| {
            if let Test::Protocol(protocol) = test {
                Some(format!("{:<5}", protocol.to_string()))
            } else {
                None
            }
        })?;
        f.write_str("-- ")?;
        if self.style.verbose {
            let any = if self.style.names { "any" } else { "*" };
            write!(f, " {:<6} ", self.interface(any, |test| matches!(test, Test::InInterface(_))))?;
            write!(f, "{:<6} ", self.interface(any, |test| matches!(test, Test::OutInterface(_))))?;
        }
        let anywhere = match (self.style.names, self.family) {
            (true, _) => "anywhere",
            (false, Family::V4) => "0.0.0.0/0",
            (false, Family::V6) => "::/0",
        };
        let anywhere = format!("{anywhere:<19} ");
        let cell = |cidr: &IpNet| Some(format!("{:<19} ", self.address(cidr)));
        self.column(f, &anywhere, |test| if let Test::Source(cidr) = test { cell(cidr) } else { None })?;
        self.column(f, &anywhere, |test| if let Test::Destination(cidr) = test { cell(cidr) } else { None })?;
        for part in &self.rule.matches {
            self.extra(f, part)?;
        }
        self.target_options(f)
    }
}

impl Row<'_> {
    /// A column that may be negated: `!` or a blank, and the text for the first test that `show` knows.
    fn column(
        &self,
        f: &mut fmt::Formatter<'_>,
        otherwise: &str,
        show: impl Fn(&Test) -> Option<String>,
    ) -> fmt::Result {
        for part in &self.rule.matches {
            if let Some(text) = show(&part.test) {
                return write!(f, "{}{text}", if part.negated { '!' } else { ' ' });
            }
        }
        write!(f, " {otherwise:<5}")
    }

    fn interface(&self, any: &str, wanted: impl Fn(&Test) -> bool) -> String {
        let part = self.rule.matches.iter().find(|part| wanted(&part.test));
        match part {
            Some(Match { negated, test: Test::InInterface(name) | Test::OutInterface(name) }) => {
                format!("{}{name}", if *negated { "!" } else { "" })
            }
            _ => any.to_owned(),
        }
    }

    fn address(&self, cidr: &IpNet) -> String {
        let cidr = cidr.trunc();
        if cidr.prefix_len() < cidr.max_prefix_len() {
            return if cidr.prefix_len() == 0 && self.style.names {
                "anywhere".to_owned()
            } else {
                cidr.to_string()
            };
        }
        let one = cidr.addr();
        let is_localhost = one.to_string() == "127.0.0.1" || one.to_string() == "::1";
        if self.style.names && is_localhost { "localhost".to_owned() } else { one.to_string() }
    }

    fn extra(&self, f: &mut fmt::Formatter<'_>, part: &Match) -> fmt::Result {
        let not = if part.negated { "!" } else { "" };
        let before = if part.negated { " !" } else { "" };
        match &part.test {
            Test::Source(_)
            | Test::Destination(_)
            | Test::InInterface(_)
            | Test::OutInterface(_)
            | Test::Protocol(_) => Ok(()),
            Test::SourcePorts(ports) => self.ports(f, "spt", not, *ports),
            Test::DestinationPorts(ports) => self.ports(f, "dpt", not, *ports),
            Test::AnyDestinationPorts(ports) => {
                let ports: Vec<_> = ports.iter().map(|ports| self.range(*ports)).collect();
                write!(f, " multiport dports {before}{}", ports.join(","))
            }
            Test::Uid(uid) => write!(f, "{before} owner UID match {uid}"),
            Test::Gid(gid) => write!(f, "{before} owner GID match {gid}"),
            Test::ConntrackState(states) => write!(f, "{before} ctstate {}", states.join(",")),
            Test::Mark(mark) => write!(f, " mark match{before} {:#x}", mark.value),
            Test::ConnectionMark(mark) => write!(f, " connmark match {not} {:#x}", mark.value),
            Test::Comment(text) => write!(f, " /* {text} */"),
            Test::Other(text) => write!(f, " {text}"),
        }
    }

    fn ports(&self, f: &mut fmt::Formatter<'_>, side: &str, not: &str, ports: PortRange) -> fmt::Result {
        write!(f, " {}", self.protocol())?;
        if ports == PortRange::ALL && not.is_empty() {
            return Ok(());
        }
        let plural = if ports.first == ports.last { "" } else { "s" };
        write!(f, " {side}{plural}:{not}{}", self.range(ports))
    }

    fn range(&self, ports: PortRange) -> String {
        let protocol = self.protocol();
        let port = |port: u16| match services::name(port, &protocol) {
            Some(name) if self.style.names => name.to_owned(),
            _ => port.to_string(),
        };
        if ports.first == ports.last {
            port(ports.first)
        } else {
            format!("{}:{}", port(ports.first), port(ports.last))
        }
    }

    fn protocol(&self) -> String {
        self.rule.protocol().map_or_else(String::new, |protocol| protocol.to_string())
    }

    fn target_options(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.rule.target {
            Target::Redirect(port) => write!(f, " redir ports {port}"),
            Target::Tproxy { port, mark } => {
                let any = match self.family {
                    Family::V4 => "0.0.0.0",
                    Family::V6 => "::",
                };
                write!(f, " TPROXY redirect {any}:{port} mark {mark:#x}/0xffffffff")
            }
            Target::SetMark(mark) => write!(f, " MARK set {mark:#x}"),
            Target::SaveMark => f.write_str(" CONNMARK save"),
            Target::RestoreMark => f.write_str(" CONNMARK restore"),
            Target::Zone(zone) => write!(f, " CT zone {zone}"),
            Target::Return
            | Target::Accept
            | Target::Drop
            | Target::Jump(_)
            | Target::None
            | Target::Other(_) => Ok(()),
        }
    }
}

fn target_name(target: &Target) -> &str {
    match target {
        Target::Return => "RETURN",
        Target::Accept => "ACCEPT",
        Target::Drop => "DROP",
        Target::Jump(chain) => chain.name(),
        Target::Redirect(_) => "REDIRECT",
        Target::Tproxy { .. } => "TPROXY",
        Target::SetMark(_) => "MARK",
        Target::SaveMark | Target::RestoreMark => "CONNMARK",
        Target::Zone(_) => "CT",
        Target::None => "",
        Target::Other(text) => text.split_whitespace().nth(1).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nat::model::Protocol;

    #[test]
    fn columns_stand_where_iptables_puts_them() {
        let rule = Rule::new(
            [
                Test::OutInterface("lo".to_owned()).is(),
                Test::Destination("127.0.0.1/32".parse().unwrap()).is_not(),
                Test::Protocol(Protocol::Tcp).is(),
                Test::DestinationPorts(15008.into()).is_not(),
                Test::Uid(1337).is(),
            ],
            Target::Jump(Chain::IN_REDIRECT),
        );
        let style = Style { names: true, verbose: true };
        let row = Row { rule: &rule, family: Family::V4, style, count: Count::default() };
        assert_eq!(
            row.to_string(),
            "    0     0 ISTIO_IN_REDIRECT  tcp  --  any    lo      anywhere            !localhost            \
             tcp dpt:!15008 owner UID match 1337"
        );
    }
}
