//! What travels over connections that are redirected and over those that are not, and how they end.

use super::{bound, families::translate, injected_with, many, one, tcp};
use crate::parity::{
    actor::protocol::Conversation,
    plan::{Family, Host},
    scenario::{APP, Connection, Deed, PROXY, REMOTE, Scenario, Set, Sidecar},
};

/// Bytes of an everyday transfer.
const SOME: u64 = 4 << 20;
/// Bytes of a large one.
const MANY: u64 = 1 << 30;
const SHORTS: u32 = 1000;

pub(super) fn scenarios() -> Vec<Scenario> {
    [conversations(), shorts(), bulk(), mute()].concat()
}

/// Who connects to where, in words: redirected both ways, and not.
fn ways() -> [(&'static str, Connection); 4] {
    [
        ("app to a service", tcp(APP, Host::Service(1), 80)),
        ("client to the app", tcp(REMOTE, Host::Pod, 8080)),
        ("client to the status port", tcp(REMOTE, Host::Pod, 15020)),
        ("proxy to a service", tcp(PROXY, Host::Service(1), 80)),
    ]
}

fn conversations() -> Vec<Scenario> {
    let all = [
        ("upload", Conversation::Upload(SOME)),
        ("download", Conversation::Download(SOME)),
        ("half-close", Conversation::HalfClose),
        ("reset by the client", Conversation::Reset),
        ("closed by the server", Conversation::ServerCloses),
        ("reset by the server", Conversation::ServerResets),
        ("urgent data", Conversation::Urgent),
    ];
    let scenarios = all.into_iter().flat_map(|(what, how)| {
        ways().map(|(way, connection)| stream(&format!("{what}: {way}"), Deed::Converse(how), connection))
    });
    let scenarios: Vec<_> = scenarios.collect();
    let v6 = scenarios.iter().filter_map(|scenario| {
        let v6 = translate(scenario, "IPv6", Family::V6, injected_with(&["--dual-stack"]))?;
        Some(Scenario { set: Set::Streams, ..v6 })
    });
    v6.chain(scenarios.iter().cloned()).collect()
}

fn shorts() -> Vec<Scenario> {
    ways()
        .map(|(way, connection)| stream(&format!("{SHORTS} times: {way}"), Deed::Shorts(SHORTS), connection))
        .to_vec()
}

fn bulk() -> Vec<Scenario> {
    let all = [("upload", Conversation::Upload(MANY)), ("download", Conversation::Download(MANY))];
    let scenarios = all.into_iter().flat_map(|(what, how)| {
        ways()
            .map(|(way, connection)| stream(&format!("large {what}: {way}"), Deed::Converse(how), connection))
    });
    scenarios.map(|scenario| Scenario { set: Set::Bulk, ..scenario }).collect()
}

/// A proxy that is there and does nothing: its kernel accepts until its queue is full.
fn mute() -> Vec<Scenario> {
    ways()
        .map(|(way, connection)| {
            // Only where nobody accepts is it certain what is seen of a connection that says nothing.
            let deed = if connection.client == PROXY || connection.to.port == 15020 {
                Deed::Ask
            } else {
                Deed::Open
            };
            let connection = Connection { deed, ..connection };
            let connections = vec![connection.clone(), connection];
            let scenario = many(&format!("a proxy that never accepts: {way}"), connections);
            Scenario { sidecar: Sidecar::Mute, set: Set::Streams, ..scenario }
        })
        .into_iter()
        .chain([Scenario {
            sidecar: Sidecar::Mute,
            set: Set::Streams,
            ..one("a proxy that never answers", bound(APP, Host::Pod, 0, Host::Service(1), 80))
        }])
        .collect()
}

fn stream(name: &str, deed: Deed, connection: Connection) -> Scenario {
    Scenario { set: Set::Streams, ..one(name, Connection { deed, ..connection }) }
}
