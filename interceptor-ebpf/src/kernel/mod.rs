//! What the hooks share: maps, typed contexts, sockets' records, counters.

pub(crate) mod context;
pub(crate) mod count;
pub(crate) mod maps;
pub(crate) mod records;
pub(crate) mod tables;
