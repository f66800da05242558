//! `interceptor apply`: put a workload under interception.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::ValueEnum;
use interceptor::{
    capture::{Capture, CaptureArgs, Detected},
    datapath::{Change, Enrolment, enrol},
    netns::Netns,
    probe::Backend,
};

use super::{
    backend::{self, BackendArgs, Plan},
    output,
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

/// What becomes of a connection that cannot be redirected.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum OnError {
    /// It fails, with an error of its own.
    Closed,
    /// It passes without the proxy.
    Bypass,
}

pub(super) fn run(args: &Args, state: &Path) -> anyhow::Result<ExitCode> {
    let netns = match &args.netns {
        Some(path) => Netns::open(path)?,
        None => Netns::current()?,
    };
    let detected = netns.run(Detected::here)??;
    let plan = args.backend.plan(&detected)?;
    let validation = args.validation.settle(&detected);
    if plan.cleanup_only && !plan.dry_run && !validation.skips_apply {
        validation.forgo("nothing is left to validate after --cleanup-only");
        let removed =
            if backend::remove_rules(&netns)? { "rules of Istio removed" } else { "no rules of Istio" };
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
        enforce(args, state, &netns, &capture, &plan)?;
    }
    validation.run(&netns, &capture)
}

fn enforce(args: &Args, state: &Path, netns: &Netns, capture: &Capture, plan: &Plan) -> anyhow::Result<()> {
    let chosen = plan.backend(state, capture)?;
    if chosen != Backend::Ebpf {
        let done = backend::load(chosen, netns, capture, plan)?;
        return output::line(format_args!("{}: {done}", netns.path().display()));
    }
    let outcome = enrol(&Enrolment {
        state,
        netns,
        cgroup: args.cgroup.as_deref(),
        capture,
        spread: !args.no_spread,
        bypass_on_error: matches!(args.on_error, OnError::Bypass),
    })?;
    for shortfall in &outcome.shortfalls {
        output::warning(shortfall);
    }
    output::line(format_args!("{}: {}", netns.path().display(), sentence(outcome.change, capture)))
}

fn sentence(change: Change, capture: &Capture) -> String {
    let what = match change {
        Change::New => "under interception",
        Change::Changed => "interception changed",
        Change::None => "under interception already, nothing changed",
    };
    format!("{what} (outbound to port {}, inbound to port {})", capture.outbound_port, capture.inbound_port)
}
