//! `interceptor parity`: the same connections under two backends, and every difference.

use std::{
    env,
    io::{self, IsTerminal as _, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{Context as _, ensure};
use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use interceptor::parity::{
    backend::Backend,
    catalogue,
    proxy::ProxyKind,
    report::Report,
    runner::Runner,
    scenario::{Scenario, Set},
};

mod table;

/// Run every scenario under two backends on this machine, and print where they differ.
///
/// Each scenario gets network namespaces and a cgroup of its own, which are removed afterwards; nothing else on the
/// machine is touched. Exit code 1 means a difference that is not explained.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// Show what happens under this backend as well, without comparing it.
    #[arg(long, value_name = "BACKEND")]
    baseline: Option<Backend>,
    /// The backend to compare with.
    #[arg(long, value_name = "BACKEND", default_value = "iptables-nft")]
    left: Backend,
    /// The backend to compare.
    #[arg(long, value_name = "BACKEND", default_value = "ebpf")]
    right: Backend,
    /// Only this part of the scenarios.
    #[arg(long, value_name = "SET")]
    set: Option<Set>,
    /// Only scenarios whose name or connections contain this text.
    #[arg(long, value_name = "TEXT", default_value = "")]
    filter: String,
    /// The program that is the sidecar proxy.
    #[arg(long, default_value = "builtin")]
    proxy: ProxyName,
    /// Where Envoy is.
    #[arg(long, value_name = "PATH", required_if_eq("proxy", "envoy"))]
    envoy: Option<PathBuf>,
    /// Print the whole report as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ProxyName {
    /// A small one of our own, which tells everything it sees.
    Builtin,
    /// A real Envoy with Istio's listeners.
    Envoy,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let scenarios = select(args.set, &args.filter)?;
    let backends: Vec<_> = args.baseline.into_iter().chain([args.left, args.right]).collect();
    let interceptor = env::current_exe().context("cannot find this program's own file")?;

    let runner = Runner { interceptor, proxy: proxy(args)? };
    for backend in &backends {
        runner.try_out(*backend)?;
    }
    let progress = progress_bar(scenarios.len() * backends.len());
    let runs = runner.run_all(&scenarios, &backends, || progress.inc(1));
    progress.finish_and_clear();

    let report = Report::new(&scenarios, &backends, &runs);
    let mut output = io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut output, &report)?;
        writeln!(output)?;
    } else {
        write!(output, "{}", table::render(&report, io::stdout().is_terminal()))?;
    }
    Ok(if report.objections().next().is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn proxy(args: &Args) -> anyhow::Result<ProxyKind> {
    match args.proxy {
        ProxyName::Builtin => Ok(ProxyKind::Builtin),
        ProxyName::Envoy => {
            args.envoy.clone().map(ProxyKind::Envoy).context("--proxy envoy needs --envoy PATH")
        }
    }
}

fn select(set: Option<Set>, filter: &str) -> anyhow::Result<Vec<Scenario>> {
    let wanted = |scenario: &Scenario| {
        if set.is_some_and(|set| set != scenario.set) {
            return false;
        }
        let connections = scenario.connections.iter().map(ToString::to_string);
        connections.chain([scenario.name.clone()]).any(|text| text.contains(filter))
    };
    let scenarios: Vec<_> = catalogue::all().into_iter().filter(wanted).collect();
    ensure!(!scenarios.is_empty(), "no scenario contains {filter:?}: see them all with `interceptor parity`");
    Ok(scenarios)
}

/// Shown on a terminal only: indicatif draws nothing elsewhere.
fn progress_bar(runs: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:40.cyan/dim} {pos}/{len} runs {elapsed}");
    ProgressBar::new(runs as u64).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
