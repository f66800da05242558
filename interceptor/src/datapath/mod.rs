//! The eBPF data path: the one place that knows bpf(2) and aya.
//!
//! It keeps no process: programs, links and maps are pinned in a folder of bpffs, and what is pinned is in force.

mod adopt;
mod attach;
mod collect;
mod enrol;
mod error;
mod gauges;
mod listening;
mod maps;
mod marked;
mod neighbours;
mod object;
mod rehearsal;
mod release;
mod repair;
mod rights;
mod state;
mod status;
mod sys;
mod table;
mod tenure;
mod trace;
pub(crate) mod trial;
mod upgrade;
mod view;

use std::path::PathBuf;

pub use self::{
    collect::{Found, Tended, tend},
    enrol::{Change, Enrolment, Listeners, Outcome, check_reach, enrol},
    error::DatapathError,
    gauges::{Gauges, ListenerGauge, MapGauge, gauges},
    neighbours::{Neighbour, folder_of, neighbours},
    rehearsal::{Loading, rehearse},
    release::{release, release_cookie, uninstall},
    state::BPFFS,
    status::{HookStatus, Status, WorkloadStatus, enforced, status},
    table::{DNS_PORT, Enforcement, Interfaces, PolicyTable},
    tenure::Tenure,
    trace::{Decided, Trace},
    upgrade::Verified,
};

/// The state folder used unless another is given.
#[must_use]
pub fn default_state_folder() -> PathBuf {
    PathBuf::from(BPFFS).join("interceptor")
}
