//! Many connections at once: every one keeps its original destination, and nothing is left waiting.

use std::{
    env,
    net::{Ipv4Addr, SocketAddr},
    thread,
};

use anyhow::Context as _;
use interceptor::parity::{
    actor::{
        Actor,
        protocol::{Churn, Churned, Tallied},
    },
    backend::Backend,
    catalogue::INJECTED,
    plan::Place,
    proxy,
    scenario::APP,
    world::{Layout, World},
};
use interceptor_tests::{Product, interceptor};

/// Clients that connect at the same time.
const CLIENTS: u8 = 8;
/// Different addresses that each client connects to, all within the peer's services' network.
const ADDRESSES: u16 = 250;

#[test]
fn every_connection_keeps_its_own_destination() -> anyhow::Result<()> {
    let connections = match env::var("INTERCEPTOR_STRESS_CONNECTIONS") {
        Ok(count) => count.parse().context("INTERCEPTOR_STRESS_CONNECTIONS is no number")?,
        Err(_) => 100_000,
    };
    let world = World::build(Layout::default())?;
    let product = Product::new(&world)?;
    product.apply(Place::Pod, &INJECTED)?;

    check(&world, connections)?;

    let pending = product.status()?;
    assert_eq!(pending["pending"], 0, "{pending:#}");
    world.close()
}

/// The same under iptables: what the test asks for is what nat gives.
#[test]
fn the_stress_itself_is_sound() -> anyhow::Result<()> {
    let world = World::build(Layout::default())?;
    Backend::IptablesNft.apply(&world, &interceptor(), Place::Pod, &INJECTED)?;
    check(&world, 4_000)?;
    world.close()
}

fn check(world: &World, connections: u32) -> anyhow::Result<()> {
    let command = interceptor();
    let mut proxy = Actor::start(world, &command, Place::Pod, proxy::OWNER)?;
    proxy.tally(SocketAddr::from((Ipv4Addr::UNSPECIFIED, proxy::OUTBOUND_PORT)))?;

    let mut clients = (0..CLIENTS)
        .map(|_| Actor::start(world, &command, Place::Pod, APP.owner))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let each = connections / u32::from(CLIENTS);
    let churned = thread::scope(|scope| -> anyhow::Result<Vec<Churned>> {
        let running: Vec<_> = clients
            .iter_mut()
            .zip(1..)
            .map(|(client, number)| {
                let first = SocketAddr::from((Ipv4Addr::new(10, 88, number, 1), 1));
                scope.spawn(move || client.churn(Churn { first, addresses: ADDRESSES, count: each }))
            })
            .collect();
        running.into_iter().map(|client| client.join().expect("a client's thread panicked")).collect()
    })?;

    for client in churned {
        assert_eq!(client, Churned { connected: each, failed: None });
    }
    let all = Tallied { right: each * u32::from(CLIENTS), ..Tallied::default() };
    assert_eq!(proxy.tallied()?, all);
    Ok(())
}
