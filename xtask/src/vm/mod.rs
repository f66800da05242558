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
    programs::{NAT, PROBE, Programs},
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
    /// Handed to the test programs: a part of a test's name, `--nocapture`, ... With it, what they say is shown and no
    /// result is recorded.
    #[arg(last = true)]
    arguments: Vec<String>,
}

/// Where kernels, qemu and tools are kept.
fn folder() -> PathBuf {
    workspace::root().join("target/vm")
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let kernels = if options.kernels.is_empty() { Series::matrix() } else { options.kernels.clone() };
    let progress = progress();
    let machines = Machines::fetch(&progress)?;
    let programs = if options.smoke { Programs::build_probe()? } else { Programs::build()? };
    let lab = Lab { machines, programs, progress };
    let mut failed = Vec::new();
    for series in &kernels {
        let entry = Kernel::fetch(series, options.refresh, &lab.progress)
            .and_then(|kernel| lab.examine(series, &kernel, options))
            .with_context(|| format!("kernel {series}"));
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

/// Boots one kernel and loads every program on it, if it and qemu can be had here; else says why not.
pub(crate) fn smoke() -> Result<()> {
    let series = Series::smoke();
    let progress = progress();
    let fetched = Machines::fetch(&progress)
        .and_then(|machines| Ok((machines, Kernel::fetch(&series, false, &progress)?)));
    let (machines, kernel) = match fetched {
        Ok(fetched) => fetched,
        Err(error) => return say(&format!("skipped: no kernel {series} is booted, {error:#}")),
    };
    let lab = Lab { machines, programs: Programs::build_probe()?, progress };
    let options = Options { kernels: Vec::new(), refresh: false, smoke: true, arguments: Vec::new() };
    let entry = lab.examine(&series, &kernel, &options).with_context(|| format!("kernel {series}"))?;
    say(&entry.sentence())?;
    ensure!(entry.is_good(), "not as expected on {series}");
    Ok(())
}

/// What machines are made of, but for kernels.
struct Machines {
    qemu: Qemu,
    tools: Tools,
}

impl Machines {
    fn fetch(progress: &ProgressBar) -> Result<Self> {
        if let Some(obstacle) = debian::obstacle() {
            bail!("kernels cannot be fetched here: {obstacle}");
        }
        fs::create_dir_all(folder()).with_context(|| format!("cannot make {}", folder().display()))?;
        let qemu = Qemu::fetch(progress).context("cannot get qemu")?;
        Ok(Self { qemu, tools: Tools::fetch(progress).context("cannot get the machines' tools")? })
    }
}

/// Machines, and the programs that run in them.
struct Lab {
    machines: Machines,
    programs: Programs,
    progress: ProgressBar,
}

impl Lab {
    /// Boots once to see what the kernel offers, and again for everything that then must work.
    fn examine(&self, series: &Series, kernel: &Kernel, options: &Options) -> Result<Entry> {
        let first = self.boot(
            kernel,
            &[
                Job::new(REPORT, "/t/debug/interceptor probe --json"),
                Job::new(PROBE, &format!("/t/debug/deps/probe {}", quoted(&options.arguments))),
            ],
        )?;
        let probe: Value = serde_json::from_str(&outcome(&first, REPORT)?.output)
            .context("the probe printed something else than JSON")?;
        let mut entry = Entry::new(series, &first.kernel, &probe)?;
        entry.add_tests(PROBE, outcome(&first, PROBE)?);
        if !options.arguments.is_empty() {
            say(&outcome(&first, PROBE)?.output)?;
        }
        if options.smoke {
            return Ok(entry);
        }
        let jobs = self.jobs(&entry, &options.arguments);
        let second = self.boot(kernel, &jobs)?;
        for job in &jobs {
            let outcome = outcome(&second, &job.name)?;
            if job.name.starts_with(COMPARED) {
                entry.add_scenarios(outcome);
            } else {
                entry.add_tests(&job.name, outcome);
            }
            if !options.arguments.is_empty() {
                say(&outcome.output)?;
            }
        }
        Ok(entry)
    }

    fn jobs(&self, entry: &Entry, arguments: &[String]) -> Vec<Job> {
        // The first machine has run the probe's own.
        let mut left_out: Vec<_> = if arguments.is_empty() { NOT_OF_KERNELS.to_vec() } else { Vec::new() };
        left_out.push(PROBE);
        let tests = self.programs.tests().filter(|test| !left_out.contains(test));
        let tests = tests.filter(|test| entry.auto() == EBPF || WITHOUT_EBPF.contains(test));
        let filter = |test: &str| match test {
            _ if !arguments.is_empty() => quoted(arguments),
            NAT => LOADING.to_owned(),
            COMPARISON if entry.auto() == EBPF => format!("--skip {SCENARIOS}"),
            _ => String::new(),
        };
        let mut jobs: Vec<_> =
            tests.map(|test| Job::new(test, &format!("/t/debug/deps/{test} {}", filter(test)))).collect();
        if arguments.is_empty() {
            // What `auto` takes must be like iptables.
            let right = entry.auto();
            let compare = |set| format!("/t/debug/interceptor parity --set {set} --right {right} --json");
            jobs.extend(SETS.map(|set| Job::new(&format!("{COMPARED}{set}"), &compare(set))));
        }
        jobs
    }

    fn boot(&self, kernel: &Kernel, jobs: &[Job]) -> Result<Run> {
        let names: Vec<_> = jobs.iter().map(|job| job.name.as_str()).collect();
        say(&format!("booting {} for {}", kernel.image.display(), names.join(", ")))?;
        let archive = tempfile::NamedTempFile::new_in(folder()).context("cannot make the archive")?;
        guest::archive(archive.path(), &self.machines.tools, kernel, &self.programs, jobs)?;
        self.machines.qemu.run(&kernel.image, archive.path(), &self.progress)
    }
}

const REPORT: &str = "report";
/// Long loads, and what asks our own code alone: nothing a kernel could be different in.
const NOT_OF_KERNELS: [&str; 9] =
    ["churn", "cni", "control", "flags", "interrupt", "istio_errors", "scale", "short_lived", "stress"];
/// Begins the names of jobs that compare scenarios.
const COMPARED: &str = "scenarios-";
/// Scenarios to compare: every row of Istio's rules in every family, and datagrams. TPROXY has a test of its own, and boundaries
/// of lists, streams of bytes and programs of others ask nothing of the kernel that these do not.
const SETS: [&str; 3] = ["injected", "families", "dns"];
const EBPF: &str = "ebpf";
/// Test programs with something to show where the eBPF data path cannot run; what they cannot show there, they skip.
const WITHOUT_EBPF: [&str; 5] = [PROBE, NAT, "bad_input", "broken", COMPARISON];
/// The test program about comparisons, and those of its tests that run all scenarios, which is done anyway.
const COMPARISON: &str = "parity";
const SCENARIOS: &str = "_is_like_iptables";
/// Those tests of nat rules that ask the kernel; the others ask our own code, or files that are not inside.
const LOADING: &str = "loading::";

impl Job {
    fn new(name: &str, command: &str) -> Self {
        Self { name: name.to_owned(), command: command.to_owned() }
    }
}

fn outcome<'r>(run: &'r Run, name: &str) -> Result<&'r Outcome> {
    run.jobs.get(name).with_context(|| format!("{name} was not run"))
}

/// Words for the shell.
fn quoted(arguments: &[String]) -> String {
    let quoted = arguments.iter().map(|argument| format!("'{}'", argument.replace('\'', r"'\''")));
    quoted.collect::<Vec<_>>().join(" ")
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
