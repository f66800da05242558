//! TPROXY mode: the proxy takes arriving connections under their own addresses, and hands them on in their clients' names.

use super::{families::translate, many, tcp, udp};
use crate::parity::{
    actor::Owner,
    plan::{Family, Host, Place},
    scenario::{APP, Client, Connection, Expected, PROXY_GROUP, REMOTE, ROOT, Scenario, Set, Sidecar},
};

const TPROXY: [&str; 12] =
    ["-m", "TPROXY", "-i", "*", "-b", "*", "-d", "15090,15021,15020", "-u", "1337", "-g", "1337"];
/// In this mode the proxy is root, and known by its group.
const PROXY: Client = Client { place: Place::Pod, owner: Owner { uid: 0, gid: 1337 } };

const DROPPED: &str =
    "without a listener, TPROXY drops the packets until the client gives up, while eBPF refuses";

pub(super) fn scenarios() -> Vec<Scenario> {
    let inbound = [22, 8080, 9999, 15001, 15006, 15008, 15020, 15021, 15090];
    let inbound = inbound.map(|port| (format!("client to port {port}"), vec![tcp(REMOTE, Host::Pod, port)]));
    let groups = [
        (
            "outbound",
            [APP, ROOT, PROXY, PROXY_GROUP].map(|client| tcp(client, Host::Service(1), 80)).to_vec(),
        ),
        (
            "to the own address",
            [APP, ROOT, PROXY, PROXY_GROUP].map(|client| tcp(client, Host::Pod, 8080)).to_vec(),
        ),
        ("to loopback", [APP, PROXY].map(|client| tcp(client, Host::Loopback(1), 8080)).to_vec()),
        ("to the own tunnel port", [APP, PROXY].map(|client| tcp(client, Host::Pod, 15008)).to_vec()),
        ("to the own status port", [APP, PROXY].map(|client| tcp(client, Host::Pod, 15020)).to_vec()),
        ("datagrams", vec![udp(APP, Host::Service(1), 5300), udp(PROXY, Host::Service(1), 5300)]),
    ]
    .map(|(name, connections)| (name.to_owned(), connections));
    let every =
        inbound.into_iter().chain(groups).flat_map(|(name, connections)| in_families(&name, &connections));
    let others = [
        with(
            "other loopback addresses",
            &TPROXY,
            [APP, PROXY].map(|client| tcp(client, Host::Loopback(2), 8080)).to_vec(),
        ),
        with(
            "a list of ports",
            &["-m", "TPROXY", "-b", "8080,15008", "-u", "1337"],
            [8080, 8081, 15008].map(|port| tcp(REMOTE, Host::Pod, port)).to_vec(),
        ),
        with(
            "another mark and table",
            &[&TPROXY[..], &["-t", "4711", "-r", "47"]].concat(),
            vec![tcp(REMOTE, Host::Pod, 8080)],
        ),
        with(
            "nothing inbound",
            &["-m", "TPROXY", "-i", "*", "-u", "1337"],
            vec![tcp(REMOTE, Host::Pod, 8080), tcp(APP, Host::Service(1), 80)],
        ),
        Scenario {
            sidecar: Sidecar::Dead,
            expected: [
                ("app.connect", "ETIMEDOUT", "ECONNREFUSED"),
                ("app.failed", "at the deadline", "at once"),
                ("app.local", "peer:src", "0.0.0.0:src"),
            ]
            .map(|(fact, nat, ebpf)| Expected { connection: 0, fact, nat, ebpf, reason: DROPPED })
            .to_vec(),
            ..with("the proxy dead", &TPROXY, vec![tcp(REMOTE, Host::Pod, 8080)])
        },
    ];
    every.chain(others).collect()
}

fn in_families(name: &str, connections: &[Connection]) -> Vec<Scenario> {
    let v4 = with(name, &TPROXY, connections.to_vec());
    let flags = [&TPROXY[..], &["--ipv6", "on"]].concat();
    let v6 = translate(&many("", connections.to_vec()), "", Family::V6, flags.as_slice().into());
    let v6 = v6.map(|scenario| Scenario {
        name: format!("TPROXY over IPv6: {name}"),
        set: Set::Tproxy,
        ..scenario
    });
    [Some(v4), v6].into_iter().flatten().collect()
}

fn with(name: &str, flags: &[&str], connections: Vec<Connection>) -> Scenario {
    Scenario { capture: flags.into(), set: Set::Tproxy, ..many(&format!("TPROXY: {name}"), connections) }
}
