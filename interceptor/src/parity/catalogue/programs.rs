//! Programs as the application: of others, with the sockets that their languages make, and our own validation.

use super::{families::translate, injected_with, many, tcp};
use crate::parity::{
    plan::{Family, Host},
    program::Program,
    scenario::{APP, Client, Connection, Deed, PROXY, REMOTE, ROOT, Scenario, Set, Sidecar},
};

pub(super) fn scenarios() -> Vec<Scenario> {
    let families = [
        ("IPv4", Family::V4, injected_with(&[])),
        ("IPv6", Family::V6, injected_with(&["--dual-stack"])),
        ("IPv4 on IPv6 sockets", Family::Mapped, injected_with(&[])),
    ];
    let scenarios = families.into_iter().flat_map(|(title, family, capture)| {
        Program::ALL.map(|program| {
            let scenario = many(&format!("{program} over {title}"), connections(program));
            let name = scenario.name.clone();
            let translated = translate(&scenario, "", family, capture.clone());
            translated.map(|scenario| Scenario { name, set: Set::Programs, ..scenario })
        })
    });
    scenarios.flatten().chain(validations()).collect()
}

/// Istio's own probe: whether a connection to an address that nobody has comes back to the proxy's port.
fn validations() -> impl Iterator<Item = Scenario> {
    let probe = |client| Connection { deed: Deed::Validate, ..tcp(client, Host::Nowhere, 15002) };
    let captures = [
        ("validation", injected_with(&[])),
        ("validation over both families", injected_with(&["--dual-stack"])),
        ("validation with other ports", injected_with(&["-p", "16001", "-z", "16006"])),
        ("validation where outbound is not captured", injected_with(&["-i", ""])),
    ];
    captures.into_iter().map(move |(name, capture)| Scenario {
        capture,
        sidecar: Sidecar::Dead,
        set: Set::Programs,
        ..many(name, vec![probe(PROXY), probe(ROOT)])
    })
}

fn connections(program: Program) -> Vec<Connection> {
    // Java reads its program from a pipe that belongs to root.
    let user = |client: Client| match program {
        Program::Java => Client { owner: ROOT.owner, ..client },
        Program::Curl | Program::Python | Program::Node => client,
    };
    let mut connections = vec![
        tcp(user(APP), Host::Service(1), 80),
        tcp(user(APP), Host::Service(1), 9999),
        tcp(user(APP), Host::Pod, 8080),
        tcp(user(REMOTE), Host::Pod, 8080),
    ];
    if program != Program::Java {
        connections.push(tcp(PROXY, Host::Pod, 8080));
    }
    for connection in &mut connections {
        connection.deed = Deed::Fetch(program);
    }
    connections
}
