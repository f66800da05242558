//! The node agent: it keeps many workloads under interception while their networks, captures and programs change.
//!
//! What is in force lives in the kernel and needs no process. The agent compares it with what is declared and changes what
//! differs, at its start and whenever something happens; so it may be killed at any moment, and replaced by another
//! build's. It never flushes.

mod absent;
mod changes;
mod client;
mod control;
mod directory;
mod keeper;
mod metrics;
mod source;
mod spec;
mod store;
mod worker;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::Context as _;
use sd_notify::NotifyState;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};

pub use self::{
    absent::release_without_agent,
    client::{Client, ClientError},
    control::About,
    directory::Directory,
    keeper::{Keeper, Kept},
    source::{Declared, Source},
    spec::{OnError, SpecError, WorkloadId, WorkloadSpec},
    store::Store,
};
use self::{changes::Changes, keeper::Charge, metrics::Observed};
use crate::datapath::Tenure;

/// How an agent runs.
#[derive(Clone, Debug)]
pub struct Options {
    /// The state folder.
    pub state: PathBuf,
    /// The run folder: control socket, and what must be remembered.
    pub run: PathBuf,
    /// Where the hooks are attached if they are not yet; the root of the hierarchy if not given.
    pub cgroup: Option<PathBuf>,
    /// Folders of workload files.
    pub workloads: Vec<PathBuf>,
    /// Where metrics are served; nowhere if not given.
    pub metrics: Option<SocketAddr>,
}

/// The run folder that belongs to a state folder: `/run/` with the last part of its name.
#[must_use]
pub fn default_run_folder(state: &Path) -> PathBuf {
    Path::new("/run").join(state.file_name().unwrap_or_else(|| "interceptor".as_ref()))
}

/// Runs an agent until SIGTERM or SIGINT. What is in force stays in force.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let tenure = Tenure::begin(&options.state)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(serve(options));
    runtime.shutdown_background();
    outcome.and(tenure.end().map_err(Into::into))
}

async fn serve(options: &Options) -> anyhow::Result<()> {
    let sources =
        options.workloads.iter().map(|folder| Directory::new(folder)).collect::<anyhow::Result<Vec<_>>>()?;
    let store = Store::open(&options.run)?;
    let changes = Changes::listen()
        .context("cannot hear of changes in other network namespaces (this needs CAP_NET_BROADCAST)")?;
    let socket = Store::socket(&options.run);
    let listener = control::listen(&socket)?;
    let metrics = match options.metrics {
        Some(address) => Some(metrics::listen(address).await?),
        None => None,
    };
    let charge = Charge {
        state: options.state.clone(),
        cgroup: options.cgroup.clone(),
        sources: sources.iter().map(Source::name).collect(),
    };
    let (keeper, thread) = Keeper::start(charge, store)?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        state = %options.state.display(),
        control = %socket.display(),
        metrics = metrics.as_ref().map(TcpListener::local_addr).transpose()?.map(tracing::field::display),
        "started"
    );

    hear(changes, keeper.clone())?;
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn({
        let (keeper, state) = (keeper.clone(), options.state.clone());
        async move { control::serve(listener, keeper, state).await.context("the control socket failed") }
    });
    if let Some(listener) = metrics {
        let observed = Observed { keeper: keeper.clone(), state: options.state.clone() };
        tasks
            .spawn(async move { metrics::serve(listener, observed).await.context("serving metrics failed") });
    }
    for source in sources {
        let keeper = keeper.clone();
        tasks.spawn(async move {
            let name = source.name();
            source.follow(keeper).await.with_context(|| format!("{name} cannot be followed any more"))
        });
    }
    tasks.spawn(tell_manager(keeper.clone()));
    tasks.spawn(async move {
        let ended = tokio::task::spawn_blocking(move || thread.join()).await?;
        anyhow::ensure!(ended.is_ok(), "the keeper panicked");
        Ok(())
    });

    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let outcome = tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        Some(ended) = tasks.join_next() => ended.context("a part of the agent panicked").flatten(),
    };
    notify(&[NotifyState::Stopping]);
    keeper.stop();
    std::fs::remove_file(&socket).with_context(|| format!("cannot remove {}", socket.display())).and(outcome)
}

/// Carries what is heard of namespaces to the keeper, on a thread of its own.
fn hear(changes: Changes, keeper: Keeper) -> anyhow::Result<()> {
    thread::Builder::new().name("changes".to_owned()).spawn(move || {
        loop {
            match changes.next() {
                Ok(heard) => keeper.heard(heard),
                Err(error) => {
                    tracing::error!("cannot hear of changes in namespaces any more: {error}");
                    return;
                }
            }
        }
    })?;
    Ok(())
}

/// Tells systemd when the agent is ready, and, if it asked for that, that it is alive.
async fn tell_manager(keeper: Keeper) -> anyhow::Result<()> {
    let mut ready = keeper.ready();
    let watchdog = sd_notify::watchdog_enabled();
    let beat = watchdog.map_or(Duration::MAX, |watchdog| watchdog / 2);
    let mut is_ready = false;
    loop {
        if !is_ready && *ready.borrow_and_update() {
            is_ready = true;
            notify(&[NotifyState::Ready]);
            tracing::info!(workloads = keeper.view().workloads.len(), "ready");
        }
        if watchdog.is_some() && keeper.is_alive() {
            notify(&[NotifyState::Watchdog]);
        }
        tokio::select! {
            changed = ready.changed(), if !is_ready => changed.context("the keeper ended")?,
            () = tokio::time::sleep(beat) => {}
        }
    }
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!("cannot notify the service manager: {error}");
    }
}
