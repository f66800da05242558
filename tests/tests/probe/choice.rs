//! `apply` takes the backend that the probe names, and says why.

use std::process::Output;

use interceptor::parity::{
    catalogue::INJECTED,
    plan::Place,
    world::{Layout, World},
};
use interceptor_tests::{Product, skipped};
use serde_json::Value;

use super::probe;

/// Runs `apply` for the world's pod.
fn apply(world: &World, product: &Product<'_>, arguments: &[&str]) -> anyhow::Result<Output> {
    let mut command = product.command(&["apply"]);
    command.args(arguments).arg("--netns").arg(world.namespace(Place::Pod)?.path());
    command.arg("--cgroup").arg(world.cgroup());
    // Where the tools of nat are.
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    world.run(None, &mut command, "")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The backend that `auto` takes, and why.
fn choice(report: &Value) -> (String, String) {
    let word = |key: &str| report["auto"]["takes"][key].as_str().unwrap_or_default().to_owned();
    (word("backend"), word("because"))
}

#[test]
fn auto_takes_what_the_probe_says_and_gives_its_reason_in_one_line() -> anyhow::Result<()> {
    let (backend, because) = choice(&probe()?);
    let world = World::build(Layout::default())?;
    let product = Product::new(&world)?;
    let arguments: Vec<_> = ["--backend", "auto"].into_iter().chain(INJECTED).collect();
    let output = apply(&world, &product, &arguments)?;
    let said = text(&output.stdout);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(said.lines().next(), Some(format!("backend {backend}: {because}").as_str()), "{said}");
    assert_eq!(said.lines().count(), 2, "{said}");
    assert_eq!(product.state_dir().exists(), backend == "ebpf", "{said}");
    world.close()
}

#[test]
fn a_required_backend_is_taken_or_refused_by_name() -> anyhow::Result<()> {
    let report = probe()?;
    let (backend, because) = choice(&report);
    let world = World::build(Layout::default())?;
    let product = Product::new(&world)?;
    let arguments: Vec<_> = ["--require", "ebpf"].into_iter().chain(INJECTED).collect();
    let output = apply(&world, &product, &arguments)?;
    let error = text(&output.stderr);
    if backend == "ebpf" {
        assert!(output.status.success(), "{error}");
        assert!(product.state_dir().exists());
    } else {
        let decider = report["auto"]["takes"]["decided_by"].as_str().unwrap_or_default();
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.lines().count() == 1 && error.contains(decider), "{because}: {error}");
        assert!(!product.state_dir().exists(), "something was left behind");
    }
    world.close()
}

/// What no hook at a socket can do decides before any feature of the kernel.
#[test]
fn a_capture_out_of_reach_takes_nat_unless_ebpf_is_required() -> anyhow::Result<()> {
    let world = World::build(Layout::default())?;
    let product = Product::new(&world)?;
    let capture: Vec<_> = INJECTED.into_iter().chain(["-k", "eth0"]).collect();
    let required: Vec<_> = ["--require", "ebpf"].into_iter().chain(capture.clone()).collect();
    let refused = apply(&world, &product, &required)?;
    assert_eq!(refused.status.code(), Some(1), "{}", text(&refused.stdout));
    assert_eq!(text(&refused.stderr).lines().count(), 1, "{}", text(&refused.stderr));
    assert!(!product.state_dir().exists(), "something was left behind");

    let taken = apply(&world, &product, &capture)?;
    let said = text(&taken.stdout);
    assert!(taken.status.success(), "{}", text(&taken.stderr));
    assert!(said.starts_with("backend iptables: ") && said.contains("--kube-virt-interfaces"), "{said}");
    assert!(!product.state_dir().exists(), "{said}");
    world.close()
}

#[test]
fn two_wishes_that_exclude_each_other_are_refused() -> anyhow::Result<()> {
    let world = World::build(Layout::default())?;
    let product = Product::new(&world)?;
    let output = apply(&world, &product, &["--backend", "nft", "--require", "ebpf"])?;
    let error = text(&output.stderr);
    assert!(output.status.code() == Some(1) && error.contains("--require ebpf"), "{error}");
    world.close()
}

/// An agent intercepts by eBPF alone, so it has nothing to do where that cannot be.
#[test]
fn an_agent_without_ebpf_ends_with_the_reason() -> anyhow::Result<()> {
    let report = probe()?;
    let (backend, because) = choice(&report);
    if backend == "ebpf" {
        skipped(&anyhow::anyhow!("eBPF works here: {because}"));
        return Ok(());
    }
    let world = World::build(Layout::default())?;
    let product = Product::new(&world)?;
    let output = product.run(&["agent", "--metrics", "off"])?;
    let error = text(&output.stderr);
    assert!(output.status.code() == Some(1) && error.starts_with("error: ebpf needs "), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
    assert!(!product.state_dir().exists(), "something was left behind");
    world.close()
}
