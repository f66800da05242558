//! Input for `iptables-restore --noflush`, byte for byte as Istio writes it.

use std::fmt::{self, Write as _};

use super::model::{Chain, Entry, Mark, Match, Protocol, Rule, Table, Target, Test};
use crate::capture::PortRange;

/// The text for one family; empty if there is no rule.
#[must_use]
pub fn text(entries: &[Entry]) -> String {
    let mut text = String::new();
    for table in Table::ALL {
        let rules: Vec<&Entry> = entries.iter().filter(|entry| entry.table == table).collect();
        if rules.is_empty() {
            continue;
        }
        text.push_str("* ");
        text.push_str(table.name());
        text.push('\n');
        for chain in new_chains(&rules) {
            text.extend(["-N ", chain.name(), "\n"]);
        }
        for entry in rules {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{}", Command(entry));
        }
        text.push_str("COMMIT\n");
    }
    text
}

/// The chains to make: first those that own a rule, then those only jumped to.
fn new_chains<'a>(rules: &[&'a Entry]) -> Vec<&'a Chain> {
    let owners = rules.iter().map(|entry| &entry.chain);
    let jumps = rules.iter().filter_map(|entry| entry.rule.target.jump());
    let mut chains: Vec<&Chain> = Vec::new();
    for chain in owners.chain(jumps) {
        if !chain.is_built_in() && !chains.contains(&chain) {
            chains.push(chain);
        }
    }
    chains
}

/// An entry as the command line that adds it.
struct Command<'a>(&'a Entry);

impl fmt::Display for Command<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Entry { chain, place, rule, .. } = self.0;
        match place {
            None => write!(f, "-A {chain}{}", Spec(rule)),
            Some(place) => write!(f, "-I {chain} {place}{}", Spec(rule)),
        }
    }
}

/// A rule as the arguments that Istio gives to iptables, with a blank before each.
pub(super) struct Spec<'a>(pub(super) &'a Rule);

impl fmt::Display for Spec<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in &self.0.matches {
            write_match(f, part)?;
        }
        match &self.0.target {
            Target::Return => f.write_str(" -j RETURN"),
            Target::Accept => f.write_str(" -j ACCEPT"),
            Target::Drop => f.write_str(" -j DROP"),
            Target::Jump(chain) => write!(f, " -j {chain}"),
            Target::Redirect(port) => {
                // Istio writes the option's short form in its UDP rules; iptables takes either.
                let udp = self.0.matches.contains(&Test::Protocol(Protocol::Udp).is());
                let option = if udp { "--to-port" } else { "--to-ports" };
                write!(f, " -j REDIRECT {option} {port}")
            }
            Target::Tproxy { port, mark } => {
                write!(f, " -j TPROXY --tproxy-mark {mark}/0xffffffff --on-port {port}")
            }
            Target::SetMark(mark) => write!(f, " -j MARK --set-mark {mark}"),
            Target::SaveMark => f.write_str(" -j CONNMARK --save-mark"),
            Target::RestoreMark => f.write_str(" -j CONNMARK --restore-mark"),
            Target::Zone(zone) => write!(f, " -j CT --zone {zone}"),
            Target::None => Ok(()),
            Target::Other(text) => write!(f, " {text}"),
        }
    }
}

fn write_match(f: &mut fmt::Formatter<'_>, part: &Match) -> fmt::Result {
    let not = if part.negated { " !" } else { "" };
    match &part.test {
        Test::Source(cidr) => write!(f, "{not} -s {cidr}"),
        Test::Destination(cidr) => write!(f, "{not} -d {cidr}"),
        Test::InInterface(name) => write!(f, "{not} -i {name}"),
        Test::OutInterface(name) => write!(f, "{not} -o {name}"),
        Test::Protocol(protocol) => write!(f, "{not} -p {protocol}"),
        Test::SourcePorts(ports) => write!(f, "{not} --sport {ports}"),
        Test::DestinationPorts(ports) => write!(f, "{not} --dport {ports}"),
        Test::AnyDestinationPorts(ports) => write!(f, " -m multiport{not} --dports {}", Ports(ports)),
        Test::Uid(uid) => write!(f, " -m owner{not} --uid-owner {uid}"),
        Test::Gid(gid) => write!(f, " -m owner{not} --gid-owner {gid}"),
        Test::ConntrackState(states) => write!(f, " -m conntrack{not} --ctstate {}", states.join(",")),
        Test::Mark(mark) => write!(f, " -m mark{not} --mark {}", Bits(*mark)),
        Test::ConnectionMark(mark) => write!(f, " -m connmark{not} --mark {}", Bits(*mark)),
        Test::Comment(text) => write!(f, " -m comment --comment \"{text}\""),
        Test::Other(text) => write!(f, "{not} {text}"),
    }
}

/// Ports with commas between.
pub(super) struct Ports<'a>(pub(super) &'a [PortRange]);

impl fmt::Display for Ports<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, ports) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            write!(f, "{ports}")?;
        }
        Ok(())
    }
}

/// A mark's value, and its mask unless that is every bit.
struct Bits(Mark);

impl fmt::Display for Bits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Mark { value, mask } = self.0;
        if mask == u32::MAX { write!(f, "{value}") } else { write!(f, "{value}/{mask}") }
    }
}
