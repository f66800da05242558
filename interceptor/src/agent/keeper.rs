//! The one place from which the agent changes anything: a thread that makes what is in force equal to what is declared.

use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use tokio::sync::{oneshot, watch};

use super::{
    changes::Heard,
    source::Declared,
    spec::{WorkloadId, WorkloadSpec},
    store::Store,
    worker::Worker,
};

/// How long one step may take before the keeper counts as stuck.
const STUCK_AFTER: Duration = Duration::from_secs(60);

/// What the keeper works on.
#[derive(Clone, Debug)]
pub struct Charge {
    /// The state folder.
    pub state: PathBuf,
    /// Where the hooks are attached if they are not yet; the root of the hierarchy if not given.
    pub cgroup: Option<PathBuf>,
    /// Names of the sources that will declare workloads. Nothing is released before each was heard once.
    pub sources: Vec<String>,
}

/// A workload the agent keeps, as it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Its name.
    pub id: WorkloadId,
    /// What declared it.
    pub source: String,
    /// Path its namespace was last opened by.
    pub netns: Option<PathBuf>,
    /// Cookie of its namespace, once it was enrolled.
    pub cookie: Option<u64>,
    /// The declaration in force; none before it was enrolled.
    pub spec: Option<WorkloadSpec>,
    /// Why it is not enrolled as declared; none if it is.
    pub fault: Option<String>,
    /// What its operator should know.
    pub warnings: Vec<String>,
}

/// Everything others see of the keeper.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// The workloads.
    pub workloads: BTreeMap<WorkloadId, Kept>,
    /// How often a workload was enrolled or changed.
    pub enrolments: u64,
    /// How often that failed.
    pub failures: u64,
    /// How often a workload's namespace was looked at again because its network had changed.
    pub refreshes: u64,
    /// Programs replaced by this build's.
    pub upgrades: u64,
    /// Workloads removed because their namespace was gone.
    pub collected: u64,
    /// Since when the keeper works on its present step; none while it waits.
    pub busy_since: Option<Instant>,
}

/// What the keeper is told.
pub(super) enum Command {
    Declare(String, Declared),
    Enrol(WorkloadId, Box<WorkloadSpec>, oneshot::Sender<Result<Kept, Refusal>>),
    Release(WorkloadId, oneshot::Sender<Result<(), Refusal>>),
    Heard(Heard),
    Stop,
}

/// Why a request by the control socket was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no such workload.
    #[error("the agent keeps no workload {0}")]
    Unknown(WorkloadId),
    /// Another source declares it.
    #[error("{0} is declared by {1}: change it there")]
    Elsewhere(WorkloadId, String),
    /// It could not be done.
    #[error("{0}")]
    Failed(String),
    /// The agent is ending.
    #[error("the agent is ending")]
    Ending,
}

/// A handle on the keeper's thread.
#[derive(Clone, Debug)]
pub struct Keeper {
    commands: mpsc::Sender<Command>,
    shared: Arc<Shared>,
}

/// What the thread and its handles share.
#[derive(Debug)]
pub(super) struct Shared {
    view: Mutex<View>,
    /// Whether everything declared at the start was tried once.
    pub(super) ready: watch::Sender<bool>,
}

impl Keeper {
    /// Starts the thread.
    pub fn start(charge: Charge, store: Store) -> anyhow::Result<(Self, thread::JoinHandle<()>)> {
        let (commands, told) = mpsc::channel();
        let shared = Arc::new(Shared { view: Mutex::default(), ready: watch::Sender::new(false) });
        let worker = Worker::new(charge, store, Arc::clone(&shared))?;
        let thread = thread::Builder::new().name("keeper".to_owned()).spawn(move || worker.work(&told))?;
        Ok((Self { commands, shared }, thread))
    }

    /// Tells everything a source declares.
    pub fn declare(&self, source: String, declared: Declared) {
        self.tell(Command::Declare(source, declared));
    }

    /// Tells what was heard of a namespace.
    pub(super) fn heard(&self, heard: Heard) {
        self.tell(Command::Heard(heard));
    }

    /// Ends the thread after what it is doing. Interception goes on.
    pub fn stop(&self) {
        self.tell(Command::Stop);
    }

    /// Enrols or changes a workload, remembers it, and returns when it is in force.
    pub async fn enrol(&self, id: WorkloadId, spec: WorkloadSpec) -> Result<Kept, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.tell(Command::Enrol(id, Box::new(spec), reply));
        answer.await.unwrap_or(Err(Refusal::Ending))
    }

    /// Releases a workload that was enrolled by [`Keeper::enrol`], and forgets it.
    pub async fn release(&self, id: WorkloadId) -> Result<(), Refusal> {
        let (reply, answer) = oneshot::channel();
        self.tell(Command::Release(id, reply));
        answer.await.unwrap_or(Err(Refusal::Ending))
    }

    /// What there is to see.
    #[must_use]
    pub fn view(&self) -> View {
        self.shared.view().clone()
    }

    /// Changes to true once everything declared at the start was tried.
    #[must_use]
    pub fn ready(&self) -> watch::Receiver<bool> {
        self.shared.ready.subscribe()
    }

    /// Whether the keeper still gets on.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.shared.view().busy_since.is_none_or(|since| since.elapsed() < STUCK_AFTER)
    }

    fn tell(&self, command: Command) {
        // A keeper that ended takes the agent with it; who waits for an answer gets `Ending`.
        let _ended = self.commands.send(command);
    }
}

impl Kept {
    /// A workload that was not tried yet.
    pub(super) fn new(id: &WorkloadId, source: &str) -> Self {
        Self {
            id: id.clone(),
            source: source.to_owned(),
            netns: None,
            cookie: None,
            spec: None,
            fault: None,
            warnings: Vec::new(),
        }
    }
}

impl Shared {
    pub(super) fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self::Failed(format!("cannot write the run folder: {error}"))
    }
}
