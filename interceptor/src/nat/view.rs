//! What a rule's tests look at while a packet passes one hook.

use std::net::IpAddr;

use super::{
    model::{Mark, Match, Protocol, Rule, Test},
    packet::Packet,
};

/// A packet at a hook.
#[derive(Clone, Copy, Debug)]
pub(super) struct View<'a> {
    pub(super) protocol: Protocol,
    pub(super) source: IpAddr,
    pub(super) source_port: u16,
    pub(super) destination: IpAddr,
    pub(super) port: u16,
    pub(super) in_interface: Option<&'a str>,
    pub(super) out_interface: Option<&'a str>,
    /// User and group of the socket; none once the packet has left it.
    pub(super) owner: Option<(u32, u32)>,
}

impl<'a> View<'a> {
    /// The packet as OUTPUT sees it.
    pub(super) fn sent(packet: &Packet, interface: &'a str, uid: u32, gid: u32) -> Self {
        Self {
            in_interface: None,
            out_interface: Some(interface),
            owner: Some((uid, gid)),
            ..Self::received(packet, interface)
        }
    }

    /// The packet as PREROUTING sees it.
    pub(super) fn received(packet: &Packet, interface: &'a str) -> Self {
        Self {
            protocol: packet.protocol,
            source: packet.source,
            source_port: packet.source_port,
            destination: packet.destination,
            port: packet.port,
            in_interface: Some(interface),
            out_interface: None,
            owner: None,
        }
    }

    /// Whether every match of the rule holds; `None` if that hangs on a test unknown here.
    pub(super) fn matches(&self, rule: &Rule, mark: u32) -> Option<bool> {
        let mut all = Some(true);
        for part in &rule.matches {
            match self.holds(part, mark) {
                Some(true) => {}
                Some(false) => return Some(false),
                None => all = None,
            }
        }
        all
    }

    fn holds(&self, part: &Match, mark: u32) -> Option<bool> {
        let has_ports = matches!(self.protocol, Protocol::Tcp | Protocol::Udp);
        let holds = match &part.test {
            Test::Source(cidr) => cidr.contains(&self.source),
            Test::Destination(cidr) => cidr.contains(&self.destination),
            // Without an interface the name is empty, which only a pattern for every interface matches.
            Test::InInterface(name) => is_interface(name, self.in_interface.unwrap_or_default()),
            Test::OutInterface(name) => is_interface(name, self.out_interface.unwrap_or_default()),
            Test::Protocol(protocol) => *protocol == self.protocol,
            // Ports are tested by a protocol's own match, which fails for packets of another, negated or not.
            Test::SourcePorts(_) | Test::DestinationPorts(_) | Test::AnyDestinationPorts(_) if !has_ports => {
                return Some(false);
            }
            Test::SourcePorts(ports) => ports.contains(self.source_port),
            Test::DestinationPorts(ports) => ports.contains(self.port),
            Test::AnyDestinationPorts(ranges) => ranges.iter().any(|ports| ports.contains(self.port)),
            Test::Uid(uid) => self.owner.is_some_and(|(owner, _)| owner == *uid),
            Test::Gid(gid) => self.owner.is_some_and(|(_, owner)| owner == *gid),
            // The first packet of a connection is in state NEW.
            Test::ConntrackState(states) => states.iter().any(|state| state == "NEW"),
            Test::Mark(wanted) => has_mark(*wanted, mark),
            Test::ConnectionMark(wanted) => has_mark(*wanted, 0),
            Test::Comment(_) => true,
            Test::Other(_) => return None,
        };
        Some(holds != part.negated)
    }
}

/// Whether an interface is the one that iptables' `pattern` names, or begins as it does before a final `+`.
#[must_use]
pub fn is_interface(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('+') {
        Some(prefix) => name.starts_with(prefix),
        None => name == pattern,
    }
}

fn has_mark(wanted: Mark, mark: u32) -> bool {
    mark & wanted.mask == wanted.value
}
