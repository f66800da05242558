//! Scenarios for any capture: a connection of every class that its rules can tell apart.

use std::net::IpAddr;

use super::{boundaries::is_connectable, many};
use crate::{
    capture::Capture,
    nat::{self, Family as NatFamily, Loaded, Packet, Path, Protocol, classes::Classes},
    parity::{
        actor::Owner,
        plan::{Family, Host, Place, is_spread},
        scenario::{APP, Client, Connection, Deed, Endpoint, Scenario, Set},
        world::Layout,
    },
};

/// What stands for the workload in [`Classes`].
const STANDS_FOR_POD: [&str; 2] = ["10.1.0.5", "2001:db8:ffff::5"];
/// Connections of one scenario: enough to share a world, few enough to be found in a report.
const TOGETHER: usize = 12;

/// Scenarios for a capture.
#[derive(Clone, Debug)]
pub struct Given {
    /// The scenarios.
    pub scenarios: Vec<Scenario>,
    /// How many connections are in them.
    pub chosen: usize,
    /// How many there are that the capture's rules may tell apart.
    pub all: usize,
}

/// Scenarios for a capture, of at most that many connections, spread evenly over all there could be.
#[must_use]
pub fn scenarios_of(capture: &Capture, most: usize) -> Given {
    let connections = connections_of(capture);
    let all = connections.len();
    let step = all.div_ceil(most.max(1)).max(1);
    let chosen: Vec<_> = connections.into_iter().step_by(step).collect();
    let scenarios = chosen
        .chunks(TOGETHER)
        .zip(1..)
        .map(|(connections, number)| {
            scenario(&format!("given capture {number}"), capture, connections.to_vec())
        })
        .collect();
    Given { scenarios, chosen: chosen.len(), all }
}

/// A scenario under that capture, in a world where every address answers.
pub(in crate::parity) fn scenario(name: &str, capture: &Capture, connections: Vec<Connection>) -> Scenario {
    Scenario {
        capture: capture.command_line(),
        layout: Layout { peer_is_everywhere: true, ..Layout::default() },
        set: Set::Captures,
        ..many(name, connections)
    }
}

/// Every connection that can be made in a world and that the capture's rules may tell from others.
#[must_use]
pub(in crate::parity) fn connections_of(capture: &Capture) -> Vec<Connection> {
    let rules = nat::generate(capture);
    let loaded = NatFamily::ALL.map(|family| Loaded::of(rules.family(family)));
    let classes = Classes::distinct(loaded.iter().flat_map(nat::classes::tests));
    let mut connections = Vec::new();
    let _all = classes.each(|packet| {
        connections.extend(connection(packet, capture));
        std::ops::ControlFlow::<()>::Continue(())
    });
    connections
}

/// The connection whose first packet that is; none if it cannot be made in a world.
fn connection(packet: &Packet, capture: &Capture) -> Option<Connection> {
    let family = if packet.destination.is_ipv4() { Family::V4 } else { Family::V6 };
    let is_workload = |address: IpAddr| STANDS_FOR_POD.iter().any(|pod| pod.parse() == Ok(address));
    let own = [capture.outbound_port, capture.inbound_port];
    if packet.port == 0 || own.contains(&packet.port) {
        return None;
    }
    let deed = match packet.protocol {
        Protocol::Tcp => Deed::Ask,
        Protocol::Udp => Deed::Datagram,
        Protocol::Other(_) => return None,
    };
    let (client, host) = match &packet.path {
        Path::Incoming { interface } => {
            let arrives =
                interface == "eth0" && is_workload(packet.destination) && is_workload(packet.source);
            (Client { place: Place::Peer, owner: APP.owner }, arrives.then_some(Host::Pod)?)
        }
        Path::Outgoing { interface, uid, gid, mark } => {
            if *mark != 0 {
                return None;
            }
            let owner = Owner { uid: *uid, gid: *gid };
            (Client { place: Place::Pod, owner }, host(packet.destination, interface, is_workload)?)
        }
    };
    let bind = match packet.source {
        source if is_workload(source) => None,
        source if host.is_local_to_pod(family) && client.place == Place::Pod && is_passthrough(source) => {
            Some(Endpoint { host: Some(Host::Loopback(6)), family, port: 0 })
        }
        _ => return None,
    };
    // Without interception of IPv6 nobody gives the pod that address.
    if bind.is_some() && family == Family::V6 && !capture.ipv6 {
        return None;
    }
    let to = Endpoint { host: Some(host), family, port: packet.port };
    Some(Connection { first: None, client, deed, bind, to })
}

fn is_passthrough(source: IpAddr) -> bool {
    [Family::V4, Family::V6].iter().any(|family| Host::Loopback(6).address(*family) == source)
}

/// Where a packet goes, if it leaves by that interface in a world.
fn host(destination: IpAddr, interface: &str, is_workload: impl Fn(IpAddr) -> bool) -> Option<Host> {
    let is_loopback = destination.is_loopback();
    match interface {
        "lo" if is_workload(destination) => Some(Host::Pod),
        "lo" if is_loopback && !is_spread(destination) => Some(Host::At(destination)),
        "eth0" if !is_loopback && is_connectable(destination) => Some(Host::At(destination)),
        _ => None,
    }
}
