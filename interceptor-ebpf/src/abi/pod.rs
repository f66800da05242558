//! Leave for userspace to copy these types in and out of maps byte by byte.

use super::{
    Address, Counters, Endpoint, Entry, EntryKey, Event, Flow, Label, ListenerKey, Pending, Resolver,
    SocketRecord, Workload,
};

macro_rules! plain_data {
    ($($type:ty),+ $(,)?) => {
        $(
            // SAFETY: `repr(C)`, made of integers only, and without padding (its size is asserted beside it).
            unsafe impl aya::Pod for $type {}
        )+
    };
}

plain_data!(
    Address,
    Counters,
    Endpoint,
    Entry,
    EntryKey,
    Event,
    Flow,
    Label,
    ListenerKey,
    Pending,
    Resolver,
    SocketRecord,
    Workload
);
