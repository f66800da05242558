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
    storage(socket, ptr::null_mut(), 0)
}

/// Gives a socket a record, in place of the one it may have. False if the kernel has no memory for it.
#[inline(always)]
pub(crate) fn put(socket: Socket, record: &SocketRecord) -> bool {
    let mut record = *record;
    match storage(socket, &raw mut record, u64::from(BPF_SK_STORAGE_GET_F_CREATE)) {
        // SAFETY: both are valid for one record and do not overlap. A plain assignment would become a byte loop.
        Some(stored) => unsafe {
            ptr::copy_nonoverlapping(&raw const record, stored, 1);
            true
        },
        None => false,
    }
}

/// Removes a socket's record.
#[inline(always)]
pub(crate) fn remove(socket: Socket) {
    // SAFETY: the verifier knows the map and the socket.
    unsafe { bpf_sk_storage_delete(ptr::from_ref(&SOCKETS).cast_mut().cast(), socket.0.cast()) };
}

#[inline(always)]
fn storage(socket: Socket, initial: *mut SocketRecord, flags: u64) -> Option<&'static mut SocketRecord> {
    let map = ptr::from_ref(&SOCKETS).cast_mut().cast();
    // SAFETY: the verifier knows the map and the socket; the value lives at least as long as this run.
    unsafe { bpf_sk_storage_get(map, socket.0.cast(), initial.cast(), flags).cast::<SocketRecord>().as_mut() }
}
