//! TPROXY mode: the proxy takes connections under their own addresses, and hands them on in their clients' names.

use std::net::{IpAddr, SocketAddr};

use anyhow::ensure;
use interceptor::parity::{
    actor::{
        Actor, Owner,
        protocol::{Outcome, Seen, Sighting},
    },
    backend::Backend,
    plan::{Family, Host, Place},
    scenario::APP,
    world::{Layout, World},
};
use interceptor_tests::interceptor;

const CAPTURE: [&str; 12] =
    ["-m", "TPROXY", "-b", "*", "-i", "*", "-u", "1337", "-g", "1337", "--ipv6", "on"];
const PORT: u16 = 8080;
const MARK: u32 = 1337;
/// Istio runs the proxy so in this mode: it needs `CAP_NET_ADMIN`, and is known by its group.
const PROXY: Owner = Owner { uid: 0, gid: 1337 };

/// What everybody sees of one connection, without its source ports.
#[derive(Debug, PartialEq)]
struct View {
    connected: Outcome<()>,
    client_peer: Outcome<SocketAddr>,
    proxy: Vec<(IpAddr, Outcome<SocketAddr>, Option<SocketAddr>)>,
    application: Vec<(IpAddr, Outcome<SocketAddr>)>,
    answer: String,
}

#[test]
fn every_end_sees_what_it_sees_under_iptables() -> anyhow::Result<()> {
    let under_iptables = observe(Backend::Iptables)?;
    let under_ebpf = observe(Backend::Ebpf)?;
    for (under_iptables, under_ebpf) in under_iptables.iter().zip(&under_ebpf) {
        assert_eq!(under_iptables, under_ebpf);
    }
    for family in [0, 3] {
        let from_outside = &under_ebpf[family];
        assert_eq!(from_outside.proxy.len(), 1, "once, and not again on its way on: {from_outside:?}");
        assert_eq!(from_outside.proxy[0].0, from_outside.application[0].0, "the client's own address");
        assert!(under_ebpf[family + 2].proxy.is_empty(), "the application calling itself is left alone");
    }
    Ok(())
}

/// From outside, from the proxy itself, and from the application; in both families.
fn observe(backend: Backend) -> anyhow::Result<Vec<View>> {
    let world = World::build(Layout::default())?;
    backend.apply(&world, &interceptor(), Place::Pod, &CAPTURE)?;
    let mut proxy = Actor::start(&world, &interceptor(), Place::Pod, PROXY)?;
    let any = |port| [Family::V4, Family::V6].map(|family| SocketAddr::new(family.unspecified(), port));
    proxy.transparent_proxy(&any(15001), &any(15006), MARK)?;
    let mut application = Actor::start(&world, &interceptor(), Place::Pod, APP.owner)?;
    application.serve("application", &any(PORT), &[])?;
    let mut all = Vec::new();
    for family in [Family::V4, Family::V6] {
        for (place, owner) in [(Place::Peer, APP.owner), (Place::Pod, PROXY), (Place::Pod, APP.owner)] {
            let mut client = Actor::start(&world, &interceptor(), place, owner)?;
            let to = SocketAddr::new(Host::Pod.address(family), PORT);
            let connected = client.connect(0, to, None)?;
            ensure!(connected.outcome.is_ok(), "{backend}: {connected:?}");
            let answer = format!("{:?}", client.ask(0, "hello")?);
            let took = |sighting: &Sighting| {
                let seen = sighting.seen.as_ref();
                (sighting.from.ip(), seen.map_or(Err(0), |seen| seen.local))
            };
            all.push(View {
                connected: connected.outcome,
                client_peer: connected.seen.peer,
                proxy: proxy
                    .sightings()?
                    .iter()
                    .map(|sighting| {
                        let original = sighting.seen.as_ref().and_then(Seen::original);
                        (took(sighting).0, took(sighting).1, original)
                    })
                    .collect(),
                application: application.sightings()?.iter().map(took).collect(),
                answer,
            });
        }
    }
    world.close()?;
    Ok(all)
}
