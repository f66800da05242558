//! Putting one workload under interception, and taking it out.

use super::{CONTROL, Worker};
use crate::{
    agent::{
        changes::{self, NamespaceId},
        keeper::Kept,
        spec::{OnError, WorkloadId, WorkloadSpec},
        store::Place,
    },
    datapath::{self, Change, Enrolment, Listeners},
    netns::Netns,
};

impl Worker {
    /// Puts a workload under interception as its declaration says.
    pub(super) fn enrol(
        &mut self,
        id: &WorkloadId,
        spec: &WorkloadSpec,
        netns: &Netns,
    ) -> Result<(NamespaceId, Kept), String> {
        let cookie = netns.cookie().map_err(|error| error.to_string())?;
        if let Some((other, _)) =
            self.places.iter().find(|(other, place)| place.cookie == cookie && *other != id)
            && self.kept.contains_key(other)
        {
            return Err(format!("its namespace is that of the workload {other} already"));
        }
        // From here changes are heard, so that none falls between looking at the namespace and listening.
        let namespace = changes::name(netns)
            .map_err(|error| format!("cannot follow changes of {}: {error}", netns.path().display()))?;
        let capture = spec.capture(netns).map_err(|error| error.to_string())?;
        let inode = netns.inode().map_err(|error| error.to_string())?;
        let place = Place { cookie, inode, netns: netns.path().to_owned() };
        let before = self.places.get(id).cloned();
        if before.as_ref() != Some(&place) {
            self.store.keep(id, &place).map_err(|error| format!("cannot write the run folder: {error}"))?;
        }
        let outcome = datapath::enrol(
            &Enrolment {
                state: &self.charge.state,
                netns,
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
    /// as that lives. What the control socket enrolled was meant for one namespace, whatever its path leads to by now.
    pub(super) fn open(&self, id: &WorkloadId, spec: &WorkloadSpec) -> Result<Netns, String> {
        let place = self.places.get(id);
        let former = || place.and_then(|place| Netns::find(place.cookie, place.inode, &place.netns));
        let is_of_control =
            self.sources.get(CONTROL).is_some_and(|declared| declared.workloads.contains_key(id));
        let found = spec.open().map_err(|error| error.to_string()).and_then(|netns| {
            let is_another = place.is_some_and(|place| netns.cookie().ok() != Some(place.cookie));
            if is_of_control && is_another {
                Err(format!("{} is not the namespace that was enrolled", netns.path().display()))
            } else {
                Ok(netns)
            }
        });
        found.or_else(|error| former().ok_or(error))
    }

    /// Takes a workload out of interception and forgets it.
    pub(super) fn release(&mut self, id: &WorkloadId) -> Result<(), String> {
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
