//! Connections that are open while captures change and proxies come and go, and those made afterwards.

use super::{INJECTED, families::translate, many, tcp};
use crate::parity::{
    plan::{Family, Host},
    scenario::{APP, Connection, Deed, Event, Expected, PROXY, REMOTE, Scenario, Set, Sidecar},
};

/// The proxy as ever, and nothing to intercept.
const NOTHING: [&str; 6] = ["-u", "1337", "-i", "", "-b", ""];
/// All but one service.
const ALL_BUT_ONE: [&str; 8] = ["-u", "1337", "-i", "*", "-b", "*", "-x", "10.88.0.1/32,fd88::1/128"];

pub(super) fn scenarios() -> Vec<Scenario> {
    let out = || tcp(APP, Host::Service(1), 80);
    let other = || tcp(APP, Host::Service(2), 80);
    let inward = || tcp(REMOTE, Host::Pod, 8080);
    let own = || tcp(PROXY, Host::Pod, 8080);
    let all = [
        ("captured, then not: outbound", &INJECTED[..], vec![out(), after(&NOTHING, again(0, out())), out()]),
        (
            "captured, then not: inbound",
            &INJECTED,
            vec![inward(), after(&NOTHING, again(0, inward())), inward()],
        ),
        (
            "not captured, then captured: outbound",
            &NOTHING,
            vec![out(), after(&INJECTED, again(0, out())), out()],
        ),
        (
            "not captured, then captured: inbound",
            &NOTHING,
            vec![inward(), after(&INJECTED, again(0, inward())), inward()],
        ),
        (
            "captured, then not: the proxy to its own pod",
            &INJECTED,
            vec![own(), after(&NOTHING, again(0, own())), own()],
        ),
        (
            "one service excluded while connected to it",
            &INJECTED,
            vec![out(), other(), after(&ALL_BUT_ONE, again(0, out())), again(1, other()), out(), other()],
        ),
        (
            "one service included while connected to it",
            &ALL_BUT_ONE,
            vec![out(), other(), after(&INJECTED, again(0, out())), again(1, other()), out(), other()],
        ),
        (
            "changed to and fro",
            &INJECTED,
            vec![out(), after(&NOTHING, again(0, out())), after(&INJECTED, again(0, out())), out()],
        ),
        ("the proxy dies and returns: outbound", &INJECTED, vec![out(), dead(out()), back(out())]),
        ("the proxy dies and returns: inbound", &INJECTED, vec![inward(), dead(inward()), back(inward())]),
    ];
    let every = all.into_iter().flat_map(|(name, capture, connections)| {
        let in_family = |title, family, ipv6: &str| {
            let flags = |capture: &[&str]| [capture, &["--ipv6", ipv6]].concat().as_slice().into();
            let mut connections = connections.clone();
            for connection in &mut connections {
                if let Some(Event::Capture(line)) = &mut connection.first {
                    line.flags.extend(["--ipv6", ipv6].map(str::to_owned));
                }
            }
            let scenario = translate(&many(name, connections), "", family, flags(capture))?;
            Some(Scenario { name: format!("{title}{name}"), set: Set::Changes, ..scenario })
        };
        [in_family("", Family::V4, "off"), in_family("IPv6: ", Family::V6, "on")]
    });
    let others = [
        Scenario {
            sidecar: Sidecar::Dead,
            ..many("the proxy starts late", vec![out(), inward(), back(out()), inward()])
        },
        Scenario {
            expected: vec![outlives(3, "service hello again"), outlives(4, "app hello again")],
            ..many(
                "interception ends",
                vec![
                    out(),
                    inward(),
                    own(),
                    first(Event::Release, again(0, out())),
                    again(1, inward()),
                    out(),
                    inward(),
                ],
            )
        },
    ];
    every.flatten().chain(others.map(|scenario| Scenario { set: Set::Changes, ..scenario })).collect()
}

/// What an open connection gets after the end of its interception.
fn outlives(connection: usize, ebpf: &'static str) -> Expected {
    let reason = "with the last rule that needs it, connection tracking ends, and with it the translation of \
                  connections that are open; those that eBPF redirected need nothing more of it";
    Expected { connection, fact: "app.answer", nat: "ECONNRESET", ebpf, reason }
}

/// The connection of that index, asked once more.
fn again(index: u32, connection: Connection) -> Connection {
    Connection { deed: Deed::Again(index), ..connection }
}

fn after(capture: &[&str], connection: Connection) -> Connection {
    first(Event::Capture(capture.into()), connection)
}

fn dead(connection: Connection) -> Connection {
    first(Event::ProxiesEnd, connection)
}

fn back(connection: Connection) -> Connection {
    first(Event::ProxiesStart, connection)
}

fn first(event: Event, mut connection: Connection) -> Connection {
    connection.first = Some(event);
    connection
}
