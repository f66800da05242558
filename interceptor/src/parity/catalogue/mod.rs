//! The scenarios: every kind of connection on which Istio's rules decide something.

mod captures;
mod families;
mod injected;

use super::{
    plan::{Family, Host, Place},
    scenario::{Client, Connection, Endpoint, Protocol, Scenario, Set},
    world::Layout,
};

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
pub const APP_PORTS: [u16; 7] = [22, 8080, 8081, 15008, 15020, 15021, 15090];
/// TCP ports the peer serves on every address.
pub const SERVICE_PORTS: [u16; 4] = [80, 81, 15008, 15020];
/// UDP ports the peer serves on every address.
pub const DATAGRAM_PORTS: [u16; 2] = [53, 5300];

/// All scenarios, none twice.
#[must_use]
pub fn all() -> Vec<Scenario> {
    [injected::scenarios(), families::scenarios(&injected::scenarios()), captures::scenarios()].concat()
}

fn one(name: &str, connection: Connection) -> Scenario {
    many(name, vec![connection])
}

fn many(name: &str, connections: Vec<Connection>) -> Scenario {
    Scenario {
        name: name.to_owned(),
        capture: INJECTED.to_vec(),
        layout: Layout::default(),
        proxy_runs: true,
        connections,
        expected: Vec::new(),
        set: Set::Injected,
    }
}

fn tcp(client: Client, host: Host, port: u16) -> Connection {
    let to = Endpoint { host: Some(host), family: Family::V4, port };
    Connection { client, protocol: Protocol::Tcp, bind: None, to }
}

fn udp(client: Client, host: Host, port: u16) -> Connection {
    Connection { protocol: Protocol::Udp, ..tcp(client, host, port) }
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
