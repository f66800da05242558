//! Hooks that are gone, other programs on them, and nat rules beside them.

use std::{fs, process::Command};

use anyhow::ensure;
use interceptor::parity::{
    backend::Backend,
    catalogue::INJECTED,
    plan::Place,
    world::{Layout, World},
};
use interceptor_tests::{Product, foreign::Program, interceptor};

use super::{enrol, findings, only, remove_group, some};

#[test]
fn a_missing_hook_is_found_and_canaries_go_astray() -> anyhow::Result<()> {
    let world = World::build(Layout::default())?;
    let product = Product::new(&world)?;
    let _proxy = enrol(&world, &product)?;
    let folder = product.state_dir().join("v1");
    let cookie = product.status()?["workloads"][0]["cookie"].to_string();
    fs::remove_file(folder.join("workloads").join(cookie))?;
    let found = findings(&world, &product)?;
    some(&found, "hooks are missing: steer");
    some(&found, "a canary to the workload");

    fs::remove_file(folder.join("links/connect4"))?;
    let found = findings(&world, &product)?;
    some(&found, "hooks are missing: connect4, steer");
    some(&found, "a canary from the workload to 192.0.2.1:9");
    world.close()
}

#[test]
fn a_program_that_refuses_connections_is_found_and_so_is_what_it_does() -> anyhow::Result<()> {
    let world = World::build(Layout::default())?;
    let product = Product::new(&world)?;
    let _proxy = enrol(&world, &product)?;
    let _denying = Program { name: "firewall", allows: false, shares: true }.attach(world.cgroup())?;
    let found = findings(&world, &product)?;
    assert_eq!(found.len(), 2, "{found:#?}");
    some(&found, "another program, firewall");
    some(&found, "a canary from the workload to 192.0.2.1:9 fails: Operation not permitted");
    world.close()
}

#[test]
fn a_load_balancer_is_told_by_its_order() -> anyhow::Result<()> {
    let world = World::build(Layout::default())?;
    let product = Product::new(&world)?;
    let _first = Program { name: "cil_sock4_conne", allows: true, shares: true }.attach(world.cgroup())?;
    let _proxy = enrol(&world, &product)?;
    let mut doctor = product.command(&["doctor", "--netns"]);
    let output = world.run(Some(Place::Peer), doctor.arg(world.namespace(Place::Pod)?.path()), "")?;
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for words in ["cil_sock4_conne", "on connect4 and runs before ours", "service", "child cgroup"] {
        assert!(said.contains(words), "no {words:?}: {said}");
    }
    world.close()
}

#[test]
fn a_program_on_the_cgroup_of_the_application_alone_is_found() -> anyhow::Result<()> {
    use interceptor::parity::{actor::Actor, scenario::APP};
    let world = World::build(Layout::default())?;
    let product = Product::new(&world)?;
    let _proxy = enrol(&world, &product)?;
    let below = world.cgroup().join("application");
    fs::create_dir(&below)?;
    let group = below.clone();
    world.on_close(Box::new(move || {
        fs::write(group.join("cgroup.kill"), "1")?;
        remove_group(&group)
    }))?;
    let mut enter = Command::new(interceptor());
    enter.arg("actor").arg("--netns").arg(world.namespace(Place::Pod)?.path()).arg("--cgroup").arg(&below);
    enter.args(["--uid", &APP.owner.uid.to_string(), "--gid", &APP.owner.gid.to_string()]);
    enter.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let child = world.spawn(&mut enter)?;
    let _attached = Program { name: "sandbox", allows: true, shares: true }.attach(&below)?;
    // It has answered, so it is where it should be.
    let mut app = Actor::of(&mut child.lock().unwrap_or_else(std::sync::PoisonError::into_inner))?;
    app.sightings()?;
    only(&findings(&world, &product)?, "another program, sandbox");
    drop(app);
    world.close()
}

#[test]
fn another_installation_is_found() -> anyhow::Result<()> {
    let world = World::build(Layout::default())?;
    let product = Product::new(&world)?;
    let _proxy = enrol(&world, &product)?;

    // The same programs once more, on the same cgroup.
    let mut other = product.state_dir().into_os_string();
    other.push("-other");
    let mut apply = Command::new(interceptor());
    apply.arg("--state-dir").arg(&other).args(["apply", "--backend", "ebpf"]).args(INJECTED);
    apply.arg("--netns").arg(world.namespace(Place::Peer)?.path()).arg("--cgroup").arg(world.cgroup());
    let applied = world.run(None, &mut apply, "")?;
    // The peer is a workload now, of another installation.
    let found = findings(&world, &product);
    let mut uninstall = Command::new(interceptor());
    let removed = world.run(None, uninstall.arg("--state-dir").arg(&other).arg("uninstall"), "")?;
    ensure!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
    ensure!(removed.status.success(), "{}", String::from_utf8_lossy(&removed.stderr));

    let found = found?;
    some(&found, "is on connect4 and runs after ours");
    world.close()
}

#[test]
fn rules_of_istio_beside_ebpf_are_found() -> anyhow::Result<()> {
    let world = World::build(Layout::default())?;
    let product = Product::new(&world)?;
    Backend::IptablesNft.apply(&world, &interceptor(), Place::Pod, &INJECTED)?;
    only(&findings(&world, &product)?, "rules of Istio");
    let _proxy = enrol(&world, &product)?;
    some(&findings(&world, &product)?, "rules of Istio");
    world.close()
}

#[test]
fn rules_of_linkerd_beside_ebpf_are_found() -> anyhow::Result<()> {
    let world = World::build(Layout::default())?;
    let product = Product::new(&world)?;
    let _proxy = enrol(&world, &product)?;
    let mut restore = Command::new("iptables-nft-restore");
    let chain = "*nat\n:PROXY_INIT_REDIRECT - [0:0]\nCOMMIT\n";
    let loaded = world.run(Some(Place::Pod), restore.arg("--noflush"), chain)?;
    ensure!(loaded.status.success(), "{}", String::from_utf8_lossy(&loaded.stderr));
    only(&findings(&world, &product)?, "rules of Linkerd");
    world.close()
}
