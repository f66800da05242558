//! What can be done for an agent that does not run.

use std::path::Path;

use anyhow::Context as _;

use super::{spec::WorkloadId, store::Store};
use crate::{datapath, netns::Netns};

/// Releases a workload that was enrolled by the control socket, and forgets it, so that the next agent does not enrol it
/// again. It is no error if there is none.
pub fn release_without_agent(
    run: &Path,
    state: &Path,
    id: &WorkloadId,
    netns: Option<&Path>,
) -> anyhow::Result<()> {
    let place = Store::place(run, id)?;
    // A namespace that cannot be opened is gone, and what it was is in the run folder.
    let cookie = place.map(|place| place.cookie).or_else(|| Netns::open(netns?).ok()?.cookie().ok());
    if let Some(cookie) = cookie {
        datapath::release_cookie(state, cookie)?;
    }
    Store::forget(run, id)
        .and_then(|()| Store::lose(run, id))
        .with_context(|| format!("cannot write {}", run.display()))
}
