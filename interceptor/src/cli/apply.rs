//! `interceptor apply`: put a workload under interception.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use interceptor::{
    agent::{Client, OnError, WorkloadSpec},
    capture::{Capture, CaptureArgs, Detected},
    datapath::{Change, Enrolment, Listeners, Verified, enrol},
    netns::Netns,
    probe::Backend,
};

use super::{
    backend::{self, BackendArgs, Plan},
    output, remote,
    validation::ValidationArgs,
};

/// Put a network namespace under interception, or change what is intercepted.
///
/// Takes the flags and environment of istio-iptables. Running it again with the same flags changes nothing; with
/// others, new connections follow the new flags from one moment to the next and old ones go on.
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    capture: CaptureArgs,
    #[command(flatten)]
    backend: BackendArgs,
    #[command(flatten)]
    validation: ValidationArgs,
    /// The workload's network namespace [default: the caller's own].
    #[arg(long, visible_alias = "network-namespace", value_name = "PATH", env = "NETWORK_NAMESPACE")]
    netns: Option<PathBuf>,
    /// The cgroup whose processes are intercepted [default: the root of the cgroup v2 hierarchy].
    #[arg(long, value_name = "PATH")]
    cgroup: Option<PathBuf>,
    /// Send every redirected connection to 127.0.0.1 itself, not spread over addresses of their own.
    #[arg(long)]
    no_spread: bool,
    /// What becomes of a connection that cannot be redirected.
    #[arg(long, value_name = "WHAT", default_value = "closed")]
    on_error: OnError,
}

const EXAMPLES: &str = "Examples:
  What an injected pod gets:
    interceptor apply --netns /run/netns/pod -i '*' -b '*' -d 15090,15021,15020
  Only two destinations outbound, nothing inbound:
    interceptor apply --netns /proc/4711/ns/net -i 10.0.0.0/8,192.168.7.0/24";

pub(super) fn run(args: &Args, state: &Path, run: &Path) -> anyhow::Result<ExitCode> {
    let netns = match &args.netns {
        Some(path) => Netns::open(path)?,
        None => Netns::current()?,
    };
    let detected = netns.run(Detected::here)??;
    let plan = args.backend.plan(&detected)?;
    let validation = args.validation.settle(&detected);
    if plan.cleanup_only && !plan.dry_run && !validation.skips_apply {
        validation.forgo("nothing is left to validate after --cleanup-only");
        let removed = if plan.clean_up(&netns)? { "rules of Istio removed" } else { "no rules of Istio" };
        output::line(format_args!("{}: {removed}", netns.path().display()))?;
        return Ok(ExitCode::SUCCESS);
    }
    let capture = args.capture.capture(&detected)?;
    for warning in args.capture.warnings(&detected)? {
        output::warning(warning);
    }
    if validation.skips_apply {
        output::line(format_args!("{}: left as it is (--skip-rule-apply)", netns.path().display()))?;
    } else if plan.dry_run {
        validation.forgo("--dry-run only prints");
        plan.print_rules(&capture)?;
        return Ok(ExitCode::SUCCESS);
    } else {
        let place = Place { state, run, netns: &netns, detected: &detected };
        enforce(args, &place, &capture, &plan)?;
    }
    validation.run(&netns, &capture)
}

/// Where a capture is enforced.
struct Place<'a> {
    state: &'a Path,
    run: &'a Path,
    netns: &'a Netns,
    detected: &'a Detected,
}

fn enforce(args: &Args, place: &Place<'_>, capture: &Capture, plan: &Plan) -> anyhow::Result<()> {
    let Place { state, run, netns, detected } = *place;
    let chosen = plan.backend(state, capture)?;
    if chosen != Backend::Ebpf {
        let done = backend::load(chosen, netns, capture, plan)?;
        return output::line(format_args!("{}: {done}", netns.path().display()));
    }
    if let Some(agent) = Client::find(run, state)? {
        return by_agent(args, &agent, netns, detected);
    }
    let enrolment = Enrolment {
        state,
        netns,
        cgroup: args.cgroup.as_deref(),
        capture,
        spread: !args.no_spread,
        bypass_on_error: args.on_error == OnError::Bypass,
        listeners: Listeners::Search,
    };
    let outcome = enrol(&enrolment, &mut Verified::default())?;
    for shortfall in &outcome.shortfalls {
        output::warning(shortfall);
    }
    output::line(format_args!("{}: {}", netns.path().display(), sentence(outcome.change, capture)))
}

/// Has the agent enrol the workload, so that it also follows the namespace's routes from now on.
fn by_agent(args: &Args, agent: &Client, netns: &Netns, detected: &Detected) -> anyhow::Result<()> {
    if args.cgroup.is_some() {
        output::warning("--cgroup is ignored: the running agent has attached the hooks");
    }
    let kept = remote::find(agent, netns)?;
    let id = match kept {
        Some(kept) => kept.id,
        None => remote::id(netns)?,
    };
    let spec = WorkloadSpec {
        netns: Some(remote::lasting_path(netns)),
        capture: args.capture.gathered(detected)?,
        no_spread: args.no_spread,
        on_error: args.on_error,
        ..WorkloadSpec::default()
    };
    for warning in agent.enrol(&id, &spec)?.warnings {
        output::warning(warning);
    }
    output::line(format_args!("{}: under interception, kept by the agent as {id}", netns.path().display()))
}

fn sentence(change: Change, capture: &Capture) -> String {
    let what = match change {
        Change::New => "under interception",
        Change::Changed => "interception changed",
        Change::None => "under interception already, nothing changed",
    };
    format!("{what} (outbound to port {}, inbound to port {})", capture.outbound_port, capture.inbound_port)
}
