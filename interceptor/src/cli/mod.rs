//! The command line.

mod actor;
mod agent;
mod apply;
mod backend;
mod doctor;
mod duration;
mod explain;
mod generate;
mod import;
mod output;
mod parity;
mod probe;
mod release;
mod remote;
mod rules;
mod status;
mod trace;
mod validation;

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{CommandFactory as _, Parser, Subcommand};
use interceptor::{
    agent::default_run_folder,
    capture::{Capture, CaptureArgs, CaptureError, Detected},
    cgroup::CgroupError,
    cni,
    datapath::{self, DatapathError},
    netns::{Netns, NetnsError},
};

/// Transparent interception of a workload's traffic for a sidecar proxy.
///
/// A workload is a network namespace. Its connections reach the proxy as under Istio's iptables rules, but by eBPF
/// programs at the socket: no conntrack entry, no rule per packet. The programs stay in force without a process, until
/// `release` or `uninstall`.
///
/// Exit codes: 0 done, 1 failed, 2 wrong usage, 126 interception does not work (`apply --run-validation`).
#[derive(Parser, Debug)]
#[command(version)]
struct Cli {
    /// Folder of a bpffs that holds everything that is in force.
    #[arg(long, global = true, value_name = "FOLDER", default_value_os_t = datapath::default_state_folder())]
    state_dir: PathBuf,
    /// Folder of the agent's control socket [default: /run/ and the last part of --state-dir].
    #[arg(long, global = true, value_name = "FOLDER")]
    run_dir: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    Apply(Box<apply::Args>),
    Agent(agent::Args),
    /// Be a CNI plugin, as a container runtime calls it; so is the command under the name interceptor-cni.
    Cni,
    Generate(generate::Args),
    Release(release::Args),
    Uninstall(release::UninstallArgs),
    Status(status::Args),
    Trace(trace::Args),
    Rules(Box<rules::Args>),
    Explain(Box<explain::Args>),
    Import(import::Args),
    Probe(probe::Args),
    Doctor(doctor::Args),
    Parity(parity::Args),
    #[command(hide = true)]
    Actor(actor::ActorArgs),
    #[command(hide = true)]
    Enter(actor::EnterArgs),
}

pub(crate) fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().collect();
    if is_called_as(&words, cni::PLUGIN_NAME) {
        return cni::main();
    }
    let as_istio = is_called_as(&words, "istio-iptables");
    let cli = match Cli::try_parse_from(command_line(words, as_istio)) {
        Ok(cli) => cli,
        Err(message) => {
            // With standard output or error closed there is nobody left to tell.
            let _unheard = message.print();
            return if message.use_stderr() { wrong_usage(as_istio) } else { ExitCode::SUCCESS };
        }
    };
    let state = cli.state_dir.as_path();
    let run = cli.run_dir.unwrap_or_else(|| default_run_folder(state));
    let run = run.as_path();
    let outcome = match cli.command {
        Command::Apply(args) => apply::run(&args, state, run),
        Command::Agent(args) => agent::run(&args, state, run),
        Command::Cni => return cni::main(),
        Command::Generate(args) => generate::run(&args, &mut Cli::command()),
        Command::Release(args) => release::run(&args, state, run),
        Command::Uninstall(_) => release::uninstall(state),
        Command::Status(args) => status::run(&args, state),
        Command::Trace(args) => trace::run(&args, state),
        Command::Rules(args) => rules::run(&args),
        Command::Explain(args) => explain::run(&args, state, run),
        Command::Import(args) => import::run(&args),
        Command::Doctor(args) => doctor::run(&args, state),
        Command::Probe(args) => probe::run(&args, state),
        Command::Parity(args) => parity::run(&args),
        Command::Actor(args) => actor::act(&args),
        Command::Enter(args) => actor::enter(&args),
    };
    outcome.unwrap_or_else(|error| {
        output::error(&error);
        if is_usage(&error) { wrong_usage(as_istio) } else { ExitCode::FAILURE }
    })
}

/// istio-iptables ends with 1 whatever is wrong.
fn wrong_usage(as_istio: bool) -> ExitCode {
    if as_istio { ExitCode::FAILURE } else { ExitCode::from(2) }
}

fn is_called_as(words: &[OsString], program: &str) -> bool {
    words.first().and_then(|path| Path::new(path).file_name()).is_some_and(|name| name == program)
}

/// Called as `istio-iptables`, the program is `interceptor apply`.
fn command_line(mut words: Vec<OsString>, as_istio: bool) -> Vec<OsString> {
    if as_istio {
        words.insert(1, "apply".into());
    }
    words
}

/// The capture that flags, environment and namespace make; tells the operator of settings without effect.
fn capture(args: &CaptureArgs, netns: Option<&Path>) -> anyhow::Result<Capture> {
    let detected = match netns {
        Some(path) => Netns::open(path)?.run(Detected::here)??,
        None => Detected::here()?,
    };
    let capture = args.capture(&detected)?;
    for warning in args.warnings(&detected)? {
        output::warning(warning);
    }
    Ok(capture)
}

/// Whether the error lies in what was typed rather than in what happened: a path that names something else, a value
/// nothing could enforce.
fn is_usage(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.downcast_ref::<CaptureError>().is_some_and(CaptureError::is_usage)
            || matches!(
                cause.downcast_ref::<DatapathError>(),
                Some(
                    DatapathError::Netns(NetnsError::NotOne { .. })
                        | DatapathError::Cgroup(CgroupError::NotOne { .. })
                )
            )
            || matches!(cause.downcast_ref::<NetnsError>(), Some(NetnsError::NotOne { .. }))
    })
}
