//! Istio's rules for a capture, as releases since 1.25 make them (`tools/istio-iptables/pkg/capture/run.go`).

mod dns;
mod inbound;
mod outbound;
mod tproxy;

pub(super) use self::{dns::PROXY_PORT as PROXY_DNS_PORT, tproxy::SELF_CALL_MARK};

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv6Net};

use super::model::{Chain, Entry, Family, Match, Protocol, Rule, RuleSet, Table, Target, Test};
use crate::capture::{Capture, InboundMode, InboundPorts};

/// The rules that mean the same as `capture`, in the order Istio emits them.
#[must_use]
pub fn generate(capture: &Capture) -> RuleSet {
    RuleSet {
        v4: family(capture, Family::V4),
        v6: if capture.ipv6 { family(capture, Family::V6) } else { Vec::new() },
    }
}

fn family(capture: &Capture, family: Family) -> Vec<Entry> {
    let mut rules = Emission { capture, family, entries: Vec::new() };
    inbound::excluded_interfaces(&mut rules);
    inbound::rerouted_interfaces(&mut rules);
    inbound::invalid(&mut rules);
    if capture.quirks.inbound_tunnel_exempt {
        rules.nat(&Chain::INBOUND, [TCP, rules.to_tunnel().is()], Target::Return);
    }
    rules.nat(&Chain::REDIRECT, [TCP], Target::Redirect(capture.outbound_port));
    rules.nat(&Chain::IN_REDIRECT, [TCP], Target::Redirect(capture.inbound_port));
    if capture.inbound_ports != InboundPorts::None {
        match capture.inbound_mode {
            InboundMode::Redirect => inbound::redirect(&mut rules),
            InboundMode::Tproxy => tproxy::inbound(&mut rules),
        }
    }
    outbound::emit(&mut rules);
    if capture.inbound_mode == InboundMode::Tproxy {
        tproxy::tail(&mut rules);
    }
    rules.entries
}

const TCP: Match = Test::Protocol(Protocol::Tcp).is();
const UDP: Match = Test::Protocol(Protocol::Udp).is();

/// The rules of one family, as far as they have been emitted.
struct Emission<'a> {
    capture: &'a Capture,
    family: Family,
    entries: Vec<Entry>,
}

impl Emission<'_> {
    fn nat(&mut self, chain: &Chain, matches: impl Into<Vec<Match>>, target: Target) {
        self.append(Table::Nat, chain, matches, target);
    }

    fn mangle(&mut self, chain: &Chain, matches: impl Into<Vec<Match>>, target: Target) {
        self.append(Table::Mangle, chain, matches, target);
    }

    fn raw(&mut self, chain: &Chain, matches: impl Into<Vec<Match>>, target: Target) {
        self.append(Table::Raw, chain, matches, target);
    }

    fn append(&mut self, table: Table, chain: &Chain, matches: impl Into<Vec<Match>>, target: Target) {
        let rule = Rule::new(matches, target);
        self.entries.push(Entry { table, chain: chain.clone(), place: None, rule });
    }

    fn insert(
        &mut self,
        table: Table,
        chain: &Chain,
        place: usize,
        matches: impl Into<Vec<Match>>,
        target: Target,
    ) {
        let rule = Rule::new(matches, target);
        self.entries.push(Entry { table, chain: chain.clone(), place: Some(place), rule });
    }

    fn to_loopback(&self) -> Test {
        Test::Destination(match self.family {
            Family::V4 => IpNet::V4(self.capture.loopback),
            Family::V6 => IpNet::V6(Ipv6Net::from(Ipv6Addr::LOCALHOST)),
        })
    }

    /// From the address that the proxy binds when it passes inbound connections on.
    fn passthrough_source(&self) -> Match {
        let address = match self.family {
            Family::V4 => IpNet::from(std::net::IpAddr::V4(Ipv4Addr::new(127, 0, 0, 6))),
            Family::V6 => IpNet::from(std::net::IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6))),
        };
        Test::Source(address).is()
    }

    fn to_tunnel(&self) -> Test {
        Test::DestinationPorts(self.capture.tunnel_port.into())
    }

    fn cidrs(&self, cidrs: &[IpNet]) -> Vec<IpNet> {
        cidrs.iter().filter(|cidr| self.family.has(cidr)).copied().collect()
    }
}

fn on_lo() -> Match {
    Test::OutInterface("lo".to_owned()).is()
}
