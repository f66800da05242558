//! `apply --run-validation`: what it finds with and without interception.

use std::process::Output;

use anyhow::Context as _;
use interceptor::parity::{
    actor::{Actor, Owner},
    backend::Backend,
    catalogue::INJECTED,
    plan::Place,
    world::{Layout, World},
};
use interceptor_tests::{Product, interceptor};

const ROOT: Owner = Owner { uid: 0, gid: 0 };
/// Istio's validation container runs as the proxy's user, without capabilities.
const PROXY: Owner = Owner { uid: 1337, gid: 1337 };
const BOTH_FAMILIES: [&str; 2] = ["--ipv6", "on"];

#[test]
fn under_ebpf_validation_passes() -> anyhow::Result<()> {
    passes_under(Backend::Ebpf)
}

#[test]
fn under_iptables_validation_passes() -> anyhow::Result<()> {
    passes_under(Backend::Iptables)
}

#[test]
fn under_nft_validation_passes() -> anyhow::Result<()> {
    passes_under(Backend::Nft)
}

#[test]
fn applying_and_validating_is_one_command() -> anyhow::Result<()> {
    let world = World::build(Layout::default())?;
    let product = Product::new(&world)?;
    let apply = product.apply_command(Place::Pod, &INJECTED)?;
    // Validation's own sockets have to be in the intercepted cgroup.
    let mut command = world.command(&interceptor(), Place::Pod, ROOT, apply.get_program())?;
    command.args(apply.get_args()).arg("--run-validation");
    let output = world.run(None, &mut command, "")?;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    world.close()
}

#[test]
fn without_interception_validation_ends_with_126() -> anyhow::Result<()> {
    let world = World::build(Layout::default())?;
    let output = validate(&world, PROXY, &["--probe-timeout=100ms"])?;
    assert_not_intercepted(&output);
    world.close()
}

/// The proxy's rule names another user, so that the one validated would not be intercepted.
#[test]
fn interception_for_another_proxy_user_is_found_out() -> anyhow::Result<()> {
    for backend in [Backend::Ebpf, Backend::Iptables] {
        let world = World::build(Layout::default())?;
        let other = [INJECTED.as_slice(), &["-u", "1500"]].concat();
        backend.apply(&world, &interceptor(), Place::Pod, other.as_slice())?;
        assert_not_intercepted(&validate(&world, ROOT, &["--probe-timeout=100ms"])?);
        world.close()?;
    }
    Ok(())
}

/// Not 126, by which Istio's repair controller recognises a pod without interception.
#[test]
fn a_proxy_that_is_running_is_told_apart_from_failure() -> anyhow::Result<()> {
    let world = World::build(Layout::default())?;
    let mut proxy = Actor::start(&world, &interceptor(), Place::Pod, PROXY)?;
    proxy.serve("proxy", &[([127, 0, 0, 1], 15006).into()], &[])?;
    let output = validate(&world, PROXY, &["--probe-timeout=100ms"])?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("cannot listen on 127.0.0.1:15006"), "{stderr}");
    world.close()
}

#[test]
fn the_environment_says_the_same_as_the_flags() -> anyhow::Result<()> {
    let world = World::build(Layout::default())?;
    let mut command = world.command(&interceptor(), Place::Pod, PROXY, interceptor())?;
    command.env("RUN_VALIDATION", "true").env("SKIP_RULE_APPLY", "1").env("PROBE_TIMEOUT", "100ms");
    command.env("IPTABLES_PROBE_PORT", "15099");
    let output = world.run(None, command.arg("apply").args(INJECTED), "")?;
    assert_not_intercepted(&output);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("127.0.0.6:15099") && stderr.contains("100ms"), "{stderr}");
    world.close()
}

fn passes_under(backend: Backend) -> anyhow::Result<()> {
    let world = World::build(Layout::default())?;
    let capture = [INJECTED.as_slice(), &BOTH_FAMILIES].concat();
    backend.apply(&world, &interceptor(), Place::Pod, capture.as_slice())?;
    for owner in [PROXY, ROOT] {
        let output = validate(&world, owner, &BOTH_FAMILIES)?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "as {owner:?}: {stderr}");
    }
    world.close()
}

fn assert_not_intercepted(output: &Output) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(126), "{stderr}");
    assert!(stderr.lines().count() > 1, "{stderr}");
}

/// What Istio's validation container runs.
fn validate(world: &World, owner: Owner, flags: &[&str]) -> anyhow::Result<Output> {
    let mut command = world.command(&interceptor(), Place::Pod, owner, interceptor())?;
    command.arg("apply").args(["--skip-rule-apply", "--run-validation"]).args(INJECTED).args(flags);
    world.run(None, &mut command, "").context("cannot run the validation")
}
