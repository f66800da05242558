//! `interceptor doctor` finds what was put wrong, and nothing where nothing is.

use std::process::Command;

use anyhow::ensure;
use interceptor::parity::{
    actor::Actor,
    backend::Backend,
    catalogue::{INJECTED, SERVICE_PORTS},
    plan::{Family, Host, Place},
    proxy::{OWNER, ProxyKind},
    scenario::APP,
    world::{Layout, World},
};
use interceptor_tests::{Product, interceptor};
use serde_json::Value;

/// What the doctor says of the pod.
fn findings(world: &World, product: &Product<'_>) -> anyhow::Result<Vec<String>> {
    let mut doctor = Command::new(interceptor());
    doctor.arg("--state-dir").arg(product.state_dir()).args(["doctor", "--json", "--netns"]);
    let output = world.run(None, doctor.arg(world.namespace(Place::Pod)?.path()), "")?;
    ensure!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    let findings: Vec<Value> = serde_json::from_slice(&output.stdout)?;
    assert_eq!(output.status.code(), Some(i32::from(!findings.is_empty())), "{findings:#?}");
    for finding in &findings {
        let is_told = |part: &str| finding[part].as_str().is_some_and(|text| !text.is_empty());
        assert!(is_told("what") && is_told("why") && is_told("advice"), "{finding:#}");
    }
    Ok(findings.iter().map(|finding| finding["what"].as_str().unwrap_or_default().to_owned()).collect())
}

/// Requires exactly one finding, which contains the text.
fn only(findings: &[String], text: &str) {
    assert!(matches!(findings, [one] if one.contains(text)), "not just {text:?}: {findings:#?}");
}

#[test]
fn a_working_pod_is_clean_and_each_fault_is_found() -> anyhow::Result<()> {
    let world = World::build(Layout::default())?;
    let product = Product::new(&world)?;
    only(&findings(&world, &product)?, "not under interception");

    product.apply(Place::Pod, &INJECTED)?;
    let silent = findings(&world, &product)?;
    assert_eq!(silent.len(), 2, "{silent:#?}");
    assert!(silent[0].contains("15001") && silent[1].contains("15006"), "{silent:#?}");

    let proxy = ProxyKind::Builtin.start(&world, &interceptor(), Place::Pod)?;
    assert!(findings(&world, &product)?.is_empty());

    let impostor = Actor::start(&world, &interceptor(), Place::Pod, OWNER)?;
    only(&findings(&world, &product)?, "as its user 1337");
    drop(impostor);

    for family in ["-4", "-6"] {
        let mut rule = Command::new("ip");
        rule.args([family, "rule", "add", "fwmark", "7", "table", "100"]);
        ensure!(world.run(Some(Place::Pod), &mut rule, "")?.status.success(), "ip rule failed");
    }
    let rules = findings(&world, &product)?;
    assert!(rules.len() == 2 && rules.iter().all(|rule| rule.contains("table 100, mark 7")), "{rules:#?}");
    drop(proxy);
    world.close()
}

#[test]
fn rules_of_istio_beside_ebpf_are_found() -> anyhow::Result<()> {
    let world = World::build(Layout::default())?;
    let product = Product::new(&world)?;
    Backend::IptablesNft.apply(&world, &interceptor(), Place::Pod, &INJECTED)?;
    only(&findings(&world, &product)?, "rules of Istio");
    product.apply(Place::Pod, &INJECTED)?;
    let _proxy = ProxyKind::Builtin.start(&world, &interceptor(), Place::Pod)?;
    only(&findings(&world, &product)?, "rules of Istio");
    world.close()
}

#[test]
fn a_connection_older_than_the_interception_is_found() -> anyhow::Result<()> {
    let world = World::build(Layout::default())?;
    let product = Product::new(&world)?;
    let mut service = Actor::start(&world, &interceptor(), Place::Peer, APP.owner)?;
    service.serve("service", &SERVICE_PORTS.map(|port| ([0; 4], port).into()), &[])?;
    let mut app = Actor::start(&world, &interceptor(), Place::Pod, APP.owner)?;
    let service = Host::Service(1).address(Family::V4);
    let connected = app.connect(0, (service, 80).into(), None)?;
    ensure!(connected.outcome.is_ok(), "cannot connect: {connected:?}");

    product.apply(Place::Pod, &INJECTED)?;
    let _proxy = ProxyKind::Builtin.start(&world, &interceptor(), Place::Pod)?;
    only(&findings(&world, &product)?, &format!("{service}:80"));
    world.close()
}

#[test]
fn other_programs_on_the_hooks_are_found() -> anyhow::Result<()> {
    let world = World::build(Layout::default())?;
    let product = Product::new(&world)?;
    product.apply(Place::Pod, &INJECTED)?;
    let _proxy = ProxyKind::Builtin.start(&world, &interceptor(), Place::Pod)?;

    // Another installation of the same programs, on the same cgroup.
    let mut other = product.state_dir().into_os_string();
    other.push("-other");
    let mut apply = Command::new(interceptor());
    apply.arg("--state-dir").arg(&other).args(["apply", "--backend", "ebpf"]).args(INJECTED);
    apply.arg("--netns").arg(world.namespace(Place::Peer)?.path()).arg("--cgroup").arg(world.cgroup());
    let applied = world.run(None, &mut apply, "")?;
    let found = findings(&world, &product);
    let mut uninstall = Command::new(interceptor());
    let removed = world.run(None, uninstall.arg("--state-dir").arg(&other).arg("uninstall"), "")?;
    ensure!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
    ensure!(removed.status.success(), "{}", String::from_utf8_lossy(&removed.stderr));

    let found = found?;
    assert!(!found.is_empty() && found.iter().all(|one| one.contains("runs after ours")), "{found:#?}");
    assert!(found.iter().any(|one| one.contains("connect4")), "{found:#?}");
    world.close()
}
