//! Looking after what is in force, and hearing of namespaces.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{CONTROL, News, TEND_EVERY, Worker};
use crate::{
    agent::spec::WorkloadId,
    datapath::{self, Found},
};

/// How long after the news of a namespace's end its links are looked at once more: the kernel tells of the end first, and
/// detaches them then.
const UNTIL_DETACHED: Duration = Duration::from_millis(100);

impl Worker {
    /// Mends, upgrades and collects what is in force.
    pub(super) fn tend(&mut self) {
        self.tend_at = Instant::now() + TEND_EVERY;
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

    /// Looks at every workload that something was heard of.
    pub(super) fn hear(&mut self, news: &News) {
        let concerned = self.kept.iter().filter(|(_, workload)| news.concerns(workload));
        let concerned: Vec<WorkloadId> = concerned.map(|(id, _)| id.clone()).collect();
        let ended = self.kept.values().filter_map(|workload| workload.namespace);
        let has_ended = ended.filter(|namespace| news.gone.contains(namespace)).count() > 0;
        if has_ended || news.lost {
            self.tend();
        }
        if has_ended {
            self.tend_at = Instant::now() + UNTIL_DETACHED;
        }
        for id in concerned {
            self.shared.view().refreshes += 1;
            self.attempt(&id);
        }
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
}
