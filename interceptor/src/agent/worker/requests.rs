//! What the control socket asks for.

use super::{CONTROL, Worker, Workload};
use crate::agent::{
    keeper::{Kept, Refusal},
    spec::{WorkloadId, WorkloadSpec},
};

impl Worker {
    pub(super) fn enrol_for_control(&mut self, id: &WorkloadId, spec: WorkloadSpec) -> Result<Kept, Refusal> {
        self.refuse_foreign(id)?;
        let known = self.places.contains_key(id);
        let netns = spec.open().map_err(|error| Refusal::Failed(error.to_string()));
        let done = netns.and_then(|netns| self.enrol(id, &spec, &netns).map_err(Refusal::Failed));
        let done = done.and_then(|(namespace, kept)| {
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

    pub(super) fn release_for_control(&mut self, id: &WorkloadId) -> Result<(), Refusal> {
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
}
