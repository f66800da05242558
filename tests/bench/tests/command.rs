//! The measuring command works on today's data path, and judges by the noise of what it is given.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use anyhow::{Context as _, ensure};
use interceptor_tests::{ebpf_runs_here, interceptor};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Connections of both families and directions, by one client and by eight.
const CASES: usize = 8;
const ROUNDS: usize = 3;

#[test]
fn a_short_run_ends_in_a_page_a_plot_and_raw_data() -> anyhow::Result<()> {
    if !ebpf_runs_here()? {
        return Ok(());
    }
    let folder = TempDir::new()?;
    let output = bench(folder.path(), &["--quick", "--only=set-up", "--regimes=direct,ebpf"])?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let raw = fs::read_to_string(folder.path().join("bench/samples.jsonl"))?;
    let samples = raw.lines().skip(1).map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
    for regime in ["direct", "ebpf"] {
        let rates = samples.iter().filter(|sample| sample["regime"] == regime);
        let rates = rates.filter_map(|sample| sample["values"]["connections_per_second"].as_f64());
        assert_eq!(rates.filter(|rate| *rate > 0.0).count(), CASES * ROUNDS, "{regime}: {raw}");
    }
    let page = fs::read_to_string(folder.path().join("benchmarks.md"))?;
    assert!(page.contains("| set-up, inbound IPv6, 8 clients: p99 against direct |"), "{page}");
    let plot = fs::read_to_string(folder.path().join("bench/set-up.svg"))?;
    assert!(plot.trim_end().ends_with("</svg>"), "{plot}");
    Ok(())
}

#[test]
fn check_fails_when_a_goal_is_missed_by_more_than_the_noise() -> anyhow::Result<()> {
    // The goal is 0.97 of direct.
    for (ratios, code) in [([0.96, 0.98, 0.99], 0), ([0.90, 0.95, 0.99], 0), ([0.90, 0.95, 0.96], 1)] {
        let folder = TempDir::new()?;
        let raw = folder.path().join("raw.jsonl");
        fs::write(&raw, run(ratios))?;
        let from = raw.to_str().context("the temporary folder's path is UTF-8")?;
        let judged = bench(folder.path(), &["--check", "--from", from])?;
        assert_eq!(judged.status.code(), Some(code), "{ratios:?}: {judged:?}");
        let reported = bench(folder.path(), &["--from", from])?;
        assert!(reported.status.success(), "nobody asked for a verdict on {ratios:?}: {reported:?}");
    }
    Ok(())
}

/// Raw data of rounds in which eBPF reached so much of direct's rate.
fn run(ratios: [f64; ROUNDS]) -> String {
    let machine = json!({
        "kernel": "6.0", "architecture": "any", "processors": 1, "model": "any", "is_virtual": false,
        "memory_gibibytes": 1, "conntrack_maximum": null,
    });
    let sample = |regime, round, rate| {
        json!({
            "measure": "set-up", "case": "outbound IPv4, 1 client", "size": 0, "regime": regime, "round": round,
            "values": { "connections_per_second": rate },
        })
    };
    let rounds = ratios.iter().enumerate().flat_map(|(round, ratio)| {
        [sample("direct", round, 10_000.0), sample("ebpf", round, 10_000.0 * ratio)]
    });
    let lines: Vec<_> = std::iter::once(machine).chain(rounds).map(|line| line.to_string()).collect();
    lines.join("\n")
}

fn bench(folder: &Path, arguments: &[&str]) -> anyhow::Result<Output> {
    let mut bench = Command::new(env!("CARGO_BIN_EXE_interceptor-bench"));
    bench.args(arguments).arg("--output").arg(folder);
    bench.env("INTERCEPTOR", interceptor());
    bench.env("INTERCEPTOR_WORKSPACE", concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    bench.output().context("cannot run the measuring command")
}
