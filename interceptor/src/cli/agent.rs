//! `interceptor agent`: the node daemon.

use std::{
    io::{self, IsTerminal as _},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::ValueEnum;
use interceptor::{
    agent::{self, Options},
    probe::{Backend, choose},
};
use tracing_subscriber::filter::LevelFilter;

/// Keep many workloads under interception while their networks and captures change.
///
/// Workloads come from folders of files and from the control socket, which `apply`, `release` and the CNI plugin use
/// while an agent runs. Ending the agent changes nothing that is in force; starting it again, in this version or another,
/// takes it over without a gap.
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLE)]
pub(super) struct Args {
    /// A folder with one file a workload, watched; may be given several times.
    #[arg(long = "workloads", value_name = "FOLDER")]
    workloads: Vec<PathBuf>,
    /// The cgroup whose processes are intercepted [default: the root of the cgroup v2 hierarchy].
    #[arg(long, value_name = "PATH")]
    cgroup: Option<PathBuf>,
    /// Where /metrics, /healthz and /readyz are served: an address, or `off`.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:15033")]
    metrics: Metrics,
    /// How much is logged.
    #[arg(long, value_name = "LEVEL", env = "INTERCEPTOR_LOG", default_value = "info")]
    log_level: Level,
    /// How it is logged.
    #[arg(long, value_name = "FORMAT", env = "INTERCEPTOR_LOG_FORMAT", default_value = "text")]
    log_format: Format,
}

const EXAMPLE: &str = "A workload file, /etc/interceptor/workloads/web.toml:
  netns = \"/run/netns/web\"       # or pid = 4711, or cgroup = \"/sys/fs/cgroup/...\"
  [capture]                      # the long flags of `interceptor apply`
  istio-service-cidr = \"*\"
  istio-inbound-ports = \"*\"";

#[derive(Clone, Copy, Debug)]
struct Metrics(Option<SocketAddr>);

impl std::str::FromStr for Metrics {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self(None)),
            address => address.parse().map(|address| Self(Some(address))).map_err(|_| {
                "write an address and a port, as 127.0.0.1:15033 or [::1]:15033, or off".to_owned()
            }),
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Level {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

pub(super) fn run(args: &Args, state: &Path, run: &Path) -> anyhow::Result<ExitCode> {
    log_to_stderr(args);
    // Every workload it will ever be given needs this.
    choose(state, &[Backend::Ebpf])?;
    agent::run(&Options {
        state: state.to_owned(),
        run: run.to_owned(),
        cgroup: args.cgroup.clone(),
        workloads: args.workloads.clone(),
        metrics: args.metrics.0,
    })?;
    Ok(ExitCode::SUCCESS)
}

fn log_to_stderr(args: &Args) {
    let level = match args.log_level {
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
        Level::Trace => LevelFilter::TRACE,
    };
    let log = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    match args.log_format {
        Format::Text => log.init(),
        Format::Json => log.json().init(),
    }
}
