//! What `iptables-save` prints (measured with 1.8.9, alike for its legacy and nft variants).

use std::fmt::{self, Write as _};

use ipnet::IpNet;

use super::{
    loaded::Loaded,
    model::{Family, Mark, Match, Rule, Target, Test},
    restore::Ports,
};
use crate::capture::PortRange;

/// The text for one family, without the comments that name version and date.
#[must_use]
pub fn text(loaded: &Loaded, family: Family) -> String {
    let mut text = String::new();
    for (table, chains) in &loaded.tables {
        text.extend(["*", table.name(), "\n"]);
        for (chain, _) in chains.in_order(*table) {
            let policy = match (chain.is_built_in(), chains.dropping.contains(chain)) {
                (false, _) => "-",
                (true, false) => "ACCEPT",
                (true, true) => "DROP",
            };
            text.extend([":", chain.name(), " ", policy, " [0:0]\n"]);
        }
        for (chain, rules) in chains.in_order(*table) {
            for rule in rules {
                // Writing to a string cannot fail.
                let _ = writeln!(text, "-A {chain}{}", Saved { rule, family });
            }
        }
        text.push_str("COMMIT\n");
    }
    text
}

/// A rule in the one form that iptables-save has for it, with a blank before each part.
pub struct Saved<'a> {
    /// The rule.
    pub rule: &'a Rule,
    /// Its family, which shows in TPROXY's target.
    pub family: Family,
}

impl fmt::Display for Saved<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut matches: Vec<&Match> = self.rule.matches.iter().collect();
        matches.sort_by_key(|part| rank(&part.test));
        let mut names_protocol = false;
        for part in &matches {
            if let Test::SourcePorts(_) | Test::DestinationPorts(_) = part.test
                && !names_protocol
            {
                names_protocol = true;
                if let Some(protocol) = self.rule.protocol() {
                    write!(f, " -m {protocol}")?;
                }
            }
            write_match(f, part)?;
        }
        match &self.rule.target {
            Target::Return => f.write_str(" -j RETURN"),
            Target::Accept => f.write_str(" -j ACCEPT"),
            Target::Drop => f.write_str(" -j DROP"),
            Target::Jump(chain) => write!(f, " -j {chain}"),
            Target::Redirect(port) => write!(f, " -j REDIRECT --to-ports {port}"),
            Target::Tproxy { port, mark } => {
                let any = match self.family {
                    Family::V4 => "0.0.0.0",
                    Family::V6 => "::",
                };
                write!(f, " -j TPROXY --on-port {port} --on-ip {any} --tproxy-mark {mark:#x}/0xffffffff")
            }
            Target::SetMark(mark) => write!(f, " -j MARK --set-xmark {mark:#x}/0xffffffff"),
            Target::SaveMark => {
                f.write_str(" -j CONNMARK --save-mark --nfmask 0xffffffff --ctmask 0xffffffff")
            }
            Target::RestoreMark => {
                f.write_str(" -j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff")
            }
            Target::Zone(zone) => write!(f, " -j CT --zone {zone}"),
            Target::None => Ok(()),
            Target::Other(text) => write!(f, " {text}"),
        }
    }
}

/// Addresses, interfaces and protocol come first, in this order; the rest stays as written.
fn rank(test: &Test) -> u8 {
    match test {
        Test::Source(_) => 0,
        Test::Destination(_) => 1,
        Test::InInterface(_) => 2,
        Test::OutInterface(_) => 3,
        Test::Protocol(_) => 4,
        Test::SourcePorts(_)
        | Test::DestinationPorts(_)
        | Test::AnyDestinationPorts(_)
        | Test::Uid(_)
        | Test::Gid(_)
        | Test::ConntrackState(_)
        | Test::Mark(_)
        | Test::ConnectionMark(_)
        | Test::Comment(_)
        | Test::Other(_) => 5,
    }
}

fn write_match(f: &mut fmt::Formatter<'_>, part: &Match) -> fmt::Result {
    let not = if part.negated { " !" } else { "" };
    match &part.test {
        Test::Source(cidr) => write_cidr(f, not, "-s", cidr),
        Test::Destination(cidr) => write_cidr(f, not, "-d", cidr),
        Test::InInterface(name) => write!(f, "{not} -i {name}"),
        Test::OutInterface(name) => write!(f, "{not} -o {name}"),
        Test::Protocol(protocol) => write!(f, "{not} -p {protocol}"),
        Test::SourcePorts(ports) => write_ports(f, not, "--sport", *ports),
        Test::DestinationPorts(ports) => write_ports(f, not, "--dport", *ports),
        Test::AnyDestinationPorts(ports) => write!(f, " -m multiport{not} --dports {}", Ports(ports)),
        Test::Uid(uid) => write!(f, " -m owner{not} --uid-owner {uid}"),
        Test::Gid(gid) => write!(f, " -m owner{not} --gid-owner {gid}"),
        Test::ConntrackState(states) => write!(f, " -m conntrack{not} --ctstate {}", states.join(",")),
        Test::Mark(mark) => write!(f, " -m mark{not} --mark {}", Bits(*mark)),
        Test::ConnectionMark(mark) => write!(f, " -m connmark{not} --mark {}", Bits(*mark)),
        Test::Comment(text) => {
            write!(f, " -m comment --comment \"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
        }
        Test::Other(text) => write!(f, " {text}"),
    }
}

/// The kernel drops host bits, and a test that holds for every address is not printed.
fn write_cidr(f: &mut fmt::Formatter<'_>, not: &str, option: &str, cidr: &IpNet) -> fmt::Result {
    if cidr.prefix_len() == 0 && not.is_empty() {
        return Ok(());
    }
    write!(f, "{not} {option} {}", cidr.trunc())
}

fn write_ports(f: &mut fmt::Formatter<'_>, not: &str, option: &str, ports: PortRange) -> fmt::Result {
    if ports == PortRange::ALL && not.is_empty() {
        return Ok(());
    }
    write!(f, "{not} {option} {ports}")
}

/// A mark's value, and its mask unless that is every bit.
struct Bits(Mark);

impl fmt::Display for Bits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Mark { value, mask } = self.0;
        if mask == u32::MAX { write!(f, "{value:#x}") } else { write!(f, "{value:#x}/{mask:#x}") }
    }
}
