//! What the hooks share: maps, typed contexts, sockets' records, counters.

pub(crate) mod call;
pub(crate) mod context;
pub(crate) mod count;
pub(crate) mod forget;
pub(crate) mod maps;
pub(crate) mod outcome;
pub(crate) mod records;
pub(crate) mod tables;
pub(crate) mod trace;
