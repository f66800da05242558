//! `interceptor release` and `uninstall`: undo.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use interceptor::{
    agent::{Client, WorkloadId},
    datapath::{self, DatapathError},
    netns::Netns,
};

use super::{backend, output, remote};

/// Take a network namespace out of interception.
///
/// Connections already redirected go on, but for IPv6 ones: the addresses they were spread to are no longer local.
///
/// Also removes nat rules of Istio, whichever release or configuration they are from.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// The workload's network namespace [default: the caller's own].
    #[arg(long, visible_alias = "network-namespace", value_name = "PATH", env = "NETWORK_NAMESPACE")]
    netns: Option<PathBuf>,
}

/// Take every workload out of interception and remove all programs, maps and folders.
#[derive(clap::Args, Debug)]
pub(super) struct UninstallArgs;

pub(super) fn run(args: &Args, state: &Path, run: &Path) -> anyhow::Result<ExitCode> {
    let netns = match &args.netns {
        Some(path) => Netns::open(path)?,
        None => Netns::current()?,
    };
    let had_rules = backend::remove_rules(&netns)?;
    match kept_by_agent(&netns, state, run)? {
        Some((agent, id)) => agent.release(&id)?,
        None => match datapath::release(state, &netns) {
            // A workload under nat rules is not known to the data path.
            Err(DatapathError::NotEnrolled { .. }) if had_rules => {}
            outcome => outcome?,
        },
    }
    output::line(format_args!("{}: no longer under interception", netns.path().display()))?;
    Ok(ExitCode::SUCCESS)
}

/// The agent that keeps the workload, if one does: it would enrol it again.
fn kept_by_agent(netns: &Netns, state: &Path, run: &Path) -> anyhow::Result<Option<(Client, WorkloadId)>> {
    let Some(agent) = Client::find(run, state)? else { return Ok(None) };
    Ok(remote::find(&agent, netns)?.map(|kept| (agent, kept.id)))
}

pub(super) fn uninstall(state: &Path) -> anyhow::Result<ExitCode> {
    if datapath::uninstall(state)? {
        output::line(format_args!("removed everything under {}", state.display()))?;
    } else {
        output::line(format_args!("nothing is installed under {}", state.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}
