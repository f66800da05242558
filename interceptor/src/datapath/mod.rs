//! The eBPF data path: the one place that knows bpf(2) and aya.
//!
//! It keeps no process: programs, links and maps are pinned in a folder of bpffs, and what is pinned is in force.

mod adopt;
mod enrol;
mod error;
mod listening;
mod maps;
mod object;
mod rights;
mod state;
mod status;
mod sys;
mod table;

use std::path::PathBuf;

pub use self::{
    enrol::{Change, Enrolment, Outcome, enrol, release, uninstall},
    error::DatapathError,
    state::BPFFS,
    status::{HookStatus, Status, WorkloadStatus, status},
    table::{DNS_PORT, Enforcement, Interfaces, PolicyTable},
};

/// The state folder used unless another is given.
#[must_use]
pub fn default_state_folder() -> PathBuf {
    PathBuf::from(BPFFS).join("interceptor")
}
