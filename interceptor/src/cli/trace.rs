//! `interceptor trace`: decisions as they are made.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use humantime::format_rfc3339_millis;
use interceptor::{
    datapath::{Decided, Trace},
    netns::Netns,
};

use signal_hook::consts::{SIGINT, SIGTERM};

use super::output;

/// Print each decision about a connection as it is made, until interrupted.
///
/// A line tells when, in which namespace, who (thread name, process, uid), from where to where, what became of it
/// (`pass`, or the listener: `outbound`, `inbound`, `dns`, or `fail`) and the clause that decided, by the names that
/// `interceptor status` counts. The programs tell nothing while nobody reads; where they are faster than this reader,
/// the number of decisions lost is printed on standard error.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// Only the workload of this network namespace.
    #[arg(long, value_name = "PATH")]
    netns: Option<PathBuf>,
    /// Only calls of this user id, as the initial user namespace numbers it.
    #[arg(long)]
    uid: Option<u32>,
    /// Only connections to this port.
    #[arg(long)]
    port: Option<u16>,
    /// Only decisions by this clause, such as `excluded-port`; may be repeated.
    #[arg(long, value_name = "NAME")]
    reason: Vec<String>,
    /// End after so many decisions.
    #[arg(long, value_name = "NUMBER")]
    count: Option<u64>,
    /// Print a JSON object a line.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, state: &Path) -> anyhow::Result<ExitCode> {
    for name in &args.reason {
        anyhow::ensure!(
            Decided::reasons().any(|reason| reason == name),
            "--reason {name}: no clause has this name; one of {}",
            Decided::reasons().collect::<Vec<_>>().join(", ")
        );
    }
    let workload = args.netns.as_deref().map(|path| anyhow::Ok(Netns::open(path)?.cookie()?)).transpose()?;
    // Interrupted, it says that it reads no more.
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted))?;
    }
    let mut trace = Trace::open(state)?;
    let mut left = args.count.unwrap_or(u64::MAX);
    while left > 0 && !interrupted.load(Ordering::Relaxed) {
        let (decided, lost) = trace.wait()?;
        for decided in decided.iter().filter(|decided| wanted(decided, args, workload)) {
            if left > 0 {
                print(decided, args.json)?;
                left -= 1;
            }
        }
        if lost > 0 {
            output::warning(format_args!("{lost} decisions lost: more were made than could be read"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn wanted(decided: &Decided, args: &Args, workload: Option<u64>) -> bool {
    workload.is_none_or(|workload| decided.workload == workload)
        && args.uid.is_none_or(|uid| decided.user == Some(uid))
        && args.port.is_none_or(|port| decided.port == port)
        && (args.reason.is_empty() || args.reason.iter().any(|name| name == decided.reason))
}

fn print(decided: &Decided, json: bool) -> anyhow::Result<()> {
    if json {
        return output::line(serde_json::to_string(decided)?);
    }
    let command = decided.command.as_deref().unwrap_or("-");
    let number = |number: Option<u32>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
    output::line(format_args!(
        "{} {} {:7} {command}[{}] uid {} {} -> {} {} {}",
        format_rfc3339_millis(decided.time),
        decided.workload,
        decided.point,
        number(decided.process),
        number(decided.user),
        decided.source,
        decided.destination,
        decided.verdict,
        decided.reason
    ))
}
