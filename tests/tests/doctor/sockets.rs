//! Listeners the proxy lacks, and connections that are older than the interception.

use std::net::SocketAddr;

use anyhow::ensure;
use interceptor::parity::{
    actor::Actor,
    catalogue::{INJECTED, SERVICE_PORTS},
    plan::{Family, Host, Place},
    proxy::ProxyKind,
    scenario::APP,
    world::{Layout, World},
};
use interceptor_tests::{Product, interceptor};

use super::{enrol, findings, only, some};

#[test]
fn listeners_that_are_not_there_are_named() -> anyhow::Result<()> {
    let world = World::build(Layout::default())?;
    let product = Product::new(&world)?;
    product.apply(Place::Pod, &INJECTED)?;
    let silent = findings(&world, &product)?;
    assert_eq!(silent.len(), 2, "{silent:#?}");
    some(&silent, "port 15001");
    some(&silent, "port 15006");

    let dns: Vec<_> = INJECTED.into_iter().chain(["--redirect-dns", "--capture-all-dns"]).collect();
    product.apply(Place::Pod, &dns)?;
    let _proxy = ProxyKind::Builtin.start(&world, &interceptor(), Place::Pod)?;
    let silent = findings(&world, &product)?;
    assert_eq!(silent.len(), 2, "{silent:#?}");
    some(&silent, "port 15053, the proxy's for DNS queries over TCP");
    some(&silent, "port 15053, the proxy's for DNS queries over UDP");
    world.close()
}

#[test]
fn connections_older_than_the_interception_are_found_in_both_directions() -> anyhow::Result<()> {
    let world = World::build(Layout::default())?;
    let product = Product::new(&world)?;
    let any = |port: u16| SocketAddr::from(([0; 4], port));
    let mut service = Actor::start(&world, &interceptor(), Place::Peer, APP.owner)?;
    service.serve("service", &SERVICE_PORTS.map(any), &[])?;
    let mut app = Actor::start(&world, &interceptor(), Place::Pod, APP.owner)?;
    app.serve("app", &[any(8080)], &[])?;
    let service = SocketAddr::new(Host::Service(1).address(Family::V4), 80);
    let connected = app.connect(0, service, None)?;
    ensure!(connected.outcome.is_ok(), "cannot connect: {connected:?}");

    let proxy = enrol(&world, &product)?;
    only(&findings(&world, &product)?, &service.to_string());

    app.close(0)?;
    product.release(Place::Pod)?;
    let mut client = Actor::start(&world, &interceptor(), Place::Peer, APP.owner)?;
    let connected = client.connect(0, SocketAddr::new(Place::Pod.host().address(Family::V4), 8080), None)?;
    let from = connected.seen.local.map_err(|error| anyhow::anyhow!("no address: {error}"))?;
    let answer = client.ask(0, "hello")?;
    ensure!(answer.is_ok(), "no answer: {answer:?}");
    product.apply(Place::Pod, &INJECTED)?;
    only(&findings(&world, &product)?, &from.to_string());
    drop(proxy);
    world.close()
}

#[test]
fn connections_that_the_capture_leaves_alone_are_no_finding() -> anyhow::Result<()> {
    let world = World::build(Layout::default())?;
    let product = Product::new(&world)?;
    let any = |port: u16| SocketAddr::from(([0; 4], port));
    let mut service = Actor::start(&world, &interceptor(), Place::Peer, APP.owner)?;
    service.serve("service", &SERVICE_PORTS.map(any), &[])?;
    let mut app = Actor::start(&world, &interceptor(), Place::Pod, APP.owner)?;
    let service = SocketAddr::new(Host::Service(1).address(Family::V4), 80);
    let excluded = format!("{}/32", service.ip());
    let connected = app.connect(0, service, None)?;
    ensure!(connected.outcome.is_ok(), "cannot connect: {connected:?}");

    let capture = ["-i", "*", "-b", "*", "-u", "1337", "-x", &excluded];
    product.apply(Place::Pod, &capture)?;
    let _proxy = ProxyKind::Builtin.start(&world, &interceptor(), Place::Pod)?;
    assert!(findings(&world, &product)?.is_empty());
    world.close()
}
