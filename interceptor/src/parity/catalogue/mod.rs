//! The scenarios: every kind of connection on which Istio's rules decide something.

mod boundaries;
mod captures;
mod changes;
mod dns;
mod families;
mod given;
mod injected;
mod programs;
mod streams;
mod tproxy;

pub use self::given::{Given, scenarios_of};
pub(super) use self::given::{connections_of, scenario};
use super::{
    plan::{Family, Host, Place},
    scenario::{Client, Connection, Deed, Endpoint, Scenario, Set, Sidecar},
    world::Layout,
};
use crate::capture::CommandLine;

/// The flags Istio's injector gives the init container of an ordinary pod.
pub const INJECTED: [&str; 14] = [
    "-p",
    "15001",
    "-z",
    "15006",
    "-u",
    "1337",
    "-m",
    "REDIRECT",
    "-i",
    "*",
    "-b",
    "*",
    "-d",
    "15090,15021,15020",
];

/// TCP ports the workload serves itself, on every address: those Istio leaves alone and some it does not.
pub const APP_PORTS: [u16; 8] = [22, 53, 8080, 8081, 15008, 15020, 15021, 15090];
/// TCP ports the peer serves on every address.
pub const SERVICE_PORTS: [u16; 5] = [53, 80, 81, 15008, 15020];
/// UDP ports the workload serves on every address: a DNS server of its own.
pub const STUB_PORTS: [u16; 1] = [53];
/// UDP ports the peer serves on every address.
pub const DATAGRAM_PORTS: [u16; 2] = [53, 5300];

/// All scenarios, none twice.
#[must_use]
pub fn all() -> Vec<Scenario> {
    let injected = injected::scenarios();
    [
        families::scenarios(&injected),
        captures::scenarios(),
        boundaries::scenarios(),
        dns::scenarios(),
        tproxy::scenarios(),
        streams::scenarios(),
        changes::scenarios(),
        programs::scenarios(),
        injected,
    ]
    .concat()
}

fn one(name: &str, connection: Connection) -> Scenario {
    many(name, vec![connection])
}

fn many(name: &str, connections: Vec<Connection>) -> Scenario {
    Scenario {
        name: name.to_owned(),
        capture: CommandLine::from(&INJECTED),
        layout: Layout::default(),
        sidecar: Sidecar::Runs,
        connections,
        expected: Vec::new(),
        lost: None,
        refused: None,
        set: Set::Injected,
    }
}

/// The injector's flags, and more.
fn injected_with(more: &[&str]) -> CommandLine {
    CommandLine::from([INJECTED.as_slice(), more].concat().as_slice())
}

fn tcp(client: Client, host: Host, port: u16) -> Connection {
    to(client, Endpoint { host: Some(host), family: Family::V4, port })
}

fn to(client: Client, to: Endpoint) -> Connection {
    Connection { first: None, client, deed: Deed::Ask, bind: None, to }
}

fn udp(client: Client, host: Host, port: u16) -> Connection {
    Connection { deed: Deed::Datagram, ..tcp(client, host, port) }
}

fn bound(client: Client, source: Host, source_port: u16, host: Host, port: u16) -> Connection {
    let bind = Endpoint { host: Some(source), family: Family::V4, port: source_port };
    Connection { bind: Some(bind), ..tcp(client, host, port) }
}

/// The name a place's servers answer with.
#[must_use]
pub const fn server_name(place: Place) -> &'static str {
    match place {
        Place::Pod => "app",
        Place::SecondPod => "app2",
        Place::Peer => "service",
    }
}
