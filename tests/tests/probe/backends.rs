//! Rows about backends, held against the backends at work.

use std::process::Command;

use interceptor::parity::{
    backend::Backend,
    catalogue::INJECTED,
    plan::Place,
    world::{Layout, World},
};
use interceptor_tests::{Product, foreign::Program, interceptor};
use serde_json::Value;

use super::{is_present, probe, rows};

/// Names of the rows that an engine needs and that are not there.
fn lacking<'r>(report: &'r Value, engine: &str) -> anyhow::Result<Vec<&'r str>> {
    let needs = |row: &&Value| {
        row["needed_by"].as_array().is_some_and(|engines| engines.iter().any(|needing| needing == engine))
    };
    let needed: Vec<_> = rows(report)?.iter().filter(needs).collect();
    assert!(needed.len() > 3, "{engine} needs next to nothing: {needed:#?}");
    let absent = needed.into_iter().filter(|row| row["present"] != "yes");
    Ok(absent.filter_map(|row| row["name"].as_str()).collect())
}

/// Each engine is tried in earnest: rules are loaded, programs attached.
#[test]
fn every_backend_works_exactly_where_all_its_rows_are_there() -> anyhow::Result<()> {
    let report = probe()?;
    for (engine, backend) in [
        ("ebpf", Backend::Ebpf),
        ("iptables-nft", Backend::IptablesNft),
        ("iptables-legacy", Backend::IptablesLegacy),
        ("nft", Backend::Nft),
    ] {
        let lacking = lacking(&report, engine)?;
        let world = World::build(Layout::default())?;
        // Removes what eBPF attaches.
        let _product = Product::new(&world)?;
        match backend.apply(&world, &interceptor(), Place::Pod, &INJECTED) {
            Ok(()) => assert!(lacking.is_empty(), "{engine} works without {lacking:?}"),
            Err(error) => assert!(!lacking.is_empty(), "{engine} does not work, unforeseen: {error:#}"),
        }
        world.close()?;
    }
    Ok(())
}

#[test]
fn tproxy_is_there_exactly_where_its_rule_loads() -> anyhow::Result<()> {
    let report = probe()?;
    if !lacking(&report, "iptables-nft")?.is_empty() {
        // Its rows have been held against the kernel already.
        return Ok(());
    }
    let world = World::build(Layout::default())?;
    let mut rule = Command::new("iptables-nft");
    rule.args(["-t", "mangle", "-A", "PREROUTING", "-p", "tcp"]);
    rule.args(["-j", "TPROXY", "--on-port", "15006", "--tproxy-mark", "1337"]);
    let output = world.run(Some(Place::Pod), &mut rule, "")?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.success(), is_present(&report, "TPROXY")?, "{said}");
    world.close()
}

#[test]
fn the_order_of_programs_can_be_chosen_exactly_where_the_probe_says_so() -> anyhow::Result<()> {
    const BEFORE: u32 = 1 << 3;
    const PREORDER: u32 = 1 << 6;
    let report = probe()?;
    let world = World::build(Layout::default())?;
    for (flags, row) in [
        (0, "links to cgroups"),
        (BEFORE, "order of cgroup programs"),
        (PREORDER, "preorder of cgroup programs"),
    ] {
        let linked = Program { name: "trial", allows: true, shares: true }.link(world.cgroup(), flags);
        assert_eq!(linked.is_ok(), is_present(&report, row)?, "{row}: {linked:?}");
    }
    world.close()
}
