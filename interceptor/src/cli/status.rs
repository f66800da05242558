//! `interceptor status`: what is in force.

use std::{path::Path, process::ExitCode};

use comfy_table::{Table, presets::NOTHING};
use interceptor::datapath::{self, HookStatus, Status, WorkloadStatus};

use super::output;

/// Show the hooks, the workloads under interception, and their connections by reason.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, state: &Path) -> anyhow::Result<ExitCode> {
    let status = datapath::status(state)?;
    if args.json {
        output::json(&status)?;
    } else {
        show(&status)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn show(status: &Status) -> anyhow::Result<()> {
    if status.hooks.is_empty() {
        return output::line(format_args!("nothing is installed under {}", status.state.display()));
    }
    output::line(hooks(&status.hooks))?;
    output::line(format_args!("\nredirected connections not yet accepted: {}", status.pending))?;
    for workload in &status.workloads {
        output::line(format_args!("\n{}", headline(workload)))?;
        if !workload.connections.is_empty() {
            output::line(connections(workload))?;
        }
    }
    Ok(())
}

fn hooks(hooks: &[HookStatus]) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(["HOOK", "ATTACHED", "CGROUP", "LINK", "PROGRAM"]);
    let id = |id: Option<u64>| id.map_or_else(|| "-".to_owned(), |id| id.to_string());
    for hook in hooks {
        let attached = if hook.attached { "yes" } else { "NO" };
        table.add_row([
            hook.name.to_owned(),
            attached.to_owned(),
            id(hook.cgroup),
            id(hook.link.map(u64::from)),
            id(hook.program.map(u64::from)),
        ]);
    }
    table
}

fn headline(workload: &WorkloadStatus) -> String {
    let proxy = workload.proxy_user.map_or_else(String::new, |user| format!(", proxy uid {user}"));
    let steered = if workload.steered { "" } else { "; ITS NAMESPACE IS GONE" };
    format!(
        "{} (cookie {}): outbound to {}, inbound to {}{proxy}{steered}",
        workload.netns, workload.cookie, workload.outbound_port, workload.inbound_port
    )
}

fn connections(workload: &WorkloadStatus) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(["CONNECTIONS", "REASON"]);
    for connection in &workload.connections {
        table.add_row([connection.count.to_string(), connection.reason.to_owned()]);
    }
    table
}
