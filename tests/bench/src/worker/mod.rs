//! Processes that do the measured work: this command again, with its hidden subcommand `worker`, in a namespace and a
//! cgroup of a world.

mod calls;
mod client;
mod clock;
mod hold;
pub(crate) mod protocol;
mod server;
mod socket;

use std::{os::fd::OwnedFd, path::Path, process::Stdio, sync::PoisonError, time::Duration};

use anyhow::Context as _;
use interceptor::parity::{
    actor::Owner,
    exchange::{Exchange, answer},
    plan::Place,
    world::World,
};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, to_value};

use self::{protocol::Request, server::Server};

/// What a worker is started with.
#[derive(clap::Args, Debug)]
pub(crate) struct WorkerArgs {
    /// Processors it may run on.
    #[arg(long, value_delimiter = ',', required = true)]
    processors: Vec<usize>,
}

/// The measuring command's end of a worker. The process ends when its standard input is closed, so at the latest with
/// this.
pub(crate) struct Worker(Exchange);

impl Worker {
    /// Starts a worker in a place of a world.
    pub(crate) fn start(
        world: &World,
        interceptor: &Path,
        place: Place,
        owner: Owner,
        processors: &[usize],
    ) -> anyhow::Result<Self> {
        let this = std::env::current_exe().context("cannot find this program's own file")?;
        let mut command = world.command(interceptor, place, owner, this)?;
        let processors: Vec<_> = processors.iter().map(ToString::to_string).collect();
        command.args(["worker", "--processors", &processors.join(",")]);
        let child = world.spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()))?;
        let mut child = child.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Self(Exchange::with(&mut child)?))
    }

    /// Asks for one thing and waits for the answer, whose type the request's documentation names.
    pub(crate) fn ask<T: DeserializeOwned>(&mut self, request: &Request) -> anyhow::Result<T> {
        self.0.ask(request)
    }
}

/// The inside of a worker: answers requests until standard input ends.
pub(crate) fn work(args: &WorkerArgs) -> anyhow::Result<()> {
    let mut processors = CpuSet::new();
    for processor in &args.processors {
        processors.set(*processor)?;
    }
    sched_setaffinity(Pid::from_raw(0), &processors)
        .with_context(|| format!("cannot run on processors {:?}", args.processors))?;

    let mut state = State::default();
    answer(|request| state.handle(request))
}

#[derive(Default)]
struct State {
    server: Server,
    held: Vec<OwnedFd>,
}

impl State {
    fn handle(&mut self, request: Request) -> anyhow::Result<Value> {
        let reply = match request {
            Request::Serve { address, threads } => to_value(self.server.serve(address, threads)?),
            Request::Served => to_value(self.server.served()?),
            Request::Connect(plan) => to_value(client::connect(&plan)?),
            Request::RoundTrips { target, bytes, milliseconds } => {
                to_value(client::round_trips(target, bytes, Duration::from_millis(milliseconds))?)
            }
            Request::Stream { target, bytes } => to_value(client::stream(target, bytes)?),
            Request::Hold { targets, count } => to_value(hold::hold(&mut self.held, &targets, count)?),
            Request::Calls { address, milliseconds } => {
                to_value(calls::calls(address, Duration::from_millis(milliseconds))?)
            }
        };
        Ok(reply?)
    }
}
