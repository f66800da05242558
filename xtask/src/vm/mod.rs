//! `cargo xtask vm`: the behaviour tests on real kernels, in emulated machines.

mod debian;
mod guest;
mod kernels;
mod machine;
mod programs;
mod record;

use std::{
    fs,
    io::{self, Write as _},
    path::PathBuf,
};

use anyhow::{Context as _, Result, bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

pub(crate) use self::kernels::Series;
use self::{
    guest::{Job, Tools},
    kernels::Kernel,
    machine::{Outcome, Qemu, Run},
    programs::Programs,
    record::Entry,
};
use crate::workspace;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only this kernel: a series like 6.12, or `newest`. May be given several times [default: 5.10, 6.1, 6.12, 6.18
    /// and the newest].
    #[arg(long = "kernel", value_name = "SERIES")]
    kernels: Vec<Series>,
    /// Look for newer packages of kernels that were fetched before.
    #[arg(long)]
    refresh: bool,
    /// Boot, probe and load every program, and no more.
    #[arg(long)]
    smoke: bool,
    /// Handed to the test programs: a part of a test's name, `--nocapture`, ... With it, no result is recorded.
    #[arg(last = true)]
    arguments: Vec<String>,
}

/// Where kernels, qemu and tools are kept.
fn folder() -> PathBuf {
    workspace::root().join("target/vm")
}

pub(crate) fn run(options: &Options) -> Result<()> {
    if let Some(obstacle) = debian::obstacle() {
        bail!("kernels cannot be fetched here: {obstacle}");
    }
    let kernels = if options.kernels.is_empty() { Series::matrix() } else { options.kernels.clone() };
    fs::create_dir_all(folder()).with_context(|| format!("cannot make {}", folder().display()))?;
    let progress = progress();
    let lab = Lab {
        qemu: Qemu::fetch(&progress).context("cannot get qemu")?,
        tools: Tools::fetch(&progress).context("cannot get the machines' tools")?,
        programs: Programs::build()?,
        progress,
    };
    let mut failed = Vec::new();
    for series in &kernels {
        let entry = lab.examine(series, options).with_context(|| format!("kernel {series}"));
        lab.progress.set_message("");
        match entry {
            Ok(entry) => {
                say(&entry.sentence())?;
                if !entry.is_good() {
                    failed.push(series.to_string());
                }
                if options.arguments.is_empty() && !options.smoke {
                    record::write(&entry)?;
                }
            }
            Err(error) => {
                say(&format!("{error:#}"))?;
                failed.push(series.to_string());
            }
        }
    }
    ensure!(failed.is_empty(), "not as expected on {}", failed.join(", "));
    Ok(())
}

/// What every machine is made of.
struct Lab {
    qemu: Qemu,
    tools: Tools,
    programs: Programs,
    progress: ProgressBar,
}

impl Lab {
    /// Boots once to see what the kernel offers, and again for everything that then must work.
    fn examine(&self, series: &Series, options: &Options) -> Result<Entry> {
        self.progress.set_message(format!("fetching kernel {series}"));
        let kernel = Kernel::fetch(series, options.refresh, &self.progress)?;
        let first = self.boot(
            &kernel,
            &[Job::new(REPORT, "/t/debug/interceptor probe --json"), Job::new(PROBE, "/t/debug/deps/probe")],
        )?;
        let probe: Value = serde_json::from_str(&outcome(&first, REPORT)?.output)
            .context("the probe printed something else than JSON")?;
        let mut entry = Entry::new(series, &first.kernel, &probe)?;
        entry.add_tests(PROBE, outcome(&first, PROBE)?);
        if options.smoke {
            return Ok(entry);
        }
        let second = self.boot(&kernel, &self.jobs(&entry, &options.arguments))?;
        for test in self.tests() {
            if let Some(outcome) = second.jobs.get(test) {
                entry.add_tests(test, outcome);
            }
        }
        if options.arguments.is_empty() {
            entry.add_scenarios(outcome(&second, PARITY)?)?;
        }
        Ok(entry)
    }

    fn jobs(&self, entry: &Entry, arguments: &[String]) -> Vec<Job> {
        let arguments: Vec<_> = arguments.iter().map(|argument| quoted(argument)).collect();
        let arguments = arguments.join(" ");
        let tests =
            self.programs.tests().map(|test| Job::new(test, &format!("/t/debug/deps/{test} {arguments}")));
        let mut jobs: Vec<_> = tests.collect();
        if arguments.is_empty() {
            // What `auto` takes must be like iptables.
            let right = entry.auto();
            jobs.push(Job::new(PARITY, &format!("/t/debug/interceptor parity --right {right} --json")));
        }
        jobs
    }

    /// Test programs for the second time; the first has had its own.
    fn tests(&self) -> impl Iterator<Item = &str> {
        self.programs.tests().filter(|test| *test != PROBE)
    }

    fn boot(&self, kernel: &Kernel, jobs: &[Job]) -> Result<Run> {
        let archive = tempfile::NamedTempFile::new_in(folder()).context("cannot make the archive")?;
        guest::archive(archive.path(), &self.tools, kernel, &self.programs, jobs)?;
        self.qemu.run(&kernel.image, archive.path(), &self.progress)
    }
}

const REPORT: &str = "report";
const PARITY: &str = "scenarios";
/// The test program that loads everything and holds that against the probe.
const PROBE: &str = "probe";

impl Job {
    fn new(name: &str, command: &str) -> Self {
        Self { name: name.to_owned(), command: command.to_owned() }
    }
}

fn outcome<'r>(run: &'r Run, name: &str) -> Result<&'r Outcome> {
    run.jobs.get(name).with_context(|| format!("{name} was not run"))
}

fn quoted(argument: &str) -> String {
    format!("'{}'", argument.replace('\'', r"'\''"))
}

fn say(line: &str) -> Result<()> {
    writeln!(io::stderr(), "{line}").context("cannot write to standard error")
}

fn progress() -> ProgressBar {
    let progress = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("  {spinner} {elapsed} {wide_msg}") {
        progress.set_style(style);
    }
    progress.enable_steady_tick(std::time::Duration::from_millis(120));
    progress
}
