//! Where workloads are declared.

use std::{collections::BTreeMap, future::Future};

use super::{
    keeper::Keeper,
    spec::{WorkloadId, WorkloadSpec},
};

/// Everything one source declares at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Declared {
    /// The workloads.
    pub workloads: BTreeMap<WorkloadId, WorkloadSpec>,
    /// Declarations that are there and cannot be understood, with the reason: these workloads stay as they are.
    pub unreadable: BTreeMap<WorkloadId, String>,
}

/// Something that declares workloads: a folder of files, an orchestrator.
///
/// It tells the whole of what it declares each time, never differences, so that a lost event does no harm.
pub trait Source: Send + 'static {
    /// Its name in messages.
    fn name(&self) -> String;

    /// Tells the keeper what is declared, at once and after every change. Ends only when that is no longer possible.
    fn follow(self, keeper: Keeper) -> impl Future<Output = anyhow::Result<()>> + Send;
}
