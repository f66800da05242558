//! `interceptor doctor`: is interception working here?

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use interceptor::{doctor, netns::Netns};

use super::output;

/// Examine a workload: what is wrong, why it matters, what to do.
///
/// Changes nothing. Exit code 0 means that nothing was found, 1 that something was.
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
    let findings = doctor::examine(state, &netns)?;
    if args.json {
        output::json(&findings)?;
    } else if findings.is_empty() {
        output::line(format_args!("{}: nothing wrong was found", netns.path().display()))?;
    } else {
        for finding in &findings {
            output::line(format_args!(
                "{}\n  why: {}\n  do:  {}",
                finding.what, finding.why, finding.advice
            ))?;
        }
    }
    Ok(if findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
