//! Telling `interceptor trace` of decisions, while it reads.

use aya_ebpf::helpers::{
    bpf_get_current_pid_tgid, bpf_get_current_uid_gid, bpf_ktime_get_ns, generated::bpf_get_current_comm,
};
use interceptor_ebpf::abi::{Endpoint, Listener, Point, TRACING_LOST, TRACING_UNTIL};

use super::{
    call::Call,
    context::IPPROTO_TCP,
    maps::{HAS_COMMAND, HAS_PROCESS, TRACE, TRACING},
};

/// A decision to be told.
pub(crate) struct Told<'a> {
    pub(crate) workload: u64,
    pub(crate) source: &'a Endpoint,
    pub(crate) destination: &'a Endpoint,
    pub(crate) reason: u32,
    pub(crate) listener: Listener,
    pub(crate) point: Point,
}

/// Tells what came of a call if somebody reads: a function that the verifier follows by itself.
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn trace_call(call: *const Call, workload: u64, reason: u32) -> u32 {
    // SAFETY: the verifier holds callers to memory of this size, or null.
    let Some(call) = (unsafe { call.as_ref() }) else { return 0 };
    tell(&Told {
        workload,
        source: &Endpoint::new(call.source, call.bound.port),
        destination: &call.original.0,
        reason,
        listener: call.listener,
        point: if call.protocol == IPPROTO_TCP { Point::CONNECT } else { Point::SEND },
    });
    0
}

/// Tells a decision if somebody reads.
#[inline(always)]
pub(crate) fn tell(told: &Told<'_>) {
    let Some(until) = TRACING.get_ptr(TRACING_UNTIL) else { return };
    // SAFETY: one aligned word.
    let until = unsafe { *until };
    if until == 0 {
        return;
    }
    // SAFETY: the helper takes nothing.
    let time = unsafe { bpf_ktime_get_ns() };
    if time > until {
        return;
    }
    let Some(mut entry) = TRACE.reserve(0) else {
        if let Some(lost) = TRACING.get_ptr_mut(TRACING_LOST) {
            // SAFETY: as above; losses on two CPUs at once may count as one.
            unsafe { *lost += 1 };
        }
        return;
    };
    let event = entry.as_mut_ptr();
    let caller = told.point != Point::ARRIVE;
    // SAFETY: the entry is ours and as long as an event; every field is written.
    unsafe {
        (*event).time = time;
        (*event).workload = told.workload;
        (*event).source = *told.source;
        (*event).destination = *told.destination;
        (*event).reason = told.reason;
        (*event).listener = told.listener;
        (*event).point = told.point;
        (*event).user = if caller { bpf_get_current_uid_gid() as u32 } else { 0 };
        (*event).process =
            if caller && HAS_PROCESS.load() != 0 { (bpf_get_current_pid_tgid() >> 32) as u32 } else { 0 };
        (*event).reserved = 0;
        let command = (&raw mut (*event).command).cast::<[u64; 2]>();
        // One by one: LLVM would call a function to write them.
        (&raw mut (*command)[0]).write_volatile(0);
        (&raw mut (*command)[1]).write_volatile(0);
        if caller && HAS_COMMAND.load() != 0 {
            let _cannot_fail = bpf_get_current_comm(command.cast(), size_of::<[u64; 2]>() as u32);
        }
    }
    entry.submit(0);
}
