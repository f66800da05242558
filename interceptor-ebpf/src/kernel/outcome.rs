//! What a call is told: one place decides for every error whether it denies or lets pass.

use aya_ebpf::helpers::generated::bpf_set_retval;
use interceptor_ebpf::{
    abi::{Listener, Point, Switches},
    policy::{Reason, Tables as _},
};

use super::{
    call,
    context::SocketAddress,
    count::count,
    maps::HAS_SET_RETVAL,
    tables::{Absent, KernelTables},
    trace::{self, Told},
};

/// What a cgroup hook returns to let the call go on.
pub(crate) const ALLOW: i32 = 1;
/// What a cgroup hook returns to make the call fail.
const DENY: i32 = 0;

const ENOMEM: i32 = 12;
const EADDRNOTAVAIL: i32 = 99;
const EHOSTDOWN: i32 = 112;

/// Why a call that should have been redirected could not be.
pub(crate) enum Failure {
    /// The socket's record could not be stored.
    Record,
    /// The source address could not be bound.
    Source,
    /// The DNS server could not be noted.
    Resolver,
}

/// The tables of a workload whose call is to be decided; else what the call is told.
#[inline(always)]
pub(crate) fn tables(workload: u64) -> Result<KernelTables, i32> {
    match KernelTables::of(workload) {
        Ok(tables) => Ok(tables),
        Err(Absent::NotEnrolled) => Err(ALLOW),
        Err(Absent::Broken) => {
            count(workload, Reason::TableMissing);
            Err(deny(EHOSTDOWN))
        }
    }
}

/// Counts what came of a workload's call, and tells the call.
#[inline(always)]
pub(crate) fn tell(
    workload: u64,
    tables: &KernelTables,
    context: &SocketAddress,
    outcome: Result<Reason, Failure>,
) -> i32 {
    let (reason, errno) = match outcome {
        Ok(reason) => {
            count(workload, reason);
            return ALLOW;
        }
        Err(Failure::Record) => (Reason::RecordFailed, ENOMEM),
        Err(Failure::Source) => (Reason::SourceFailed, EADDRNOTAVAIL),
        Err(Failure::Resolver) => (Reason::ResolverFailed, ENOMEM),
    };
    count(workload, reason);
    // A failed call was not rewritten: the destination is still the one it wanted.
    trace::tell(&Told {
        workload,
        source: &context.socket().local(),
        destination: &context.endpoint(),
        reason,
        listener: Listener::NONE,
        point: context.protocol().map_or(Point::CONNECT, call::point),
    });
    if tables.workload().any(Switches::BYPASS_ON_ERROR) { ALLOW } else { deny(errno) }
}

#[inline(always)]
fn deny(errno: i32) -> i32 {
    if HAS_SET_RETVAL.load() != 0 {
        // SAFETY: the helper takes a number. Where it is missing, the verifier removes this call as dead code.
        unsafe { bpf_set_retval(-errno) };
    }
    DENY
}
