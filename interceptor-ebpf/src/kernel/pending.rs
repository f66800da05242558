//! Redirected connections between SYN and accept.

use aya_ebpf::bindings::BPF_ANY;
use interceptor_ebpf::abi::{Endpoint, Flow, Listener, OriginalDestination, Pending, Target};

use super::maps::PENDING;

/// A name that no connection has, since no namespace has the cookie 0.
static NOBODY: Flow = Flow { workload: 0, client: NOWHERE, target: Target(NOWHERE) };
static NOTHING: Pending = Pending {
    owner: 0,
    original: OriginalDestination::UNKNOWN,
    listener: Listener::NONE,
    alias: NOWHERE.address,
    reserved: [0; 2],
};
const NOWHERE: Endpoint = OriginalDestination::UNKNOWN.0;

/// Whether one more connection can be noted: found out by noting one. Another may still take the last place before the
/// connection in question comes to it, and that one is refused then.
#[inline(always)]
pub(crate) fn has_room() -> bool {
    if PENDING.insert(&NOBODY, &NOTHING, u64::from(BPF_ANY)).is_err() {
        return false;
    }
    let _just_there = PENDING.remove(&NOBODY);
    true
}
