//! What the keeper's thread does.

mod enrol;
mod requests;
mod settle;
mod tend;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use super::{
    changes::{Heard, NamespaceId},
    keeper::{Charge, Command, Shared},
    source::Declared,
    spec::{WorkloadId, WorkloadSpec},
    store::{Place, Store},
};
use crate::datapath::Verified;

/// The source of workloads enrolled by the control socket.
const CONTROL: &str = "the control socket";

/// How often everything in force is looked after without a reason: namespaces enrolled by `apply` before the agent began
/// to run may have no id here, so that nobody tells of their end.
const TEND_EVERY: Duration = Duration::from_secs(60);

pub(super) struct Worker {
    charge: Charge,
    store: Store,
    shared: Arc<Shared>,
    verified: Verified,
    sources: BTreeMap<String, Declared>,
    /// Where the workloads are that this agent, or one before it, put under interception.
    places: BTreeMap<WorkloadId, Place>,
    kept: BTreeMap<WorkloadId, Workload>,
    /// When to look after what is in force.
    tend_at: Instant,
}

/// A declared workload.
struct Workload {
    spec: WorkloadSpec,
    namespace: Option<NamespaceId>,
    /// When to try again, and how long to wait after that.
    retry: Option<(Instant, Duration)>,
}

/// What was heard of namespaces since the last look, each once.
#[derive(Default)]
struct News {
    changed: BTreeSet<NamespaceId>,
    gone: BTreeSet<NamespaceId>,
    lost: bool,
}

impl Worker {
    pub(super) fn new(charge: Charge, store: Store, shared: Arc<Shared>) -> anyhow::Result<Self> {
        Ok(Self {
            places: store.places()?,
            sources: BTreeMap::from([(CONTROL.to_owned(), store.declared()?)]),
            verified: Verified::default(),
            kept: BTreeMap::new(),
            tend_at: Instant::now() + TEND_EVERY,
            charge,
            store,
            shared,
        })
    }

    /// Works until told to stop, or until nobody is left to tell anything.
    pub(super) fn work(mut self, told: &mpsc::Receiver<Command>) {
        self.busy(Self::tend);
        self.busy(Self::settle);
        while let Some(command) = self.next(told) {
            let (mut settle, mut news) = (command.is_none(), News::default());
            // What came meanwhile is taken together, so that a burst of changes is one.
            for command in command.into_iter().chain(told.try_iter()) {
                match command {
                    Command::Stop => return,
                    Command::Heard(heard) => news.add(heard),
                    Command::Declare(source, declared) => {
                        self.sources.insert(source, declared);
                        settle = true;
                    }
                    // Whoever asked may be gone; what was asked is done all the same.
                    Command::Enrol(id, spec, reply) => {
                        let _gone = reply.send(self.busy(|worker| worker.enrol_for_control(&id, *spec)));
                    }
                    Command::Release(id, reply) => {
                        let _gone = reply.send(self.busy(|worker| worker.release_for_control(&id)));
                    }
                }
            }
            self.busy(|worker| worker.hear(&news));
            if self.tend_at <= Instant::now() {
                self.busy(Self::tend);
            }
            if settle {
                self.busy(Self::settle);
            }
        }
    }

    /// The next command; an empty one when it is time to do something again. None when nobody is left.
    #[expect(clippy::option_option, reason = "no command and no more commands are two things")]
    fn next(&self, told: &mpsc::Receiver<Command>) -> Option<Option<Command>> {
        let retries = self.kept.values().filter_map(|workload| workload.retry).map(|(at, _)| at);
        let at = retries.chain([self.tend_at]).min().unwrap_or(self.tend_at);
        match told.recv_timeout(at.saturating_duration_since(Instant::now())) {
            Ok(command) => Some(Some(command)),
            Err(mpsc::RecvTimeoutError::Timeout) => Some(None),
            Err(mpsc::RecvTimeoutError::Disconnected) => None,
        }
    }

    /// Runs a step, visibly.
    fn busy<T>(&mut self, step: impl FnOnce(&mut Self) -> T) -> T {
        self.shared.view().busy_since = Some(Instant::now());
        let result = step(self);
        self.shared.view().busy_since = None;
        result
    }
}

impl News {
    fn add(&mut self, heard: Heard) {
        match heard {
            Heard::Changed(namespace) => drop(self.changed.insert(namespace)),
            Heard::Gone(namespace) => drop(self.gone.insert(namespace)),
            Heard::Lost => self.lost = true,
        }
    }

    fn concerns(&self, workload: &Workload) -> bool {
        let named = |namespace| self.changed.contains(&namespace) || self.gone.contains(&namespace);
        self.lost || workload.namespace.is_some_and(named)
    }
}
