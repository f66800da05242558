//! What is to be done about a call that was decided: functions that the verifier follows by themselves.

use core::ptr;

use interceptor_ebpf::abi::{Address, Role, Target, Workload};

use super::{call::Call, context::IPPROTO_TCP};

/// Says what is to be done about a call that passes.
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn let_pass(call: *mut Call) -> u32 {
    // SAFETY: the verifier holds callers to memory of this size, or null.
    let Some(call) = (unsafe { call.as_mut() }) else { return 0 };
    let role = if call.foreign == 0 { Role::DIRECT } else { Role::IMPERSONATING };
    blank(&mut call.record);
    call.record.role = role;
    call.record.bound_here = call.bound_by_us;
    call.rewrites = 0;
    // The kernel keeps an address that was bound for an earlier connection, and would use it.
    call.binds = u32::from(call.bound_by_us != 0 && call.bound.port == 0);
    blank(&mut call.binding);
    0
}

/// Says what is to be done about a call that is redirected.
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn redirect_call(call: *mut Call) -> u32 {
    // SAFETY: as above.
    let Some(call) = (unsafe { call.as_mut() }) else { return 0 };
    let rewrites = !call.listener.is_transparent();
    call.rewrites = u32::from(rewrites);
    // On a port bound to the wildcard address the kernel chooses 127.0.0.1 for the target.
    let differs = rewrites && call.bound.address != call.source;
    let binds = differs && call.bound.port == 0 && call.own.is_unspecified() && !call.source.is_unspecified();
    call.binds = u32::from(binds);
    call.binding = call.source;
    call.record.role = Role::REDIRECTED;
    call.record.listener_port = call.target.0.port;
    call.record.listener = call.listener;
    call.record.original = call.original;
    call.record.bound_here = u32::from(binds || call.bound_by_us != 0);
    call.record.alias = if differs && !binds { call.source } else { Address::UNSPECIFIED_V6 };
    0
}

/// Says where a redirected call goes instead.
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn aim_call(call: *mut Call, workload: *const Workload) -> u32 {
    // SAFETY: as above.
    let Some(call) = (unsafe { call.as_mut() }) else { return 0 };
    // SAFETY: as above.
    let Some(workload) = (unsafe { workload.as_ref() }) else { return 0 };
    call.target = if call.protocol == IPPROTO_TCP {
        workload.target(&call.original, call.listener)
    } else {
        // A datagram is not steered, so it goes to the address the listener is at.
        Target(workload.datagram_target(&call.original))
    };
    0
}

/// Writes zeros, word by word: LLVM would call a function for so many, which writes them byte by byte.
#[inline(always)]
pub(super) fn blank<T>(value: &mut T) {
    let words = ptr::from_mut(value).cast::<u32>();
    let mut index = 0;
    while index < size_of::<T>() / size_of::<u32>() {
        // SAFETY: the index is below the number of words, and all of a call consists of words.
        unsafe { words.add(index).write_volatile(0) };
        index += 1;
    }
}
