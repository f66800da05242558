//! DNS queries: to any server, to listed ones, by everybody who may ask, over TCP and over both kinds of UDP socket.

use super::{bound, families::translate, injected::COLLISION, injected_with, many, tcp, udp};
use crate::parity::{
    plan::{Family, Host},
    scenario::{APP, Client, Connection, Deed, Endpoint, Expected, PROXY, PROXY_GROUP, ROOT, Scenario, Set},
};

const ALL: [&str; 2] = ["--redirect-dns", "--capture-all-dns"];
const LISTED: [&str; 3] = ["--redirect-dns", "--dns-servers", "10.88.0.1,fd88::1"];
/// A source port that two sockets use one after the other.
const SOURCE_PORT: u16 = 40_053;

const STANDS_FOR: &str = "queries of one socket to two servers become one tuple when both are redirected; nat then \
                          changes the source port of the second, while eBPF gives it a source address that stands \
                          for the server";

pub(super) fn scenarios() -> Vec<Scenario> {
    let families = [
        ("", Family::V4, &[][..]),
        ("over IPv6, ", Family::V6, &["--ipv6", "on"]),
        ("on IPv6 sockets, ", Family::Mapped, &[]),
    ];
    let every = families.into_iter().flat_map(|(title, family, more)| {
        let with = |name: &str, flags: &[&str], connections: Vec<Connection>| {
            let scenario = many(name, connections);
            translate(&scenario, "DNS", family, injected_with(&[flags, more].concat()))
                .map(|scenario| Scenario { name: format!("DNS: {title}{name}"), set: Set::Dns, ..scenario })
        };
        let differing = |scenario: Option<Scenario>, expected: Vec<Expected>| {
            scenario.map(|scenario| Scenario { expected, ..scenario })
        };
        [
            with("every server, asked by the app", &ALL, asks(APP)),
            with("every server, asked by root", &ALL, asks(ROOT)),
            with("every server, asked by the proxy", &ALL, asks(PROXY)),
            with("every server, asked by the proxy's group", &ALL, asks(PROXY_GROUP)),
            with("listed servers, asked by the app", &LISTED, asks(APP)),
            with("listed servers, asked by the proxy", &LISTED, asks(PROXY)),
            with("no server, asked by the app", &["--redirect-dns", "--dns-servers", ""], asks(APP)),
            with("a server of the workload's own", &ALL, own(1)),
            with("port 53 excluded", &[&ALL[..], &["-o", "53"]].concat(), asks(APP)),
            with(
                "the server's address excluded",
                &[&ALL[..], &["-x", "10.88.0.0/16,fd88::/16"]].concat(),
                asks(APP),
            ),
            differing(
                with("two servers asked from one socket", &ALL, vec![two()]),
                vec![asker(0, "server.from'", "spread:src", STANDS_FOR)],
            ),
            with("a listed and an unlisted server asked from one socket", &LISTED, vec![two()]),
            with("another port than 53", &ALL, vec![udp(APP, Host::Service(1), 5300)]),
            differing(
                with("from a bound socket", &ALL, from_bound()),
                [2, 3].map(|index| asker(index, "server.from", "pod:src", COLLISION)).to_vec(),
            ),
        ]
    });
    let stub = [
        Scenario { capture: injected_with(&ALL), ..many("DNS: a stub on 127.0.0.53", own(53)) },
        Scenario { capture: injected_with(&LISTED), ..many("DNS: a stub that is not listed", own(53)) },
        Scenario { capture: injected_with(&[]), ..many("DNS: a stub, DNS not captured", own(53)) },
    ];
    every.flatten().chain(stub.map(|scenario| Scenario { set: Set::Dns, ..scenario })).collect()
}

/// Two servers, each in every way.
fn asks(client: Client) -> Vec<Connection> {
    [1, 2].map(|server| every_way(client, Host::Service(server))).concat()
}

fn own(loopback: u8) -> Vec<Connection> {
    [every_way(APP, Host::Loopback(loopback)), every_way(PROXY, Host::Loopback(loopback))].concat()
}

fn every_way(client: Client, server: Host) -> Vec<Connection> {
    let query = udp(client, server, 53);
    vec![tcp(client, server, 53), Connection { deed: Deed::ConnectedDatagram, ..query.clone() }, query]
}

/// Both servers, asked at the same time.
fn two() -> Connection {
    let other = Endpoint { host: Some(Host::Service(2)), family: Family::V4, port: 53 };
    Connection { deed: Deed::Datagrams(other), ..udp(APP, Host::Service(1), 53) }
}

/// Where the proxy sees a query come from: nat makes up another source port.
fn asker(connection: usize, fact: &'static str, ebpf: &'static str, reason: &'static str) -> Expected {
    Expected { connection, fact, nat: "pod:other", ebpf, reason }
}

/// A query that reuses the addresses and ports of an earlier one must not inherit what became of that.
fn from_bound() -> Vec<Connection> {
    let query =
        |deed, server| Connection { deed, ..bound(APP, Host::Pod, SOURCE_PORT, Host::Service(server), 53) };
    vec![
        query(Deed::Datagram, 1),
        query(Deed::ConnectedDatagram, 1),
        query(Deed::Datagram, 2),
        query(Deed::ConnectedDatagram, 2),
        query(Deed::Ask, 1),
    ]
}
