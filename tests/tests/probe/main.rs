//! What `interceptor probe` says, held against what the kernel then does.

mod backends;
mod choice;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::{self, Command},
};

use anyhow::{Context as _, ensure};
use interceptor::datapath::{self, BPFFS};
use interceptor_tests::interceptor;
use serde_json::Value;

fn probe() -> anyhow::Result<Value> {
    let output = Command::new(interceptor()).args(["probe", "--json"]).output()?;
    ensure!(output.stderr.is_empty(), "probe complains: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).context("probe --json is no JSON")
}

fn rows(report: &Value) -> anyhow::Result<&Vec<Value>> {
    report["rows"].as_array().context("the report has no rows")
}

/// No program loads where the probe said no, none is refused where it said yes.
#[test]
fn every_program_loads_exactly_where_the_probe_says_so() -> anyhow::Result<()> {
    let report = probe()?;
    let mut predicted = BTreeMap::new();
    for row in rows(&report)? {
        for program in row["programs"].as_array().context("a row names programs")? {
            let program = program.as_str().context("a program is a name")?;
            let lacking: &mut Vec<_> = predicted.entry(program).or_default();
            if row["present"] != "yes" {
                lacking.push(row["name"].as_str().unwrap_or_default());
            }
        }
    }

    let folder = Path::new(BPFFS).join(format!("interceptor-rehearsal-{}", process::id()));
    let loadings = datapath::rehearse(&folder)?;
    assert!(!folder.exists(), "the rehearsal left {} behind", folder.display());

    let loaded: BTreeSet<_> = loadings.iter().map(|loading| loading.program).collect();
    assert_eq!(loaded, predicted.keys().copied().collect(), "the probe knows other programs");
    for loading in &loadings {
        let lacking = &predicted[loading.program];
        match &loading.outcome {
            Ok(steps) => {
                interceptor_tests::tell(format_args!("{}: {steps:?} steps of the verifier", loading.program));
                assert!(lacking.is_empty(), "{} loads without {lacking:?}", loading.program);
                // The limit is a million, and every kernel follows other ways: Linux 6.1 six times as many as 6.18.
                assert!(
                    steps.is_none_or(|steps| steps < 250_000),
                    "{} takes {steps:?} steps",
                    loading.program
                );
            }
            Err(error) => assert!(!lacking.is_empty(), "{} is refused, unforeseen: {error}", loading.program),
        }
    }
    Ok(())
}

/// Whether there is a feature, by its name.
fn is_present(report: &Value, name: &str) -> anyhow::Result<bool> {
    let row = rows(report)?.iter().find(|row| row["name"] == name);
    Ok(row.with_context(|| format!("there is no row {name}"))?["present"] == "yes")
}

/// A kernel that runs every program gets the eBPF backend, any other one of the others.
#[test]
fn auto_takes_ebpf_exactly_where_every_program_loads() -> anyhow::Result<()> {
    let folder = Path::new(BPFFS).join(format!("interceptor-choice-{}", process::id()));
    let runs_all = datapath::rehearse(&folder)?.iter().all(|loading| loading.outcome.is_ok());
    let report = probe()?;
    let choice = &report["auto"]["takes"];
    assert_eq!(choice["backend"] == "ebpf", runs_all, "{choice:#}");
    if !runs_all {
        let decider = choice["decided_by"].as_str().context("a fallback has a reason")?;
        let row = rows(&report)?.iter().find(|row| row["name"] == decider).context("the reason is a row")?;
        assert_eq!(row["present"], "no", "{row:#}");
    }
    Ok(())
}

/// Nothing is mounted, pinned or loaded by looking.
#[test]
fn probing_changes_nothing() -> anyhow::Result<()> {
    let state = || -> anyhow::Result<[String; 2]> {
        // A kernel with everything built in lists no modules.
        let modules = fs::read_to_string("/proc/modules").unwrap_or_default();
        let names = modules.lines().filter_map(|line| line.split(' ').next()).collect::<Vec<_>>().join(" ");
        Ok([names, fs::read_to_string("/proc/self/mountinfo")?])
    };
    let before = state()?;
    probe()?;
    assert_eq!(state()?, before);
    Ok(())
}

/// Whoever may do nothing is told what could not be found out, not that it is missing.
#[test]
fn without_rights_the_kernels_rows_are_unknown() -> anyhow::Result<()> {
    use std::os::unix::process::CommandExt as _;
    let file = fs::File::open(interceptor())?;
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
    nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty()))?;
    let output = Command::new(path).args(["probe", "--json"]).uid(1000).gid(1000).output()?;
    let report: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("no JSON: {}", String::from_utf8_lossy(&output.stderr)))?;
    assert_eq!(output.status.code(), Some(1));
    let row = |name: &str| rows(&report).ok()?.iter().find(|row| row["name"] == name).cloned();
    assert_eq!(row("CAP_BPF").context("there is a row")?["present"], "no");
    let connect = row("cgroup/connect4").context("there is a row")?;
    assert_eq!(connect["present"], "unknown");
    assert!(connect["detail"].as_str().is_some_and(|detail| detail.contains("CAP_BPF")), "{connect}");
    let sentence = report["auto"]["takes-nothing"]["sentence"].as_str().context("there is a sentence")?;
    assert!(sentence.contains("CAP_BPF") && sentence.contains("CAP_NET_ADMIN"), "{sentence}");
    Ok(())
}
