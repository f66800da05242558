//! The injected pod's scenarios once more, in other kinds of address.

use super::{injected_with, one, tcp};
use crate::{
    capture::CommandLine,
    parity::{
        plan::{Family, Host},
        scenario::{APP, Deed, Endpoint, PROXY, REMOTE, Scenario, Set},
    },
};

/// The injector's flags with IPv6 intercepted as well.
const DUAL_STACK: &str = "--dual-stack";

pub(super) fn scenarios(of: &[Scenario]) -> Vec<Scenario> {
    let v6 = of
        .iter()
        .filter_map(|scenario| translate(scenario, "IPv6", Family::V6, injected_with(&[DUAL_STACK])));
    let mapped = of.iter().filter_map(|scenario| {
        translate(scenario, "IPv4 on IPv6 sockets", Family::Mapped, injected_with(&[]))
    });
    let untouched = [
        one("app to a remote service", tcp(APP, Host::Service(1), 80)),
        one("proxy to its own pod by address", tcp(PROXY, Host::Pod, 8080)),
        one("client to the app", tcp(REMOTE, Host::Pod, 8080)),
    ];
    let untouched = untouched
        .iter()
        .filter_map(|scenario| translate(scenario, "IPv6 not captured", Family::V6, injected_with(&[])))
        .collect::<Vec<_>>();
    v6.chain(mapped).chain(untouched).collect()
}

/// The scenario with every address in another family; none if one of them is not in that family.
pub(super) fn translate(
    of: &Scenario,
    title: &str,
    family: Family,
    capture: CommandLine,
) -> Option<Scenario> {
    let mut scenario =
        Scenario { name: format!("{title}: {}", of.name), capture, set: Set::Families, ..of.clone() };
    for connection in &mut scenario.connections {
        let other = |endpoint: Endpoint| {
            let exists = endpoint.host.is_none_or(|host| exists(host, family));
            exists.then_some(Endpoint { family, ..endpoint })
        };
        connection.to = other(connection.to)?;
        connection.bind = match connection.bind {
            Some(bind) => Some(other(bind)?),
            None => None,
        };
        if let Deed::Datagrams(second) = connection.deed {
            connection.deed = Deed::Datagrams(other(second)?);
        }
    }
    Some(scenario)
}

/// IPv6 has one loopback address, and the one Istio adds for its proxy.
fn exists(host: Host, family: Family) -> bool {
    family != Family::V6 || !matches!(host, Host::Loopback(n) if n != 1 && n != 6)
}
