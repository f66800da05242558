//! Telling `interceptor trace` of decisions, while it reads.

use aya_ebpf::helpers::{
    bpf_get_current_pid_tgid, bpf_get_current_uid_gid, bpf_ktime_get_ns, generated::bpf_get_current_comm,
};
use interceptor_ebpf::{
    abi::{Endpoint, Listener, Point, TRACING_LOST, TRACING_UNTIL},
    policy::Reason,
};

use super::maps::{HAS_COMMAND, HAS_PROCESS, TRACE, TRACING};

/// A decision to be told.
pub(crate) struct Told<'a> {
    pub(crate) workload: u64,
    pub(crate) source: &'a Endpoint,
    pub(crate) destination: &'a Endpoint,
    pub(crate) reason: Reason,
    pub(crate) listener: Listener,
    pub(crate) point: Point,
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
        (*event).reason = told.reason as u32;
        (*event).listener = told.listener;
        (*event).point = told.point;
        (*event).user = if caller { bpf_get_current_uid_gid() as u32 } else { 0 };
        (*event).process =
            if caller && HAS_PROCESS.load() != 0 { (bpf_get_current_pid_tgid() >> 32) as u32 } else { 0 };
        (*event).reserved = 0;
        let command = (&raw mut (*event).command).cast::<[u64; 2]>();
        *command = [0; 2];
        if caller && HAS_COMMAND.load() != 0 {
            let _cannot_fail = bpf_get_current_comm(command.cast(), size_of::<[u64; 2]>() as u32);
        }
    }
    entry.submit(0);
}
