//! Set-up while something grows: lists in the capture, workloads on the node, open connections.
//!
//! All sizes stand side by side and take their turns in every round, so that sizes compare as directly as regimes do.

use std::{io::Write as _, net::Ipv4Addr};

use anyhow::{Context as _, bail};
use interceptor::parity::world::Namespace;
use nix::errno::Errno;
use tempfile::NamedTempFile;

use super::{application, set_up};
use crate::{
    bench::{Bench, Label, turns},
    regime::Regime,
    stage::{Scene, Stage},
};

/// Set-up past excluded CIDRs, none of which is the destination's.
pub(super) fn cidrs(bench: &mut Bench) -> anyhow::Result<()> {
    let sizes = bench.effort.cidrs.clone();
    grow(bench, "excluded-cidrs", &sizes, |bench, regime, size| {
        let first = Ipv4Addr::new(172, 16, 0, 0).to_bits();
        let cidr = |n| format!("{}/28", Ipv4Addr::from_bits(first + 16 * n));
        let cidrs: Vec<_> = (0..u32::try_from(size)?).map(cidr).collect();
        with_setting(bench, regime, "istio-service-exclude-cidr", &cidrs)
    })
}

/// Set-up past excluded ports, none of which is the destination's.
pub(super) fn ports(bench: &mut Bench) -> anyhow::Result<()> {
    let sizes = bench.effort.ports.clone();
    grow(bench, "excluded-ports", &sizes, |bench, regime, size| {
        let ports: Vec<_> = (0..size).map(|n| (20_000 + 2 * n).to_string()).collect();
        with_setting(bench, regime, "istio-local-outbound-ports-exclude", &ports)
    })
}

/// Set-up in one of many workloads.
pub(super) fn workloads(bench: &mut Bench) -> anyhow::Result<()> {
    let sizes = bench.effort.workloads.clone();
    grow(bench, "workloads", &sizes, |bench, regime, size| {
        let stage = Stage::set(bench, regime, &Scene::OUTBOUND)?;
        let others = (1..size).map(|_| Namespace::create()).collect::<anyhow::Result<Vec<_>>>()?;
        application::apply_all(bench, &stage.world, regime, &others)?;
        Ok((stage, others))
    })
}

/// Set-up beside open connections of the same pod.
pub(super) fn connections(bench: &mut Bench) -> anyhow::Result<()> {
    let sizes = bench.effort.connections.clone();
    // All rules of nat use one table of connections, the whole machine's, in which there is no room for three times as many.
    let regimes = bench.regimes.clone();
    bench.regimes.retain(|regime| !matches!(regime, Regime::IptablesLegacy | Regime::Nft));
    // The proxy has as many processes at every size, or they would be what is compared.
    let held = usize::try_from(sizes.iter().copied().max().unwrap_or_default())?;
    let result = grow(bench, "open-connections", &sizes, |bench, regime, size| {
        let scene = Scene { destinations: 1_000, held, ..Scene::OUTBOUND };
        let mut stage = Stage::set(bench, regime, &scene)?;
        let held = stage.hold(usize::try_from(size)?)?;
        if let Some(errno) = held.failed {
            bail!(
                "only {} connections can be held under {regime}: {}",
                held.open,
                Errno::from_raw(errno).desc()
            );
        }
        Ok((stage, Vec::new()))
    });
    bench.regimes = regimes;
    result
}

/// A stage whose capture has one long list.
fn with_setting(
    bench: &Bench,
    regime: Regime,
    name: &str,
    values: &[String],
) -> anyhow::Result<(Stage, Vec<Namespace>)> {
    // A list may be longer than a command line can be, so it comes by file.
    let mut file = NamedTempFile::with_suffix(".toml").context("cannot make a temporary file")?;
    writeln!(file, "{name} = \"{}\"", values.join(","))?;
    let path = file.path().to_str().context("the temporary folder's path is UTF-8")?;
    let capture = ["--config", path];
    let capture: &[&str] = if values.is_empty() { &[] } else { &capture };
    Ok((Stage::set(bench, regime, &Scene { capture, ..Scene::OUTBOUND })?, Vec::new()))
}

/// Measures set-up at every size in turn. `prepare` builds the stage, and what else must stay alive with it.
fn grow(
    bench: &mut Bench,
    measure: &str,
    sizes: &[u64],
    prepare: impl Fn(&Bench, Regime, u64) -> anyhow::Result<(Stage, Vec<Namespace>)>,
) -> anyhow::Result<()> {
    let mut stages = Vec::new();
    for regime in bench.regimes.iter().filter(|regime| **regime != Regime::EbpfNoSpread) {
        for size in sizes {
            // Nothing that grows concerns a connection nobody intercepts, except other connections.
            if *regime == Regime::Direct && *size != sizes[0] && measure != "open-connections" {
                continue;
            }
            // Behind one address of the proxy, nat has no more than 64,512 ports.
            if regime.is_nat() && *size > 50_000 && measure == "open-connections" {
                continue;
            }
            bench.tell(format!("{measure}: preparing {regime} with {size}"));
            let (stage, others) = prepare(bench, *regime, *size)?;
            stages.push((*size, stage.reuse_ports()?, others));
        }
    }
    for round in 0..bench.effort.rounds {
        bench.tell(format!("{measure}, round {round}"));
        for turn in turns(round, stages.len()) {
            let (size, stage, _) = &mut stages[turn];
            let slice = stage.connect(1, bench.effort.slice_milliseconds)?;
            let label =
                Label { measure, case: "outbound IPv4, 1 client", size: *size, regime: stage.regime, round };
            set_up::record(bench, &label, &slice);
        }
    }
    bench.tell(format!("{measure}: clearing up"));
    for (_, stage, _) in stages {
        stage.world.close()?;
    }
    Ok(())
}
