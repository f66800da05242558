//! A capture that changes again and again under connections: each sees the one capture or the other, and never a mixture.
//!
//! `INTERCEPTOR_CHURN_CONNECTIONS` makes the run longer.

use std::{
    net::{Ipv4Addr, SocketAddr},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use anyhow::{anyhow, ensure};
use interceptor::{
    agent::WorkloadSpec,
    parity::{
        actor::{
            Actor,
            protocol::{Churn, Churned, Tallied},
        },
        plan::Place,
        proxy,
        scenario::APP,
        world::{Layout, World},
    },
};
use interceptor_tests::{Product, agent::Home, count, interceptor, tell};

/// Both captures leave the same network alone, each by other entries, and redirect everything else, each to another port.
/// With one's entries and without the other's, a connection to that network would be redirected; with the entries of
/// both or none, one to elsewhere would find no port.
const CAPTURES: [&str; 2] = [
    r#"{"pid": 1, "capture": {"istio-service-cidr": "*", "envoy-port": "15001",
        "istio-service-exclude-cidr": "10.88.0.0/25,10.88.0.128/25"}}"#,
    r#"{"pid": 1, "capture": {"istio-service-cidr": "*", "envoy-port": "15101",
        "istio-service-exclude-cidr": "10.88.0.0/24"}}"#,
];
const PORTS: [u16; 2] = [15001, 15101];
const LEFT_ALONE: Ipv4Addr = Ipv4Addr::new(10, 88, 0, 1);
const REDIRECTED: Ipv4Addr = Ipv4Addr::new(10, 88, 9, 1);
/// Connections between two looks at the clock.
const BATCH: u16 = 250;
/// One less than the port connected to, as [`Churn`] counts.
const BEFORE_PORT: u16 = 8000;
const FEWEST_CHANGES: u32 = 40;

#[test]
fn no_connection_sees_half_a_change() -> anyhow::Result<()> {
    let wanted: u32 = count("INTERCEPTOR_CHURN_CONNECTIONS", 40_000)?;
    let world = World::build(Layout::default())?;
    let product = Product::new(&world)?;
    let home = Home::new()?;
    let _agent = home.start(&world, &product)?;
    let local = ["route", "add", "local", "10.88.0.0/16", "dev", "lo"];
    ensure!(world.run(Some(Place::Peer), Command::new("ip").args(local), "")?.status.success());
    let command = interceptor();
    let mut peer = Actor::start(&world, &command, Place::Peer, APP.owner)?;
    peer.tally((Ipv4Addr::UNSPECIFIED, BEFORE_PORT + 1).into())?;
    let mut proxy = Actor::start(&world, &command, Place::Pod, proxy::OWNER)?;
    for port in PORTS {
        proxy.tally((Ipv4Addr::UNSPECIFIED, port).into())?;
    }

    let (client, netns) = (home.client(&product)?, Some(world.namespace(Place::Pod)?.path()));
    let change = |to: usize| -> anyhow::Result<()> {
        let spec = WorkloadSpec::from_json(CAPTURES[to].as_bytes())?;
        client.enrol(&"pod".parse()?, &WorkloadSpec { netns: netns.clone(), pid: None, ..spec })?;
        Ok(())
    };
    change(0)?;
    let (connected, mut changes) = (AtomicU32::new(0), 0);
    let outcomes = thread::scope(|scope| -> anyhow::Result<Vec<u32>> {
        let connected = &connected;
        let start = |to: Ipv4Addr| -> anyhow::Result<_> {
            let mut app = Actor::start(&world, &command, Place::Pod, APP.owner)?;
            Ok(scope.spawn(move || connect_until(&mut app, to, connected, wanted)))
        };
        let running = [start(LEFT_ALONE)?, start(REDIRECTED)?, start(REDIRECTED)?];
        while running.iter().any(|client| !client.is_finished()) || changes < FEWEST_CHANGES {
            changes += 1;
            change(changes as usize % 2)?;
        }
        let outcomes =
            running.map(|client| client.join().map_err(|_panic| anyhow!("a client panicked")).flatten());
        outcomes.into_iter().collect()
    })?;
    // Nothing was redirected at the peer, so it finds no original destination.
    let at_peer = peer.tallied()?.missing;
    ensure!(at_peer.len() == outcomes[0] as usize, "{} of {} arrived", at_peer.len(), outcomes[0]);
    ensure!(at_peer.iter().all(|(wanted, _)| wanted.ip().to_string().starts_with("10.88.0.")));
    let right = outcomes[1] + outcomes[2];
    assert_eq!(proxy.tallied()?, Tallied { right, ..Tallied::default() });
    tell(format_args!(
        "{changes} changes under {} connections left alone and {right} redirected: each as both captures say",
        outcomes[0]
    ));
    world.close()
}

/// Connects until all clients together have connected as often as wanted; says how often it was itself.
fn connect_until(app: &mut Actor, to: Ipv4Addr, connected: &AtomicU32, wanted: u32) -> anyhow::Result<u32> {
    let churn = Churn { first: SocketAddr::from((to, BEFORE_PORT)), addresses: BATCH, count: BATCH.into() };
    let mut own = 0;
    while connected.load(Ordering::Relaxed) < wanted {
        let churned = app.churn(churn.clone())?;
        ensure!(churned == Churned { connected: churn.count, failed: None }, "after {own} more: {churned:?}");
        own += churn.count;
        connected.fetch_add(churn.count, Ordering::Relaxed);
    }
    Ok(own)
}
