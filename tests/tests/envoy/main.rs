//! A real Envoy with Istio's listeners: what it tells of connections, and what the servers tell, is the same under
//! iptables and under eBPF. Both are held against one table.

mod stage;
mod table;

use std::collections::BTreeMap;

use interceptor::parity::{
    backend::Backend, catalogue, proxy::ProxyKind, report::Report, runner::Runner, scenario::Set,
};
use interceptor_tests::runner;

use self::{
    stage::Stage,
    table::{Row, STATS, WHILE_ENVOY_IS_DEAD, WHILE_ENVOY_RUNS},
};

#[test]
fn envoy_under_iptables() {
    follows_the_table(Backend::IptablesNft).unwrap();
}

#[test]
fn envoy_under_ebpf() {
    follows_the_table(Backend::Ebpf).unwrap();
}

/// What the built-in proxy of an injected pod is put through, with Envoy in its place.
#[test]
fn an_injected_pod_is_alike_with_envoy() {
    let runner = Runner { proxy: ProxyKind::Envoy(stage::envoy_path().unwrap()), ..runner() };
    let scenarios: Vec<_> =
        catalogue::all().into_iter().filter(|scenario| scenario.set == Set::Injected).collect();
    let backends = [Backend::IptablesNft, Backend::Ebpf];
    let report = Report::new(&scenarios, &backends, &runner.run_all(&scenarios, &backends, || {}));
    let objections: Vec<_> = report.objections().collect();
    assert!(objections.is_empty(), "{objections:#?}");
}

/// Without interception the rows in which Envoy sends something on do not hold: the table is not true of itself.
/// The black hole is not among them, as it is where a direct connection to Envoy's port ends in any case.
#[test]
fn the_table_needs_interception() {
    let mut stage = Stage::set(Backend::None).unwrap();
    for (client, to, port, expected) in WHILE_ENVOY_RUNS {
        let intercepted = expected.iter().any(|line| line.contains(" for ") && !line.contains("blackhole"));
        let seen = stage.connect(client, to, port).unwrap();
        assert_eq!(
            seen != expected,
            intercepted,
            "{client} → {to:?}:{port} under no interception: {seen:#?}"
        );
    }
    stage.close().unwrap();
}

fn follows_the_table(backend: Backend) -> anyhow::Result<()> {
    let mut stage = Stage::set(backend)?;
    check(&mut stage, &WHILE_ENVOY_RUNS)?;
    let stats = stage.stats()?;
    let counted = STATS.map(|(name, _)| (name, stats.get(name).copied().unwrap_or_default()));
    assert_eq!(BTreeMap::from(counted), BTreeMap::from(STATS));
    stage.stop_envoy()?;
    check(&mut stage, &WHILE_ENVOY_IS_DEAD)?;
    // A new Envoy has new sockets, and is found again.
    stage.start_envoy()?;
    check(&mut stage, &WHILE_ENVOY_RUNS)?;
    stage.close()
}

fn check(stage: &mut Stage, rows: &[Row]) -> anyhow::Result<()> {
    for (client, to, port, expected) in rows {
        let seen = stage.connect(*client, *to, *port)?;
        assert_eq!(seen, *expected, "{client} → {to:?}:{port}");
    }
    Ok(())
}
