//! `interceptor doctor` finds what was put wrong, and nothing where nothing is.

mod hooks;
mod processes;
mod sockets;

use std::{
    fs,
    io::ErrorKind,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::ensure;
use interceptor::parity::{
    catalogue::INJECTED,
    plan::Place,
    proxy::{Proxy, ProxyKind},
    world::{Layout, World},
};
use interceptor_tests::{Product, interceptor};
use serde_json::Value;

/// What the doctor says of the pod when asked from a place: what it found, and what it could not look at.
fn examine(world: &World, product: &Product<'_>, from: Place) -> anyhow::Result<(Vec<String>, Vec<String>)> {
    let mut doctor = Command::new(interceptor());
    doctor.arg("--state-dir").arg(product.state_dir()).args(["doctor", "--json", "--netns"]);
    let output = world.run(Some(from), doctor.arg(world.namespace(Place::Pod)?.path()), "")?;
    ensure!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout)?;
    let list = |name: &str| report[name].as_array().cloned().unwrap_or_default();
    let findings = list("findings");
    assert_eq!(output.status.code(), Some(i32::from(!findings.is_empty())), "{report:#}");
    for finding in &findings {
        let is_told = |part: &str| finding[part].as_str().is_some_and(|text| !text.is_empty());
        assert!(is_told("what") && is_told("why") && is_told("advice"), "{finding:#}");
    }
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let found = findings.iter().map(|finding| text(&finding["what"])).collect();
    Ok((found, list("unchecked").iter().map(text).collect()))
}

/// The same from the peer, from where everything can be looked at.
fn findings(world: &World, product: &Product<'_>) -> anyhow::Result<Vec<String>> {
    let (findings, unchecked) = examine(world, product, Place::Peer)?;
    assert!(unchecked.is_empty(), "{unchecked:#?}");
    Ok(findings)
}

/// Requires exactly one finding, which contains the text.
fn only(findings: &[String], text: &str) {
    assert!(matches!(findings, [one] if one.contains(text)), "not just {text:?}: {findings:#?}");
}

/// Requires a finding that contains the text.
fn some(findings: &[String], text: &str) {
    assert!(findings.iter().any(|one| one.contains(text)), "no {text:?}: {findings:#?}");
}

/// Puts the pod under interception and starts its proxy.
fn enrol(world: &World, product: &Product<'_>) -> anyhow::Result<Box<dyn Proxy>> {
    product.apply(Place::Pod, &INJECTED)?;
    ProxyKind::Builtin.start(world, &interceptor(), Place::Pod)
}

/// Removes a cgroup, which is busy until its last process is gone.
fn remove_group(group: &Path) -> anyhow::Result<()> {
    let until = Instant::now() + Duration::from_secs(10);
    while let Err(error) = fs::remove_dir(group) {
        ensure!(
            error.kind() == ErrorKind::ResourceBusy && Instant::now() < until,
            "{}: {error}",
            group.display()
        );
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

#[test]
fn a_working_pod_is_clean_and_meets_a_canary_of_each_direction_and_family() -> anyhow::Result<()> {
    let world = World::build(Layout::default())?;
    let product = Product::new(&world)?;
    only(&findings(&world, &product)?, "not under interception");

    let both: Vec<_> = INJECTED.into_iter().chain(["--ipv6", "on"]).collect();
    product.apply(Place::Pod, &both)?;
    let proxy = ProxyKind::Builtin.start(&world, &interceptor(), Place::Pod)?;
    assert!(findings(&world, &product)?.is_empty());
    let status = product.status()?;
    let counts = status["workloads"][0]["connections"].as_array().cloned().unwrap_or_default();
    let count =
        |reason: &str| counts.iter().find(|counted| counted["reason"] == reason).map(|one| &one["count"]);
    // One of each family.
    assert_eq!((count("outbound"), count("inbound")), (Some(&2.into()), Some(&2.into())), "{counts:#?}");
    drop(proxy);
    world.close()
}

#[test]
fn from_inside_it_says_that_arriving_connections_are_not_checked() -> anyhow::Result<()> {
    let world = World::build(Layout::default())?;
    let product = Product::new(&world)?;
    let _proxy = enrol(&world, &product)?;
    let (findings, unchecked) = examine(&world, &product, Place::Pod)?;
    assert!(findings.is_empty(), "{findings:#?}");
    only(&unchecked, "arriving connections");
    world.close()
}

#[test]
fn policy_routes_are_found() -> anyhow::Result<()> {
    let world = World::build(Layout::default())?;
    let product = Product::new(&world)?;
    let _proxy = enrol(&world, &product)?;
    for family in ["-4", "-6"] {
        let mut rule = Command::new("ip");
        rule.args([family, "rule", "add", "fwmark", "7", "table", "100"]);
        ensure!(world.run(Some(Place::Pod), &mut rule, "")?.status.success(), "ip rule failed");
    }
    let rules = findings(&world, &product)?;
    assert!(rules.len() == 2 && rules.iter().all(|rule| rule.contains("table 100, mark 7")), "{rules:#?}");
    world.close()
}

#[test]
fn a_state_without_its_pins_is_told_as_an_error() -> anyhow::Result<()> {
    let world = World::build(Layout::default())?;
    let product = Product::new(&world)?;
    product.apply(Place::Pod, &INJECTED)?;
    fs::remove_file(product.state_dir().join("v1/maps/WORKLOADS"))?;
    let output = product.run(&["doctor"])?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && stderr.contains("WORKLOADS is missing"), "{stderr}");
    world.close()
}
