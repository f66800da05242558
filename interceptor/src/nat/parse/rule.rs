//! One rule as arguments of iptables.

use std::slice::Iter;

use ipnet::IpNet;
use nix::unistd::{Group, User};

use crate::{
    capture::PortRange,
    nat::{
        loaded::Chains,
        model::{Chain, Mark, Match, Protocol, Rule, Target, Test},
        services,
    },
};

/// Reads the arguments after the chain's name. `chains` tells a jump from a target of iptables' own.
pub(super) fn parse(words: &[&str], chains: &Chains) -> Result<Rule, String> {
    let mut reader = Reader { words: words.iter(), module: "" };
    let mut matches = Vec::new();
    let mut negated = false;
    while let Some(word) = reader.words.next() {
        let test = match *word {
            "!" => {
                negated = true;
                continue;
            }
            "-j" | "--jump" => {
                return Ok(Rule { matches, target: reader.target(chains)? });
            }
            "-g" | "--goto" => {
                let text = reader.rest_after("-g");
                return Ok(Rule { matches, target: Target::Other(text) });
            }
            "-c" | "--set-counters" => {
                reader.value("-c")?;
                reader.value("-c")?;
                continue;
            }
            "-m" | "--match" => {
                reader.module = reader.value("-m")?;
                if KNOWN_MODULES.contains(&reader.module) {
                    continue;
                }
                Some(Test::Other(reader.unknown_module()))
            }
            option => {
                let mut value = reader.value(option)?;
                // Before iptables 1.4.3 the exclamation mark stood here.
                if value == "!" {
                    negated = true;
                    value = reader.value(option)?;
                }
                test(option, value, reader.module)?
            }
        };
        matches.extend(test.map(|test| Match { negated, test }));
        negated = false;
    }
    Ok(Rule { matches, target: Target::None })
}

/// Modules whose options [`test`] knows.
const KNOWN_MODULES: [&str; 9] =
    ["tcp", "udp", "multiport", "owner", "conntrack", "state", "mark", "connmark", "comment"];

struct Reader<'a> {
    words: Iter<'a, &'a str>,
    module: &'a str,
}

impl<'a> Reader<'a> {
    fn value(&mut self, option: &str) -> Result<&'a str, String> {
        self.words.next().copied().ok_or_else(|| format!("`{option}` has no value"))
    }

    fn rest_after(&mut self, option: &str) -> String {
        let mut text = option.to_owned();
        for word in self.words.by_ref() {
            text.extend([" ", word]);
        }
        text
    }

    /// Everything that belongs to a module unknown here, up to the next module or the target.
    fn unknown_module(&mut self) -> String {
        let mut text = format!("-m {}", self.module);
        while let Some(next) = self.words.as_slice().first() {
            if matches!(*next, "-m" | "-j" | "-g") {
                break;
            }
            text.push(' ');
            text.push_str(next);
            self.words.next();
        }
        text
    }

    fn target(&mut self, chains: &Chains) -> Result<Target, String> {
        let name = self.value("-j")?;
        let options = self.words.as_slice();
        let target = match (name, options) {
            ("RETURN", []) => Target::Return,
            ("ACCEPT", []) => Target::Accept,
            ("DROP", []) => Target::Drop,
            ("REDIRECT", ["--to-ports" | "--to-port", port]) if port.parse::<u16>().is_ok() => {
                Target::Redirect(number(port)?)
            }
            ("TPROXY", options) => match tproxy(options) {
                Some(target) => target,
                None => Target::Other(self.rest_after("-j TPROXY")),
            },
            ("MARK", ["--set-mark" | "--set-xmark", value]) => match mark(value)? {
                Mark { value, mask: u32::MAX } => Target::SetMark(value),
                Mark { .. } => Target::Other(self.rest_after("-j MARK")),
            },
            (
                "CONNMARK",
                ["--save-mark"] | ["--save-mark", "--nfmask", "0xffffffff", "--ctmask", "0xffffffff"],
            ) => Target::SaveMark,
            (
                "CONNMARK",
                ["--restore-mark"] | ["--restore-mark", "--nfmask", "0xffffffff", "--ctmask", "0xffffffff"],
            ) => Target::RestoreMark,
            ("CT", ["--zone", zone]) if zone.parse::<u16>().is_ok() => Target::Zone(number(zone)?),
            (name, []) if is_chain(name, chains) => Target::Jump(Chain::named(name)),
            (name, _) => Target::Other(self.rest_after(&format!("-j {name}"))),
        };
        Ok(target)
    }
}

/// A chain may be declared after the rule that jumps to it only in Istio's own texts, and Istio's chains bear its name.
fn is_chain(name: &str, chains: &Chains) -> bool {
    let chain = Chain::named(name);
    chain.is_istio() || chains.chains.contains_key(&chain)
}

/// The test an option makes; none if it holds for every packet.
fn test(option: &str, value: &str, module: &str) -> Result<Option<Test>, String> {
    Ok(Some(match option {
        "-s" | "--source" | "--src" => Test::Source(cidr(value)?),
        "-d" | "--destination" | "--dst" => Test::Destination(cidr(value)?),
        "-i" | "--in-interface" => Test::InInterface(value.to_owned()),
        "-o" | "--out-interface" => Test::OutInterface(value.to_owned()),
        "-p" | "--protocol" | "--proto" => return Ok(protocol(value)?.map(Test::Protocol)),
        "--sport" | "--source-port" => Test::SourcePorts(ports(value)?),
        "--dport" | "--destination-port" => Test::DestinationPorts(ports(value)?),
        "--dports" | "--destination-ports" => {
            Test::AnyDestinationPorts(value.split(',').map(ports).collect::<Result<_, _>>()?)
        }
        "--uid-owner" => match user(value) {
            Some(uid) => Test::Uid(uid),
            None => Test::Other(format!("-m owner --uid-owner {value}")),
        },
        "--gid-owner" => match group(value) {
            Some(gid) => Test::Gid(gid),
            None => Test::Other(format!("-m owner --gid-owner {value}")),
        },
        "--ctstate" | "--state" => Test::ConntrackState(value.split(',').map(str::to_owned).collect()),
        "--mark" if module == "connmark" => Test::ConnectionMark(mark(value)?),
        "--mark" => Test::Mark(mark(value)?),
        "--comment" => Test::Comment(value.to_owned()),
        _ if option.starts_with("--") => Test::Other(format!("{option} {value}")),
        _ => return Err(format!("`{option}` is not an option of iptables known here")),
    }))
}

fn tproxy(options: &[&str]) -> Option<Target> {
    let mut port = None;
    let mut set = None;
    for pair in options.chunks(2) {
        match pair {
            ["--on-port", value] => port = value.parse().ok(),
            ["--on-ip", "0.0.0.0" | "::"] => {}
            ["--tproxy-mark", value] => set = mark(value).ok().filter(|mark| mark.mask == u32::MAX),
            _ => return None,
        }
    }
    Some(Target::Tproxy { port: port?, mark: set?.value })
}

/// An address with or without a prefix length; old Istio wrote some without.
pub(super) fn cidr(text: &str) -> Result<IpNet, String> {
    let cidr =
        text.parse::<IpNet>().ok().or_else(|| Some(IpNet::from(text.parse::<std::net::IpAddr>().ok()?)));
    cidr.ok_or_else(|| {
        format!("`{text}` is not an address or a range of addresses; list with -n if it is a name")
    })
}

/// A protocol by name or number; `None` for all of them.
pub(super) fn protocol(text: &str) -> Result<Option<Protocol>, String> {
    Ok(Some(match text {
        "all" | "0" => return Ok(None),
        "tcp" | "6" => Protocol::Tcp,
        "udp" | "17" => Protocol::Udp,
        "icmp" => Protocol::Other(1),
        "sctp" => Protocol::Other(132),
        "ipv6-icmp" | "icmpv6" => Protocol::Other(58),
        other => Protocol::Other(number(other)?),
    }))
}

/// A port or a range, numbers or service names.
pub(super) fn ports(text: &str) -> Result<PortRange, String> {
    let port = |text: &str| -> Result<u16, String> {
        let known = text.parse().ok().or_else(|| services::port(text));
        known.ok_or_else(|| {
            format!("`{text}` is neither a port nor the name of a service known here; list with -n")
        })
    };
    let Some((first, last)) = text.split_once(':') else { return Ok(port(text)?.into()) };
    let first = if first.is_empty() { 0 } else { port(first)? };
    let last = if last.is_empty() { u16::MAX } else { port(last)? };
    if first > last {
        return Err(format!("the range of ports `{text}` ends before it begins"));
    }
    Ok(PortRange { first, last })
}

/// A user by id or name. Istio's image names its proxy's user, which other hosts need not know.
pub(super) fn user(text: &str) -> Option<u32> {
    let by_name = || User::from_name(text).ok().flatten().map(|user| user.uid.as_raw());
    text.parse().ok().or_else(by_name).or((text == ISTIO_PROXY).then_some(1337))
}

/// A group by id or name.
pub(super) fn group(text: &str) -> Option<u32> {
    let by_name = || Group::from_name(text).ok().flatten().map(|group| group.gid.as_raw());
    text.parse().ok().or_else(by_name).or((text == ISTIO_PROXY).then_some(1337))
}

/// A mark with its mask, each decimal or hexadecimal.
pub(super) fn mark(text: &str) -> Result<Mark, String> {
    let bits = |text: &str| {
        let hexadecimal = text.strip_prefix("0x").map(|digits| u32::from_str_radix(digits, 16));
        let bits = hexadecimal.unwrap_or_else(|| text.parse());
        bits.map_err(|_| format!("`{text}` is not a mark"))
    };
    match text.split_once('/') {
        Some((value, mask)) => Ok(Mark { value: bits(value)?, mask: bits(mask)? }),
        None => Ok(bits(text)?.into()),
    }
}

pub(super) fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("`{text}` is not a number that fits here"))
}

const ISTIO_PROXY: &str = "istio-proxy";

#[cfg(test)]
mod tests {
    use super::ports;
    use crate::capture::PortRange;

    #[test]
    fn only_a_range_may_leave_an_end_out() {
        assert_eq!(ports(":"), Ok(PortRange::ALL));
        assert_eq!(ports("80:"), Ok(PortRange { first: 80, last: u16::MAX }));
        assert!(ports("").is_err());
        assert!(ports("81:80").is_err());
    }
}
