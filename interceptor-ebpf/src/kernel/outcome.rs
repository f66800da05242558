//! What a call is told: one place decides for every error whether it denies or lets pass.

use aya_ebpf::helpers::generated::bpf_set_retval;
use interceptor_ebpf::{
    abi::{Listener, Switches},
    policy::{Reason, Tables as _},
};

use super::{
    call::Call,
    count::count,
    maps::HAS_SET_RETVAL,
    tables::{Absent, KernelTables},
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
    /// The connection could not be noted until the proxy accepts it.
    Pending,
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

/// Counts and tells what came of a workload's call, and tells the call.
#[inline(always)]
pub(crate) fn tell(
    workload: u64,
    tables: &KernelTables,
    call: &mut Call,
    outcome: Result<Reason, Failure>,
) -> i32 {
    let (reason, errno) = match outcome {
        Ok(reason) => (reason, 0),
        Err(Failure::Record) => (Reason::RecordFailed, ENOMEM),
        Err(Failure::Source) => (Reason::SourceFailed, EADDRNOTAVAIL),
        Err(Failure::Resolver) => (Reason::ResolverFailed, ENOMEM),
        Err(Failure::Pending) => (Reason::PendingFull, ENOMEM),
    };
    if errno != 0 {
        call.listener = Listener::NONE;
    }
    count(workload, reason);
    call.trace(workload, reason);
    if errno == 0 || tables.workload().any(Switches::BYPASS_ON_ERROR) { ALLOW } else { deny(errno) }
}

#[inline(always)]
fn deny(errno: i32) -> i32 {
    if HAS_SET_RETVAL.load() != 0 {
        // SAFETY: the helper takes a number. Where it is missing, the verifier removes this call as dead code.
        unsafe { bpf_set_retval(-errno) };
    }
    DENY
}
