//! `interceptor doctor`: is interception working here?

use std::{
    env,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use interceptor::{
    doctor::{self, Report},
    netns::Netns,
};

use super::output;

/// Examine a workload: what is wrong, why it matters, what to do.
///
/// Makes one connection in each direction, to the discard port of an address of no host or of the workload, and closes it
/// at once; changes nothing. Exit code 0 means that nothing was found, 1 that something was.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// The workload's network namespace [default: the caller's own].
    #[arg(long, value_name = "PATH", env = "NETWORK_NAMESPACE")]
    netns: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, state: &Path) -> anyhow::Result<ExitCode> {
    let netns = match &args.netns {
        Some(path) => Netns::open(path)?,
        None => Netns::current()?,
    };
    let interceptor = env::current_exe().context("cannot find this command's own file")?;
    let report = doctor::examine(state, &netns, &interceptor)?;
    if args.json {
        output::json(&report)?;
    } else {
        show(&report, &netns)?;
    }
    Ok(if report.findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn show(report: &Report, netns: &Netns) -> anyhow::Result<()> {
    if report.findings.is_empty() {
        output::line(format_args!("{}: nothing wrong was found", netns.path().display()))?;
    }
    for finding in &report.findings {
        output::line(format_args!("{}\n  why: {}\n  do:  {}", finding.what, finding.why, finding.advice))?;
    }
    for sentence in &report.unchecked {
        output::line(format_args!("not checked: {sentence}"))?;
    }
    Ok(())
}
