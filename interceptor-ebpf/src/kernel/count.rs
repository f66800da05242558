//! Counting what was decided.

use core::hint::black_box;

use interceptor_ebpf::policy::Reason;

use super::maps::COUNTERS;

/// Counts one event of a workload. A workload whose counters are missing is still intercepted.
#[inline(always)]
pub(crate) fn count(workload: u64, reason: Reason) {
    let Some(counters) = COUNTERS.get_ptr_mut(&workload) else { return };
    // LLVM knows that every reason has its counter and would leave the check out, which the verifier does not.
    let index = black_box(reason as usize);
    if index < Reason::COUNT {
        // SAFETY: the entry is this CPU's own, and hooks that interrupt one another at worst lose a count.
        unsafe { *(&raw mut (*counters).by_reason).cast::<u64>().add(index) += 1 };
    }
}
