//! Lists of addresses and ports, just within and just without: every first and last one and its neighbour.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{many, tcp, to};
use crate::parity::{
    plan::{Family, Host},
    scenario::{APP, Connection, Deed, Endpoint, PROXY, REMOTE, Scenario, Set},
    world::Layout,
};

/// Prefixes of every kind: single addresses, halves of pairs, octet and word boundaries, everything.
const PREFIXES: [&str; 12] = [
    "10.88.0.1/32",
    "10.88.0.2/31",
    "10.88.4.0/22",
    "10.88.255.0/24",
    "172.16.0.0/12",
    "128.0.0.0/1",
    "0.0.0.0/0",
    "fd88::1/128",
    "fd88::4/127",
    "fd88:0:0:1::/64",
    "fd88:1::/33",
    "8000::/1",
];

/// Ports and ranges of ports, also at both ends of what there is.
const PORTS: [&str; 6] = ["1", "80", "443:445", "1:1023", "32768:65535", "65535"];

pub(super) fn scenarios() -> Vec<Scenario> {
    let prefixes = PREFIXES.iter().flat_map(|prefix| {
        [
            addresses(&format!("around the excluded {prefix}"), prefix, &["-i", "*", "-x", prefix]),
            addresses(&format!("around the included {prefix}"), prefix, &["-i", prefix]),
        ]
    });
    let ports = PORTS.iter().flat_map(|range| {
        [
            outbound(&format!("around the excluded outbound port {range}"), range, &["-i", "*", "-o", range]),
            outbound(&format!("around the included outbound port {range}"), range, &["-q", range]),
            inbound(&format!("around the excluded inbound port {range}"), range, &["-b", "*", "-d", range]),
            inbound(&format!("around the included inbound port {range}"), range, &["-b", range]),
        ]
    });
    prefixes.chain(ports).chain([tunnel("-e", "9008"), tunnel("-p", "9001"), tunnel("-z", "9006")]).collect()
}

fn addresses(name: &str, prefix: &str, capture: &[&str]) -> Scenario {
    let around = prefix.parse().map(|net| around(&net)).unwrap_or_default();
    let connections = around.into_iter().map(|address| tcp_to(address, 80)).collect();
    boundary(name, capture, connections)
}

fn outbound(name: &str, range: &str, capture: &[&str]) -> Scenario {
    let connections = ports_around(range).flat_map(|port| {
        let datagram = Connection { deed: Deed::Datagram, ..tcp(APP, Host::Service(1), port) };
        [tcp(APP, Host::Service(1), port), datagram]
    });
    boundary(name, capture, connections.collect())
}

fn inbound(name: &str, range: &str, capture: &[&str]) -> Scenario {
    let connections =
        ports_around(range).flat_map(|port| [REMOTE, PROXY].map(|client| tcp(client, Host::Pod, port)));
    boundary(name, capture, connections.collect())
}

/// The ports that Istio gives a meaning, when they are others than usual.
fn tunnel(flag: &str, port: &str) -> Scenario {
    let connections = ports_around(port).flat_map(|port| {
        [tcp(REMOTE, Host::Pod, port), tcp(PROXY, Host::Pod, port), tcp(APP, Host::Service(1), port)]
    });
    let capture = ["-i", "*", "-b", "*", "-u", "1337", flag, port];
    boundary(&format!("around {flag} {port}"), &capture, connections.collect())
}

fn boundary(name: &str, capture: &[&str], connections: Vec<Connection>) -> Scenario {
    let capture = [capture, &["-u", "1337", "--ipv6", "on"]].concat();
    Scenario {
        capture: capture.as_slice().into(),
        layout: Layout { peer_is_everywhere: true, ..Layout::default() },
        set: Set::Boundaries,
        ..many(name, connections)
    }
}

fn tcp_to(address: IpAddr, port: u16) -> Connection {
    let family = if address.is_ipv4() { Family::V4 } else { Family::V6 };
    to(APP, Endpoint { host: Some(Host::At(address)), family, port })
}

/// First and last of the range and the port before and after, as far as there are such ports.
fn ports_around(range: &str) -> impl Iterator<Item = u16> {
    let (first, last) = range.split_once(':').unwrap_or((range, range));
    let number = |text: &str| text.parse::<u16>().ok();
    let (first, last) = (number(first), number(last));
    let before = first.and_then(|port| port.checked_sub(1)).filter(|port| *port > 0);
    let after = last.and_then(|port| port.checked_add(1));
    let last = last.filter(|_| first != last);
    [before, first, last, after].into_iter().flatten()
}

/// First and last address of the prefix and the address before and after, as far as one can connect to them.
fn around(prefix: &IpNet) -> Vec<IpAddr> {
    let (first, last) = (prefix.network(), prefix.broadcast());
    let mut addresses: Vec<_> =
        [step(first, false), Some(first), Some(last), step(last, true)].into_iter().flatten().collect();
    addresses.push(Host::Service(1).address(if first.is_ipv4() { Family::V4 } else { Family::V6 }));
    addresses.retain(|address| is_connectable(*address));
    addresses.dedup();
    addresses
}

fn step(address: IpAddr, up: bool) -> Option<IpAddr> {
    match address {
        IpAddr::V4(v4) => {
            let bits = v4.to_bits();
            let bits = if up { bits.checked_add(1) } else { bits.checked_sub(1) };
            bits.map(|bits| IpAddr::V4(bits.into()))
        }
        IpAddr::V6(v6) => {
            let bits = v6.to_bits();
            let bits = if up { bits.checked_add(1) } else { bits.checked_sub(1) };
            bits.map(|bits| IpAddr::V6(bits.into()))
        }
    }
}

/// Whether a connection to the address can be made where the peer is everywhere.
pub(super) fn is_connectable(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.octets()[0] != 0 && v4.octets()[0] < 224,
        // The kernel gives what is not global unicast a meaning of its own.
        IpAddr::V6(v6) => {
            let top = v6.segments()[0];
            top != 0 && !v6.is_unicast_link_local() && top & 0xffc0 != 0xfec0 && !v6.is_multicast()
        }
    }
}
