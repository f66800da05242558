//! What an injected pod gets, connection by connection: every line of Istio's default decision table.

use super::{bound, many, one, tcp, udp};
use crate::parity::{
    plan::{Family, Host},
    scenario::{
        APP, Connection, Endpoint, Expected, Lost, PROXY, PROXY_GROUP, REMOTE, ROOT, SECOND_APP, Scenario,
        Sidecar,
    },
    world::Layout,
};

/// A source port that two connections share. Worlds are fresh, so nothing else can have it.
const SHARED_PORT: u16 = 40_001;

pub(super) const COLLISION: &str = "two connections become one tuple when both are redirected to one port; nat then changes \
                         the source port of the second, while eBPF keeps the tuples apart";

const LOST: &str = "before Linux 6.7 nat loses such a connection: its SYN is given to the socket of the first, and \
                    nobody answers it";

pub(super) fn scenarios() -> Vec<Scenario> {
    [outbound(), loopback(), proxys_own(), inbound(), unavailable(), shared_ports()].concat()
}

fn outbound() -> Vec<Scenario> {
    vec![
        one("app to a remote service", tcp(APP, Host::Service(1), 80)),
        one("app to a remote host's own address", tcp(APP, Host::Peer, 80)),
        one("root's app to a remote service", tcp(ROOT, Host::Service(1), 80)),
        one("app to the tunnel port of a remote host", tcp(APP, Host::Service(1), 15008)),
        one("app to an inbound-excluded port of a remote host", tcp(APP, Host::Service(1), 15020)),
        one("app to a remote port where nobody listens", tcp(APP, Host::Service(1), 9999)),
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
        one("app to its own pod by loopback", tcp(APP, Host::Loopback(1), 8080)),
        one("app to its own pod by another loopback address", tcp(APP, Host::Loopback(2), 8080)),
        one("app to its own tunnel port", tcp(APP, Host::Pod, 15008)),
        one(
            "app from the proxy's inbound source to its own pod",
            bound(APP, Host::Loopback(6), 0, Host::Pod, 8080),
        ),
        one("root's app to its own pod by address", tcp(ROOT, Host::Pod, 8080)),
    ]
}

fn proxys_own() -> Vec<Scenario> {
    vec![
        one("proxy to a remote service", tcp(PROXY, Host::Service(1), 80)),
        one("proxy to its own pod by address", tcp(PROXY, Host::Pod, 8080)),
        one("proxy from its inbound source to the app", bound(PROXY, Host::Loopback(6), 0, Host::Pod, 8080)),
        one("proxy to loopback", tcp(PROXY, Host::Loopback(1), 8080)),
        one("proxy to another loopback address", tcp(PROXY, Host::Loopback(2), 8080)),
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
    let dead = |name: &str, connection| Scenario { sidecar: Sidecar::Dead, ..one(name, connection) };
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
            lost: Some(Lost {
                connection: 1,
                errno: "ETIMEDOUT",
                answer: "app hello",
                original: "pod:8081",
                reason: LOST,
            }),
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
