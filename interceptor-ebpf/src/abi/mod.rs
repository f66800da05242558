//! Map keys and values, as kernel and userspace both read them.
//!
//! Every type is `repr(C)` without implicit padding and with its size asserted, so that the bytes in a map are the
//! bytes of the type. Addresses are in network byte order, everything else is in host order.

mod address;
mod flow;
mod label;
#[cfg(not(target_arch = "bpf"))]
mod pod;
mod policy_table;
mod socket;
mod trace;
mod workload;

pub use self::{
    address::{Address, Endpoint, OriginalDestination, SPREAD_V6, Target},
    flow::{Flow, Listener, ListenerKey, Pending, Resolver},
    label::Label,
    policy_table::{Entry, EntryKey, EntryWords, Marks, Subject},
    socket::{Role, SocketRecord},
    trace::{Event, Point, TRACING_LOST, TRACING_UNTIL},
    workload::{Counters, Switches, Workload},
};

/// Version of the layouts in this module. It names the folder the maps are pinned in, so that two versions never
/// read each other's bytes.
pub const VERSION: u32 = 1;

/// Sockets kept for one listener of a workload.
///
/// A proxy may listen with one socket a worker (`SO_REUSEPORT`). Any living one leads to its whole group, so a few are
/// enough; more than one is kept because an entry vanishes with its own socket though siblings go on listening.
pub const LISTENER_SLOTS: u32 = 16;

/// Asserts at compile time that a map type has the size userspace and kernel agreed on.
macro_rules! assert_size {
    ($type:ty, $bytes:literal) => {
        const _: () = assert!(size_of::<$type>() == $bytes);
    };
}
use assert_size;
