//! The scenarios: every kind of connection on which Istio's rules decide something.

use super::{
    plan::{Family, Host, Place},
    scenario::{
        APP, Client, Connection, Endpoint, Expected, PROXY, PROXY_GROUP, Protocol, REMOTE, ROOT, SECOND_APP,
        Scenario,
    },
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
pub const SERVICE_PORTS: [u16; 3] = [80, 15008, 15020];
/// UDP ports the peer serves on every address.
pub const DATAGRAM_PORTS: [u16; 2] = [53, 5300];

/// A source port that two connections share. Worlds are fresh, so nothing else can have it.
const SHARED_PORT: u16 = 40_001;

const COLLISION: &str = "two connections become one tuple when both are redirected to one port; nat then changes \
                         the source port of the second, while eBPF keeps the tuples apart";

/// All scenarios, none twice.
#[must_use]
pub fn all() -> Vec<Scenario> {
    [outbound(), loopback(), proxys_own(), inbound(), unavailable(), shared_ports()].concat()
}

fn outbound() -> Vec<Scenario> {
    vec![
        one("app to a remote service", tcp(APP, Host::Service(1), 80)),
        one("app to a remote host's own address", tcp(APP, Host::Peer, 80)),
        one("root's app to a remote service", tcp(ROOT, Host::Service(1), 80)),
        one("app to the tunnel port of a remote host", tcp(APP, Host::Service(1), 15008)),
        one("app to an inbound-excluded port of a remote host", tcp(APP, Host::Service(1), 15020)),
        one("app to a remote port where nobody listens", tcp(APP, Host::Service(1), 81)),
        one(
            "app bound to the pod's address to a remote service",
            bound(APP, Host::Pod, 0, Host::Service(1), 80),
        ),
        one("app sends a datagram", udp(APP, Host::Service(1), 5300)),
        one("app asks a DNS server, DNS capture off", udp(APP, Host::Service(1), 53)),
        one("proxy sends a datagram", udp(PROXY, Host::Service(1), 5300)),
    ]
}

fn loopback() -> Vec<Scenario> {
    vec![
        one("app to its own pod by address", tcp(APP, Host::Pod, 8080)),
        one("app to its own pod by 127.0.0.1", tcp(APP, Host::Loopback(1), 8080)),
        one("app to its own pod by 127.0.0.2", tcp(APP, Host::Loopback(2), 8080)),
        one("app to its own tunnel port", tcp(APP, Host::Pod, 15008)),
        one("app bound to 127.0.0.6 to its own pod", bound(APP, Host::Loopback(6), 0, Host::Pod, 8080)),
        one("root's app to its own pod by address", tcp(ROOT, Host::Pod, 8080)),
    ]
}

fn proxys_own() -> Vec<Scenario> {
    vec![
        one("proxy to a remote service", tcp(PROXY, Host::Service(1), 80)),
        one("proxy to its own pod by address", tcp(PROXY, Host::Pod, 8080)),
        one("proxy to the app from 127.0.0.6", bound(PROXY, Host::Loopback(6), 0, Host::Pod, 8080)),
        one("proxy to 127.0.0.1", tcp(PROXY, Host::Loopback(1), 8080)),
        one("proxy to 127.0.0.2", tcp(PROXY, Host::Loopback(2), 8080)),
        one("proxy to a local DNS stub, DNS capture off", tcp(PROXY, Host::Loopback(53), 53)),
        one("proxy to its own tunnel port", tcp(PROXY, Host::Pod, 15008)),
        one("Istio's validation probe", bound(PROXY, Host::Loopback(1), 0, Host::Loopback(6), 15002)),
        one("proxy's group, other user, to a remote service", tcp(PROXY_GROUP, Host::Service(1), 80)),
        one("proxy's group, other user, to its own pod", tcp(PROXY_GROUP, Host::Pod, 8080)),
    ]
}

fn inbound() -> Vec<Scenario> {
    let captured = [
        ("client to the app", 8080),
        ("client to port 22", 22),
        ("client to a port where nobody listens", 9999),
        ("client to the outbound port", 15001),
        ("client to the inbound port", 15006),
    ];
    let left_alone = [
        ("client to the tunnel port", 15008),
        ("client to the status port", 15020),
        ("client to the health port", 15021),
        ("client to the metrics port", 15090),
    ];
    captured
        .into_iter()
        .chain(left_alone)
        .map(|(name, port)| one(name, tcp(REMOTE, Host::Pod, port)))
        .collect()
}

fn unavailable() -> Vec<Scenario> {
    let dead = |name: &str, connection| Scenario { proxy_runs: false, ..one(name, connection) };
    vec![
        dead("app to a remote service, proxy dead", tcp(APP, Host::Service(1), 80)),
        dead("client to the app, proxy dead", tcp(REMOTE, Host::Pod, 8080)),
        dead("client to the health port, proxy dead", tcp(REMOTE, Host::Pod, 15021)),
        Scenario {
            layout: Layout { default_route: false, ..Layout::default() },
            ..one("app to where no route leads", tcp(APP, Host::Nowhere, 80))
        },
    ]
}

fn shared_ports() -> Vec<Scenario> {
    let from_pod = |service| bound(APP, Host::Pod, SHARED_PORT, Host::Service(service), 80);
    let from_any = |service| Connection {
        bind: Some(Endpoint { host: None, family: Family::V4, port: SHARED_PORT }),
        ..tcp(APP, Host::Service(service), 80)
    };
    let to_port = |port| bound(REMOTE, Host::Peer, SHARED_PORT, Host::Pod, port);
    let second_pod =
        Connection { client: SECOND_APP, ..bound(APP, Host::SecondPod, SHARED_PORT, Host::Service(2), 80) };
    vec![
        Scenario {
            expected: collision("pod:other", "pod:src"),
            ..many("one source port of the app, two services", vec![from_pod(1), from_pod(2)])
        },
        Scenario {
            expected: collision("pod:other", "pod:src"),
            ..many("one source port on any address, two services", vec![from_any(1), from_any(2)])
        },
        Scenario {
            expected: collision("peer:other", "peer:src"),
            ..many("one source port of a client, two ports of the pod", vec![to_port(8080), to_port(8081)])
        },
        Scenario {
            layout: Layout { second_pod: true, ..Layout::default() },
            ..many("two pods, one source port, two services", vec![from_pod(1), second_pod])
        },
    ]
}

/// Where the proxy sees the second connection come from, as `accept()` and `getpeername()` tell it.
fn collision(nat: &'static str, ebpf: &'static str) -> Vec<Expected> {
    ["proxy.from", "proxy.peer"]
        .map(|fact| Expected { connection: 1, fact, nat, ebpf, reason: COLLISION })
        .to_vec()
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
