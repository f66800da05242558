//! Socket records: what is kept with a socket for its lifetime.

use core::ptr;

use aya_ebpf::{
    bindings::BPF_SK_STORAGE_GET_F_CREATE,
    helpers::generated::{bpf_sk_storage_delete, bpf_sk_storage_get},
};
use interceptor_ebpf::abi::SocketRecord;

use super::{context::Socket, maps::SOCKETS};

/// The record of a socket, if it has one.
#[inline(always)]
pub(crate) fn get(socket: Socket) -> Option<&'static mut SocketRecord> {
    storage(socket, 0)
}

/// Gives a socket a record, in place of the one it may have. False if the kernel has no memory for it.
#[inline(always)]
pub(crate) fn put(socket: Socket, record: &SocketRecord) -> bool {
    let Some(stored) = storage(socket, u64::from(BPF_SK_STORAGE_GET_F_CREATE)) else { return false };
    // Field by field: a whole record would be made on the stack first, which has no room for it.
    let SocketRecord { role, listener_port, listener, original, alias, bound_here } = *record;
    stored.role = role;
    stored.listener_port = listener_port;
    stored.listener = listener;
    stored.original = original;
    stored.alias = alias;
    stored.bound_here = bound_here;
    true
}

/// Removes a socket's record.
#[inline(always)]
pub(crate) fn remove(socket: Socket) {
    // SAFETY: the verifier knows the map and the socket.
    unsafe { bpf_sk_storage_delete(ptr::from_ref(&SOCKETS).cast_mut().cast(), socket.0.cast()) };
}

#[inline(always)]
fn storage(socket: Socket, flags: u64) -> Option<&'static mut SocketRecord> {
    let map = ptr::from_ref(&SOCKETS).cast_mut().cast();
    // SAFETY: the verifier knows the map and the socket; the value lives at least as long as this run.
    unsafe {
        bpf_sk_storage_get(map, socket.0.cast(), ptr::null_mut(), flags).cast::<SocketRecord>().as_mut()
    }
}
