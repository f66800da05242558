//! `interceptor trace`: what is decided is told while somebody reads.

use std::{
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    process::Stdio,
};

use anyhow::{Context as _, ensure};
use interceptor::parity::{
    actor::Actor,
    catalogue::INJECTED,
    plan::{Family, Host, Place},
    scenario::APP,
    world::{Layout, World},
};
use interceptor_tests::{Product, interceptor};
use serde_json::Value;

/// More connections than are made before the reader is there.
const MOST: u32 = 10_000;

#[test]
fn a_decision_is_told_with_who_and_why() -> anyhow::Result<()> {
    let world = World::build(Layout::default())?;
    let product = Product::new(&world)?;
    product.apply(Place::Pod, &INJECTED)?;
    let mut reader =
        product.command(&["trace", "--json", "--count", "1", "--uid", &APP.owner.uid.to_string()]);
    let mut reader = reader.stdout(Stdio::piped()).spawn()?;
    let told = BufReader::new(reader.stdout.take().context("standard output is a pipe")?);

    // Connections go on until one was told: nothing else says when the reader began.
    let mut app = Actor::start(&world, &interceptor(), Place::Pod, APP.owner)?;
    let to: SocketAddr = (Host::Service(1).address(Family::V4), 80).into();
    for id in 0..MOST {
        // No proxy listens: each is refused.
        app.connect(id, to, None)?;
        if reader.try_wait()?.is_some() {
            break;
        }
    }
    ensure!(reader.wait()?.success(), "the reader failed");

    let line = told.lines().next().context("nothing was told")??;
    let decided: Value = serde_json::from_str(&line)?;
    assert_eq!(decided["destination"], to.to_string());
    assert_eq!(decided["user"], APP.owner.uid);
    assert_eq!(decided["verdict"], "outbound");
    assert_eq!(decided["reason"], "outbound");
    assert_eq!(decided["point"], "connect");
    world.close()
}

#[test]
fn an_unknown_reason_is_refused_with_the_known_ones() -> anyhow::Result<()> {
    let world = World::build(Layout::default())?;
    let output = Product::new(&world)?.run(&["trace", "--reason", "whim"])?;
    let error = String::from_utf8(output.stderr)?;
    assert!(!output.status.success() && error.contains("whim") && error.contains("excluded-port"), "{error}");
    world.close()
}
