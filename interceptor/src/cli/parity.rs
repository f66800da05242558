//! `interceptor parity`: the same connections under two backends, and every difference.

use std::{
    env,
    fs::File,
    io::{self, BufWriter, IsTerminal as _, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{Context as _, ensure};
use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use interceptor::{
    capture::Capture,
    parity::{
        backend::Backend,
        catalogue::{self, Given},
        proxy::ProxyKind,
        random::{self, Draw, Found},
        report::{Report, Verdict},
        runner::Runner,
        scenario::{Scenario, Set},
    },
};

use super::output;

mod given;
mod junit;
mod table;

/// Connections made for a given capture: a minute of them at most.
const MOST_GIVEN: usize = 3_000;

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
    /// Answer for this capture instead: flags of `apply` in one text, or what `import` prints.
    #[arg(long, value_name = "FLAGS", allow_hyphen_values = true, conflicts_with_all = ["set", "netns"])]
    capture: Option<String>,
    /// Answer for the rules that a living pod has; they are read, and the pod is left alone.
    #[arg(long, value_name = "PATH", conflicts_with = "set")]
    netns: Option<PathBuf>,
    /// Draw that many captures at random, each with a few connections, and stop at the first difference.
    #[arg(long, value_name = "NUMBER", conflicts_with_all = ["set", "capture", "netns", "filter", "baseline", "junit"])]
    random: Option<u32>,
    /// Where the random numbers begin; the same seed draws the same captures.
    #[arg(long, value_name = "NUMBER", default_value_t = 1, requires = "random")]
    seed: u64,
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
    /// Write the report to this file as well, as the XML that CI systems read from `JUnit`.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ProxyName {
    /// A small one of our own, which tells everything it sees.
    Builtin,
    /// A real Envoy with Istio's listeners.
    Envoy,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let interceptor = env::current_exe().context("cannot find this program's own file")?;
    let runner = Runner { interceptor, proxy: proxy(args)? };
    if let Some(count) = args.random {
        return search(args, &runner, count);
    }
    let scenarios = select(args)?;
    let backends: Vec<_> = args.baseline.into_iter().chain([args.left, args.right]).collect();
    for backend in &backends {
        runner.try_out(*backend)?;
    }
    // A report that cannot be written is better known now than in some minutes.
    let junit = args
        .junit
        .as_ref()
        .map(|path| File::create(path).with_context(|| format!("cannot write {}", path.display())));
    let junit = junit.transpose()?;
    let progress = progress_bar(scenarios.len() * backends.len(), "runs");
    let runs = runner.run_all(&scenarios, &backends, || progress.inc(1));
    progress.finish_and_clear();

    let report = Report::new(&scenarios, &backends, &runs);
    if let Some(junit) = junit {
        junit::write(&report, BufWriter::new(junit)).context("cannot write the JUnit report")?;
    }
    print(args, &report)?;
    let compared = report.count(|verdict| !matches!(verdict, Verdict::Skipped(_)));
    ensure!(compared > 0, "nothing was compared: every scenario was skipped");
    Ok(if report.objections().next().is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Prints the simplest random case on which the backends differ, if there is one.
fn search(args: &Args, runner: &Runner, count: u32) -> anyhow::Result<ExitCode> {
    let backends = [args.left, args.right];
    for backend in backends {
        runner.try_out(backend)?;
    }
    let progress = progress_bar(count as usize, "cases");
    let draw = Draw { count, seed: args.seed };
    let found = random::search(runner, backends, draw, || progress.inc(1))?;
    progress.finish_and_clear();
    match found {
        Found::Nothing { connections } => {
            output::line(format_args!(
                "{count} captures drawn from seed {}, {connections} connections: {} and {} agree about all",
                args.seed, args.left, args.right
            ))?;
            Ok(ExitCode::SUCCESS)
        }
        Found::Difference(example) => {
            print(args, &example.report)?;
            output::line(format_args!(
                "case {} of seed {}, made as simple as this in {} attempts:\n{}",
                example.case, args.seed, example.attempts, example.scenario.capture
            ))?;
            Ok(ExitCode::FAILURE)
        }
    }
}

fn print(args: &Args, report: &Report) -> anyhow::Result<()> {
    let mut output = io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut output, report)?;
        writeln!(output)?;
    } else {
        write!(output, "{}", table::render(report, io::stdout().is_terminal()))?;
    }
    Ok(())
}

fn proxy(args: &Args) -> anyhow::Result<ProxyKind> {
    match args.proxy {
        ProxyName::Builtin => Ok(ProxyKind::Builtin),
        ProxyName::Envoy => {
            args.envoy.clone().map(ProxyKind::Envoy).context("--proxy envoy needs --envoy PATH")
        }
    }
}

fn select(args: &Args) -> anyhow::Result<Vec<Scenario>> {
    let given = match (&args.capture, &args.netns) {
        (Some(text), _) => Some(given::from_flags(text)?),
        (None, Some(netns)) => Some(given::from_netns(netns)?),
        (None, None) => None,
    };
    let all = match given {
        Some(capture) => of_capture(&capture),
        None => catalogue::all(),
    };
    let filter = &args.filter;
    let wanted = |scenario: &Scenario| {
        if args.set.map_or(scenario.set == Set::Bulk, |set| set != scenario.set) {
            return false;
        }
        let connections = scenario.connections.iter().map(ToString::to_string);
        connections.chain([scenario.name.clone()]).any(|text| text.contains(filter))
    };
    let scenarios: Vec<_> = all.into_iter().filter(wanted).collect();
    ensure!(!scenarios.is_empty(), "no scenario contains {filter:?}: see them all with `interceptor parity`");
    Ok(scenarios)
}

/// Says so where a capture has more connections to try than are made.
fn of_capture(capture: &Capture) -> Vec<Scenario> {
    let Given { scenarios, chosen, all } = catalogue::scenarios_of(capture, MOST_GIVEN);
    if chosen < all {
        output::warning(format_args!(
            "rules of this capture may tell {all} connections apart; {chosen} of them, spread evenly, are tried"
        ));
    }
    scenarios
}

/// Shown on a terminal only: indicatif draws nothing elsewhere.
fn progress_bar(steps: usize, unit: &str) -> ProgressBar {
    let style =
        ProgressStyle::with_template(&format!("{{bar:40.cyan/dim}} {{pos}}/{{len}} {unit} {{elapsed}}"));
    ProgressBar::new(steps as u64).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
