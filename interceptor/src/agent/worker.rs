//! What the keeper's thread does.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use super::{
    changes::{self, Heard, NamespaceId},
    keeper::{Charge, Command, Kept, Refusal, Shared},
    source::Declared,
    spec::{OnError, WorkloadId, WorkloadSpec},
    store::{Place, Store},
};
use crate::{
    datapath::{self, Change, Enrolment, Found, Listeners, Verified},
    netns::Netns,
};

/// The source of workloads enrolled by the control socket.
pub(super) const CONTROL: &str = "the control socket";
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(60);

pub(super) struct Worker {
    charge: Charge,
    store: Store,
    shared: Arc<Shared>,
    verified: Verified,
    sources: BTreeMap<String, Declared>,
    /// Where the workloads are that this agent, or one before it, put under interception.
    places: BTreeMap<WorkloadId, Place>,
    kept: BTreeMap<WorkloadId, Workload>,
}

/// A declared workload.
struct Workload {
    spec: WorkloadSpec,
    namespace: Option<NamespaceId>,
    /// When to try again, and how long to wait after that.
    retry: Option<(Instant, Duration)>,
}

impl Worker {
    pub(super) fn new(charge: Charge, store: Store, shared: Arc<Shared>) -> anyhow::Result<Self> {
        let places = store.places()?;
        let sources = BTreeMap::from([(CONTROL.to_owned(), store.declared()?)]);
        let verified = Verified::default();
        Ok(Self { charge, store, shared, verified, sources, places, kept: BTreeMap::new() })
    }

    /// Works until told to stop, or until nobody is left to tell anything.
    pub(super) fn work(mut self, told: &mpsc::Receiver<Command>) {
        self.busy(Self::tend);
        self.busy(Self::settle);
        while let Some(command) = self.next(told) {
            let mut settle = true;
            // What came meanwhile is taken together, so that a burst of changes is one.
            for command in command.into_iter().chain(told.try_iter()) {
                match command {
                    Command::Stop => return,
                    Command::Heard(heard) => self.busy(|worker| worker.heard(heard)),
                    Command::Declare(source, declared) => drop(self.sources.insert(source, declared)),
                    Command::Enrol(id, spec, reply) => {
                        // Whoever asked may be gone; what was asked is done all the same.
                        let _gone = reply.send(self.busy(|worker| worker.enrol_for_control(&id, *spec)));
                        settle = false;
                    }
                    Command::Release(id, reply) => {
                        let _gone = reply.send(self.busy(|worker| worker.release_for_control(&id)));
                        settle = false;
                    }
                }
            }
            if settle {
                self.busy(Self::settle);
            }
        }
    }

    /// The next command; an empty one when it is time to try something again. None when nobody is left.
    #[expect(clippy::option_option, reason = "no command and no more commands are two things")]
    fn next(&self, told: &mpsc::Receiver<Command>) -> Option<Option<Command>> {
        let retry = self.kept.values().filter_map(|workload| workload.retry).map(|(at, _)| at).min();
        match retry {
            None => told.recv().ok().map(Some),
            Some(at) => match told.recv_timeout(at.saturating_duration_since(Instant::now())) {
                Ok(command) => Some(Some(command)),
                Err(mpsc::RecvTimeoutError::Timeout) => Some(None),
                Err(mpsc::RecvTimeoutError::Disconnected) => None,
            },
        }
    }

    /// Runs a step, visibly.
    fn busy<T>(&mut self, step: impl FnOnce(&mut Self) -> T) -> T {
        self.shared.view().busy_since = Some(Instant::now());
        let result = step(self);
        self.shared.view().busy_since = None;
        result
    }

    /// Mends, upgrades and collects what is in force.
    fn tend(&mut self) {
        let shared = Arc::clone(&self.shared);
        let step = |done: usize, all: usize| {
            shared.view().busy_since = Some(Instant::now());
            if all >= 100 && done > 0 && done.is_multiple_of(all / 10) {
                tracing::info!(done, all, "comparing programs in force");
            }
        };
        let tended = match datapath::tend(&self.charge.state, &mut self.verified, step) {
            Ok(tended) => tended,
            Err(error) => return tracing::error!("cannot look after what is in force: {error}"),
        };
        if tended.upgraded > 0 {
            tracing::info!(programs = tended.upgraded, "brought programs up to this version, in place");
        }
        for gone in &tended.gone {
            tracing::info!(
                cookie = gone.workload,
                netns = gone.netns,
                "the namespace is gone, removed its workload"
            );
        }
        for mended in &tended.mended {
            tracing::warn!(
                cookie = mended.workload,
                netns = mended.netns,
                "somebody had removed the link that steers arriving connections, put it back"
            );
        }
        for lost in &tended.lost {
            tracing::error!(
                cookie = lost.workload,
                netns = lost.netns,
                "arriving connections are not steered and the namespace is not where it was: apply or release it"
            );
        }
        self.forget(&tended.gone);
        let mut view = self.shared.view();
        view.upgrades += tended.upgraded as u64;
        view.collected += tended.gone.len() as u64;
    }

    /// Forgets workloads whose namespace is gone. One of a file is tried again, as its path may lead to a new one; one
    /// enrolled by the control socket was meant for that namespace alone.
    fn forget(&mut self, gone: &[Found]) {
        let gone: BTreeSet<u64> = gone.iter().map(|found| found.workload).collect();
        let places = self.places.iter().filter(|(_, place)| gone.contains(&place.cookie));
        let ids: Vec<WorkloadId> = places.map(|(id, _)| id.clone()).collect();
        for id in ids {
            let of_control = self.sources.entry(CONTROL.to_owned()).or_default();
            let forgotten = if of_control.workloads.remove(&id).is_some() {
                self.store.forget_own(&id).map_err(|error| error.to_string()).and_then(|()| self.release(&id))
            } else {
                self.places.remove(&id);
                self.store.drop(&id).map_err(|error| error.to_string())
            };
            if let Err(error) = forgotten {
                tracing::error!(workload = %id, "cannot forget it: {error}");
            }
        }
    }

    fn heard(&mut self, heard: Heard) {
        let concerned = |workload: &Workload| match heard {
            Heard::Changed(namespace) | Heard::Gone(namespace) => workload.namespace == Some(namespace),
            Heard::Lost => true,
        };
        let concerned: Vec<WorkloadId> =
            self.kept.iter().filter(|(_, workload)| concerned(workload)).map(|(id, _)| id.clone()).collect();
        if heard != Heard::Lost && concerned.is_empty() {
            return;
        }
        if !matches!(heard, Heard::Changed(_)) {
            self.tend();
        }
        for id in concerned {
            self.shared.view().refreshes += 1;
            self.attempt(&id);
        }
    }

    /// Makes what is kept equal to what is declared.
    fn settle(&mut self) {
        let heard_all = self.charge.sources.iter().all(|source| self.sources.contains_key(source));
        let declared = self.declared();
        for (id, (source, spec)) in &declared {
            let due = match self.kept.get(id) {
                Some(workload) => {
                    workload.spec != *spec || workload.retry.is_some_and(|(at, _)| at <= Instant::now())
                }
                None => true,
            };
            if due {
                self.keep(id, source, spec);
                self.attempt(id);
            }
        }
        if heard_all {
            let unreadable: BTreeSet<WorkloadId> =
                self.sources.values().flat_map(|source| source.unreadable.keys().cloned()).collect();
            let known = self.kept.keys().chain(self.places.keys());
            let undeclared: BTreeSet<WorkloadId> =
                known.filter(|id| !declared.contains_key(id) && !unreadable.contains(id)).cloned().collect();
            for id in undeclared {
                if let Err(error) = self.release(&id) {
                    tracing::error!(workload = %id, "cannot release it: {error}");
                }
            }
            self.shared.ready.send_replace(true);
        }
    }

    /// Everything declared, with its source. What two sources declare belongs to the first.
    fn declared(&self) -> BTreeMap<WorkloadId, (String, WorkloadSpec)> {
        let mut declared: BTreeMap<WorkloadId, (String, WorkloadSpec)> = BTreeMap::new();
        for (source, of_source) in &self.sources {
            for (id, why) in &of_source.unreadable {
                tracing::error!(workload = %id, source, "{why}; it stays as it is");
            }
            for (id, spec) in &of_source.workloads {
                if let Some((first, _)) = declared.get(id) {
                    tracing::error!(workload = %id, "declared by {first} and by {source}: the first one counts");
                } else {
                    declared.insert(id.clone(), (source.clone(), spec.clone()));
                }
            }
        }
        declared
    }

    fn keep(&mut self, id: &WorkloadId, source: &str, spec: &WorkloadSpec) {
        let workload = Workload { spec: spec.clone(), namespace: None, retry: None };
        self.kept.insert(id.clone(), workload);
        self.shared.view().workloads.entry(id.clone()).or_insert_with(|| Kept::new(id, source));
    }

    /// Tries to enrol a kept workload; if that fails, plans to try again.
    fn attempt(&mut self, id: &WorkloadId) {
        self.shared.view().busy_since = Some(Instant::now());
        let Some(workload) = self.kept.get(id) else { return };
        let (spec, last) = (workload.spec.clone(), workload.retry);
        let outcome = self.enrol(id, &spec);
        let mut view = self.shared.view();
        match outcome {
            Ok((namespace, _)) => {
                if let Some(workload) = self.kept.get_mut(id) {
                    (workload.namespace, workload.retry) = (Some(namespace), None);
                }
            }
            Err(fault) => {
                view.failures += 1;
                let wait = last.map_or(FIRST_RETRY, |(_, wait)| wait);
                if let Some(workload) = self.kept.get_mut(id) {
                    workload.retry = Some((Instant::now() + wait, (wait * 2).min(LAST_RETRY)));
                }
                if let Some(kept) = view.workloads.get_mut(id)
                    && kept.fault.as_ref() != Some(&fault)
                {
                    tracing::error!(workload = %id, "not enrolled: {fault}; trying again");
                    kept.fault = Some(fault);
                }
            }
        }
    }

    /// Puts a workload under interception as its declaration says.
    fn enrol(&mut self, id: &WorkloadId, spec: &WorkloadSpec) -> Result<(NamespaceId, Kept), String> {
        let netns = self.open(id, spec)?;
        let cookie = netns.cookie().map_err(|error| error.to_string())?;
        if let Some((other, _)) =
            self.places.iter().find(|(other, place)| place.cookie == cookie && *other != id)
            && self.kept.contains_key(other)
        {
            return Err(format!("its namespace is that of the workload {other} already"));
        }
        // From here changes are heard, so that none falls between looking at the namespace and listening.
        let namespace = changes::name(&netns)
            .map_err(|error| format!("cannot follow changes of {}: {error}", netns.path().display()))?;
        let capture = spec.capture(&netns).map_err(|error| error.to_string())?;
        let inode = netns.inode().map_err(|error| error.to_string())?;
        let place = Place { cookie, inode, netns: netns.path().to_owned() };
        let before = self.places.get(id).cloned();
        if before.as_ref() != Some(&place) {
            self.store.keep(id, &place).map_err(|error| format!("cannot write the run folder: {error}"))?;
        }
        let outcome = datapath::enrol(
            &Enrolment {
                state: &self.charge.state,
                netns: &netns,
                cgroup: self.charge.cgroup.as_deref(),
                capture: &capture,
                spread: !spec.no_spread,
                bypass_on_error: spec.on_error == OnError::Bypass,
                listeners: Listeners::Known,
            },
            &mut self.verified,
        );
        let outcome = outcome.map_err(|error| error.to_string())?;
        self.places.insert(id.clone(), place);
        if let Some(before) = before.filter(|before| before.cookie != cookie) {
            self.release_cookie(id, before.cookie);
        }
        if outcome.change != Change::None {
            tracing::info!(workload = %id, cookie, netns = %netns.path().display(), change = ?outcome.change, "enrolled");
        }
        let warnings = outcome.shortfalls;
        let mut view = self.shared.view();
        view.enrolments += u64::from(outcome.change != Change::None);
        let kept = view.workloads.entry(id.clone()).or_insert_with(|| Kept::new(id, CONTROL));
        for warning in warnings.iter().filter(|warning| !kept.warnings.contains(warning)) {
            tracing::warn!(workload = %id, "{warning}");
        }
        kept.netns = Some(netns.path().to_owned());
        kept.cookie = Some(cookie);
        kept.spec = Some(spec.clone());
        kept.fault = None;
        kept.warnings = warnings;
        Ok((namespace, kept.clone()))
    }

    /// The workload's namespace: where the declaration says, or, if nothing is there any more, the one it was in, as long
    /// as that lives.
    fn open(&self, id: &WorkloadId, spec: &WorkloadSpec) -> Result<Netns, String> {
        let place = self.places.get(id);
        spec.open().or_else(|error| {
            let former = place.and_then(|place| Netns::find(place.cookie, place.inode, &place.netns));
            former.ok_or_else(|| error.to_string())
        })
    }

    fn enrol_for_control(&mut self, id: &WorkloadId, spec: WorkloadSpec) -> Result<Kept, Refusal> {
        self.refuse_foreign(id)?;
        let known = self.places.contains_key(id);
        let done = self.enrol(id, &spec).map_err(Refusal::Failed).and_then(|(namespace, kept)| {
            self.store.enrol(id, &spec)?;
            Ok((namespace, kept))
        });
        match done {
            Ok((namespace, kept)) => {
                let of_control = self.sources.entry(CONTROL.to_owned()).or_default();
                of_control.workloads.insert(id.clone(), spec.clone());
                self.kept.insert(id.clone(), Workload { spec, namespace: Some(namespace), retry: None });
                Ok(kept)
            }
            Err(refusal) => {
                if !known {
                    // The refusal is what is reported; whatever cannot be undone now, the next start will undo.
                    let _unreported = self.release(id);
                }
                Err(refusal)
            }
        }
    }

    fn release_for_control(&mut self, id: &WorkloadId) -> Result<(), Refusal> {
        self.refuse_foreign(id)?;
        let of_control = self.sources.entry(CONTROL.to_owned()).or_default();
        if of_control.workloads.remove(id).is_none() && !self.places.contains_key(id) {
            return Err(Refusal::Unknown(id.clone()));
        }
        self.store.forget_own(id)?;
        self.release(id).map_err(Refusal::Failed)
    }

    fn refuse_foreign(&self, id: &WorkloadId) -> Result<(), Refusal> {
        let foreign = self.sources.iter().find(|(source, declared)| {
            *source != CONTROL
                && (declared.workloads.contains_key(id) || declared.unreadable.contains_key(id))
        });
        match foreign {
            Some((source, _)) => Err(Refusal::Elsewhere(id.clone(), source.clone())),
            None => Ok(()),
        }
    }

    /// Takes a workload out of interception and forgets it.
    fn release(&mut self, id: &WorkloadId) -> Result<(), String> {
        if let Some(place) = self.places.get(id) {
            datapath::release_cookie(&self.charge.state, place.cookie).map_err(|error| error.to_string())?;
            tracing::info!(workload = %id, cookie = place.cookie, "released");
        }
        self.store.drop(id).map_err(|error| format!("cannot write the run folder: {error}"))?;
        self.places.remove(id);
        self.kept.remove(id);
        self.shared.view().workloads.remove(id);
        Ok(())
    }

    /// Releases the namespace a workload was in before.
    fn release_cookie(&self, id: &WorkloadId, cookie: u64) {
        match datapath::release_cookie(&self.charge.state, cookie) {
            Ok(released) => tracing::info!(workload = %id, cookie, released, "its former namespace"),
            Err(error) => {
                tracing::error!(workload = %id, cookie, "cannot release its former namespace: {error}");
            }
        }
    }
}
