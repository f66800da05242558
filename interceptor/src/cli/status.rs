//! `interceptor status`: what is in force.

use std::{fmt::Write as _, path::Path, process::ExitCode};

use comfy_table::{Table, presets::NOTHING};
use interceptor::datapath::{self, HookStatus, Status, WorkloadStatus};

use super::output;

/// Show the hooks, the workloads under interception, and their connections by reason.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Show what the verifier followed in each program, and connections as `iptables -L -v` shows packets.
    #[arg(short, long)]
    verbose: bool,
}

pub(super) fn run(args: &Args, state: &Path) -> anyhow::Result<ExitCode> {
    let status = datapath::status(state)?;
    if args.json {
        output::json(&status)?;
    } else {
        show(&status, args.verbose)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn show(status: &Status, verbose: bool) -> anyhow::Result<()> {
    if status.hooks.is_empty() {
        return output::line(format_args!("nothing is installed under {}", status.state.display()));
    }
    output::line(if verbose { programs(status) } else { hooks(&status.hooks) })?;
    output::line(format_args!("\nredirected connections not yet accepted: {}", status.pending))?;
    for workload in &status.workloads {
        if verbose {
            output::text(&chain(workload))?;
            continue;
        }
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

/// What the verifier followed in each program: its limit is a million instructions.
fn programs(status: &Status) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(["PROGRAM", "ATTACHED", "VERIFIED INSTRUCTIONS"]);
    let number = |count: Option<u32>| count.map_or_else(|| "-".to_owned(), |count| count.to_string());
    for hook in &status.hooks {
        let attached = if hook.attached { "yes" } else { "NO" };
        table.add_row([hook.name.to_owned(), attached.to_owned(), number(hook.verified_instructions)]);
    }
    let steered = status.workloads.iter().filter(|workload| workload.steered).count();
    table.add_row(["steer".to_owned(), format!("{steered} times"), number(status.steering_instructions)]);
    table
}

/// A workload's connections in the form of `iptables -t nat -L -v -n`: a rule is a clause, and what nat would count as a
/// rule's first packets is a connection here.
fn chain(workload: &WorkloadStatus) -> String {
    let total: u64 = workload.connections.iter().map(|connection| connection.count).sum();
    let mut text = format!(
        "\nChain {} (cookie {}, {total} connections)\n conns target     reason\n",
        workload.netns, workload.cookie
    );
    for connection in &workload.connections {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{:6} {:10} {}", connection.count, connection.target, connection.reason);
    }
    text
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
