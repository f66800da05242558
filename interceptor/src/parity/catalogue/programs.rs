//! Programs of others as the application, with the sockets that their languages make.

use super::{families::translate, injected_with, many, tcp};
use crate::parity::{
    plan::{Family, Host},
    program::Program,
    scenario::{APP, Client, Connection, Deed, PROXY, REMOTE, ROOT, Scenario, Set},
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
    scenarios.flatten().collect()
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
