//! The command line, and what it asks for.

use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{Context as _, ensure};
use clap::{Parser, Subcommand, ValueEnum as _};
use interceptor::parity::{
    catalogue::INJECTED,
    plan::Place,
    world::{Layout, World},
};

use crate::{
    bench::{Bench, Effort},
    machine::Machine,
    measures::Measure,
    regime::Regime,
    report::{self, Judged},
    sample::Run,
    worker::WorkerArgs,
};

/// Measure interception by eBPF beside iptables and beside none, and write a page with plots and raw data.
///
/// All regimes take their turns in every round, so that whatever else the machine does falls on all alike. Each has
/// network namespaces and a cgroup of its own, which are removed afterwards; nothing else on the machine is touched.
#[derive(Parser, Debug)]
#[command(name = "cargo xtask bench", args_conflicts_with_subcommands = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) options: Options,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    #[command(hide = true)]
    Worker(WorkerArgs),
}

#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    /// Exit with 1 if a goal is missed by more than the noise of this run.
    #[arg(long)]
    check: bool,
    /// Few, short rounds and small sizes: shows that everything runs, not what it costs.
    #[arg(long)]
    quick: bool,
    /// Take only these measures.
    #[arg(long, value_name = "MEASURE", value_delimiter = ',')]
    only: Vec<Measure>,
    /// Measure only these regimes.
    #[arg(long, value_name = "REGIME", value_delimiter = ',')]
    regimes: Vec<Regime>,
    /// Write the page anew from this raw data, and measure nothing.
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// Folder for page, plots and raw data [default: docs for a whole run, else target/bench].
    #[arg(long, value_name = "FOLDER")]
    output: Option<PathBuf>,
    /// The `interceptor` command.
    #[arg(long, value_name = "PATH", env = "INTERCEPTOR", hide = true)]
    interceptor: PathBuf,
    /// The workspace.
    #[arg(long, value_name = "FOLDER", env = "INTERCEPTOR_WORKSPACE", hide = true)]
    workspace: PathBuf,
}

impl Options {
    /// Measures and writes.
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        let run = match &self.from {
            Some(path) => Run::read(path)?,
            None => self.measure()?,
        };
        let judged = report::judge(&run.samples);
        let folder = self.folder();
        let template = self.workspace.join("docs/benchmarks.md");
        report::write(&folder, &template, &run, &judged)?;
        let mut output = io::stdout().lock();
        write!(output, "{}", report::goals(&judged))?;
        writeln!(output, "wrote {}", folder.join("benchmarks.md").display())?;
        Ok(if self.check { verdict(&judged)? } else { ExitCode::SUCCESS })
    }

    fn measure(&self) -> anyhow::Result<Run> {
        let effort = if self.quick { Effort::quick() } else { Effort::full() };
        let wanted = if self.regimes.is_empty() { &Regime::ALL[..] } else { &self.regimes };
        let regimes = self.working(wanted)?;
        let mut bench = Bench::new(self.interceptor.clone(), effort, regimes)?;
        let measures = if self.only.is_empty() { Measure::value_variants() } else { &self.only };
        for measure in measures {
            measure.take(&mut bench).with_context(|| format!("cannot measure {measure:?}"))?;
        }
        Ok(Run { machine: Machine::here()?, samples: bench.finish() })
    }

    /// The regimes that can be had here; some kernels come without the legacy tables.
    fn working(&self, wanted: &[Regime]) -> anyhow::Result<Vec<Regime>> {
        let mut working = Vec::new();
        for regime in wanted {
            let world = World::build(Layout::default())?;
            match regime.backend().apply(&world, &self.interceptor, Place::Pod, &INJECTED) {
                Ok(()) => working.push(*regime),
                Err(error) if regime.is_nat() => {
                    writeln!(io::stderr(), "leaving {regime} out: {error:#}")?;
                }
                Err(error) => return Err(error),
            }
            world.close()?;
        }
        Ok(working)
    }

    /// Only a whole run replaces what is published.
    fn folder(&self) -> PathBuf {
        let whole = !self.quick && self.only.is_empty() && self.regimes.is_empty();
        let default = || self.workspace.join(if whole { "docs" } else { "target/bench" });
        self.output.clone().unwrap_or_else(default)
    }
}

fn verdict(judged: &[Judged]) -> anyhow::Result<ExitCode> {
    ensure!(!judged.is_empty(), "nothing was measured that a goal speaks of");
    let missed = judged.iter().filter(|goal| goal.is_missed()).count();
    Ok(if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
