//! What rules do with a packet, and which of them decided.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use super::{
    loaded::Loaded,
    model::{Chain, Family, Rule, Table, Target},
    packet::{Packet, Path},
    save::Saved,
    view::View,
};

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It goes where it wanted to.
    Pass,
    /// Its destination becomes a local address and this port.
    Redirect(u16),
    /// A local socket at this port gets it, addresses unchanged.
    Tproxy(u16),
    /// It is dropped.
    Drop,
}

/// A few words that go on after "ends as".
impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pass => f.write_str("passed"),
            Self::Redirect(port) => write!(f, "redirected to port {port}"),
            Self::Tproxy(port) => write!(f, "given to port {port}"),
            Self::Drop => f.write_str("dropped"),
        }
    }
}

/// What becomes of a packet, and the rules that said so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evaluation<'a> {
    /// What becomes of it.
    pub outcome: Outcome,
    /// The rule that decided, last, after the rules that led there; empty if no rule decided.
    pub path: Vec<RuleAt<'a>>,
}

/// A rule and where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuleAt<'a> {
    /// The family whose rule it is.
    pub family: Family,
    /// The table.
    pub table: Table,
    /// The chain.
    pub chain: &'a Chain,
    /// The place in the chain, counted from 1.
    pub place: usize,
    /// The rule.
    pub rule: &'a Rule,
}

/// As iptables would append it.
impl fmt::Display for RuleAt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { family, table, chain, rule, .. } = *self;
        write!(f, "-t {} -A {chain}{}", table.name(), Saved { rule, family })
    }
}

/// Why rules cannot be evaluated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvaluateError {
    /// The packet meets a rule that this program does not know.
    #[error("the rule `{0}` has a part that is not known here")]
    Unknown(String),
    /// Chains jump to each other without end, or as good as.
    #[error("the chains jump to each other without end")]
    Endless,
}

/// What the rules do with the first packet of a connection.
pub fn evaluate<'a>(loaded: &'a Loaded, packet: &Packet) -> Result<Evaluation<'a>, EvaluateError> {
    let mut walk = Walk { loaded, packet, mark: 0, steps: 0, jumps: Vec::new(), last: Vec::new() };
    match &packet.path {
        Path::Outgoing { interface, uid, gid, mark } => {
            walk.mark = *mark;
            let sent = walk.hook(&Chain::OUTPUT, &View::sent(packet, interface, *uid, *gid), true)?;
            if interface != "lo" || sent.outcome == Outcome::Drop {
                return Ok(sent);
            }
            // The packet comes back in through lo, perhaps rewritten; nat is asked only once about a connection.
            let (destination, port) = match sent.outcome {
                Outcome::Redirect(port) => (loopback(packet), port),
                Outcome::Pass | Outcome::Tproxy(_) | Outcome::Drop => (packet.destination, packet.port),
            };
            let view = View { destination, port, ..View::received(packet, "lo") };
            let received = walk.hook(&Chain::PREROUTING, &view, false)?;
            Ok(if received.outcome == Outcome::Pass { sent } else { received })
        }
        Path::Incoming { interface } => {
            walk.hook(&Chain::PREROUTING, &View::received(packet, interface), true)
        }
    }
}

/// More rules than any packet meets: chains that need more were made to hang their reader.
const MOST_STEPS: usize = 1_000_000;

/// Deeper than any chains that iptables takes.
const DEEPEST: usize = 128;

struct Walk<'a, 'p> {
    loaded: &'a Loaded,
    packet: &'p Packet,
    mark: u32,
    steps: usize,
    /// The jumps that led to the chain at hand.
    jumps: Vec<RuleAt<'a>>,
    /// The last rule that ended a chain, after the jumps to it.
    last: Vec<RuleAt<'a>>,
}

/// How a chain ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Return,
    Accept,
    Drop,
    Redirect(u16),
    Tproxy(u16),
}

impl<'a> Walk<'a, '_> {
    /// One hook, in the kernel's order of tables: mangle at priority -150, nat at -100, filter at 0.
    ///
    /// raw only tells conntrack's zones apart, which decides nothing about a connection's first packet.
    fn hook(
        &mut self,
        hook: &Chain,
        view: &View<'_>,
        with_nat: bool,
    ) -> Result<Evaluation<'a>, EvaluateError> {
        let mut evaluation = Evaluation { outcome: Outcome::Pass, path: Vec::new() };
        for table in [Table::Mangle, Table::Nat, Table::Filter] {
            if table == Table::Nat && !with_nat {
                continue;
            }
            self.last.clear();
            let outcome = match self.chain(table, hook, view)? {
                End::Drop => Outcome::Drop,
                End::Redirect(port) => Outcome::Redirect(port),
                End::Tproxy(port) => Outcome::Tproxy(port),
                End::Return | End::Accept => Outcome::Pass,
            };
            let path = std::mem::take(&mut self.last);
            match (evaluation.outcome, outcome) {
                (_, Outcome::Drop) => return Ok(Evaluation { outcome, path }),
                // What passed nat may still name a rule; a redirection is not undone, and a socket given by TPROXY
                // keeps the packet whatever nat writes into it.
                (Outcome::Pass, _) if !path.is_empty() => evaluation = Evaluation { outcome, path },
                _ => {}
            }
        }
        Ok(evaluation)
    }

    fn chain(&mut self, table: Table, chain: &Chain, view: &View<'_>) -> Result<End, EvaluateError> {
        if self.jumps.len() > DEEPEST {
            return Err(EvaluateError::Endless);
        }
        let Some(chains) = self.loaded.tables.get(&table) else { return Ok(End::Return) };
        let Some((chain, rules)) = chains.chains.get_key_value(chain) else { return Ok(End::Return) };
        for (rule, place) in rules.iter().zip(1..) {
            self.steps += 1;
            if self.steps > MOST_STEPS {
                return Err(EvaluateError::Endless);
            }
            let at = RuleAt { family: self.packet.family(), table, chain, place, rule };
            let unknown = || EvaluateError::Unknown(at.to_string());
            if !view.matches(rule, self.mark).ok_or_else(unknown)? {
                continue;
            }
            let end = match &rule.target {
                Target::Return => End::Return,
                Target::Accept => End::Accept,
                Target::Drop => End::Drop,
                Target::Redirect(port) => End::Redirect(*port),
                Target::Tproxy { port, mark } => {
                    self.mark = *mark;
                    End::Tproxy(*port)
                }
                Target::Jump(next) => {
                    self.jumps.push(at);
                    let end = self.chain(table, next, view)?;
                    self.jumps.pop();
                    if end == End::Return {
                        continue;
                    }
                    return Ok(end);
                }
                Target::SetMark(mark) => {
                    self.mark = *mark;
                    continue;
                }
                // A connection has no mark before its first packet, and the mark saved is of no use to that packet.
                Target::RestoreMark => {
                    self.mark = 0;
                    continue;
                }
                Target::SaveMark | Target::Zone(_) | Target::None => continue,
                Target::Other(_) => return Err(unknown()),
            };
            self.last.clone_from(&self.jumps);
            self.last.push(at);
            return Ok(end);
        }
        Ok(if chains.dropping.contains(chain) { End::Drop } else { End::Return })
    }
}

fn loopback(packet: &Packet) -> IpAddr {
    match packet.family() {
        Family::V4 => IpAddr::V4(Ipv4Addr::LOCALHOST),
        Family::V6 => IpAddr::V6(Ipv6Addr::LOCALHOST),
    }
}
