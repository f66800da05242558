//! `interceptor explain`: what becomes of a connection, by which clause of the policy and by which nat rule.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, bail};
use interceptor::{
    agent::{Client, WorkloadId},
    capture::CaptureArgs,
    explain::{Explanation, Question},
};

use super::output;

/// Tell what becomes of a connection, and why.
///
/// Prints the verdict of the policy that runs in the kernel and its reason, and the nat rules that say the same.
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    capture: CaptureArgs,
    #[command(flatten)]
    question: Question,
    /// A workload that the running agent keeps: its capture counts, and not the flags.
    #[arg(long, value_name = "NAME")]
    workload: Option<WorkloadId>,
    /// The network namespace whose addresses tell whether IPv6 is used [default: the caller's own].
    #[arg(long, value_name = "PATH")]
    netns: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "Examples:
  An application calls a service:
    interceptor explain -i '*' -b '*' --ipv6 off --uid 1000 --dst 10.96.0.1:443
  The proxy calls its own pod:
    interceptor explain -i '*' -b '*' --ipv6 off --uid 1337 --src 10.1.0.5 --dst 10.1.0.5:8080
  The same of a workload that the agent keeps:
    interceptor explain --workload web --uid 1337 --src 10.1.0.5 --dst 10.1.0.5:8080";

pub(super) fn run(args: &Args, state: &Path, run: &Path) -> anyhow::Result<ExitCode> {
    let explanation = match &args.workload {
        Some(id) => {
            let agent = Client::find(run, state)?;
            let agent = agent.with_context(|| format!("no agent runs that could know the workload {id}"))?;
            agent.explain(id, &args.question)?
        }
        None => Explanation::of(&super::capture(&args.capture, args.netns.as_deref())?, &args.question)?,
    };
    if args.json {
        output::json(&explanation)?;
    } else {
        show(&explanation)?;
    }
    if let Some(contradiction) = &explanation.contradiction {
        bail!(
            "the nat rules say otherwise: {contradiction}; this is an error in interceptor, please report it"
        );
    }
    Ok(ExitCode::SUCCESS)
}

fn show(explanation: &Explanation) -> anyhow::Result<()> {
    let Explanation { connection, verdict, reason, rules, contradiction: _ } = explanation;
    output::line(format_args!("connection  {connection}"))?;
    output::line(format_args!("verdict     {verdict}"))?;
    output::line(format_args!("reason      {reason}"))?;
    if rules.is_empty() {
        return output::line("nat rule    none: it reaches the end of the rules");
    }
    for (place, rule) in rules.iter().enumerate() {
        output::line(format_args!("{:<11} {rule}", if place == 0 { "nat rules" } else { "" }))?;
    }
    Ok(())
}
