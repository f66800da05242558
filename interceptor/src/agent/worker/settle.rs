//! Making what is kept equal to what is declared.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use super::{Worker, Workload};
use crate::agent::{
    keeper::Kept,
    spec::{WorkloadId, WorkloadSpec},
};

const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(10);

impl Worker {
    /// Makes what is kept equal to what is declared.
    pub(super) fn settle(&mut self) {
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
    pub(super) fn attempt(&mut self, id: &WorkloadId) {
        self.shared.view().busy_since = Some(Instant::now());
        let Some(workload) = self.kept.get(id) else { return };
        let (spec, last) = (workload.spec.clone(), workload.retry);
        let outcome = self.open(id, &spec).and_then(|netns| self.enrol(id, &spec, &netns));
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
}
