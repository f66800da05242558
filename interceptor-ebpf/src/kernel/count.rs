//! Counting what was decided.

use interceptor_ebpf::policy::Reason;

use super::maps::COUNTERS;

/// Counts one event of a workload. A workload whose counters are missing is still intercepted.
#[inline(always)]
pub(crate) fn count(workload: u64, reason: Reason) {
    if let Some(counters) = COUNTERS.get_ptr_mut(&workload) {
        // SAFETY: the entry is this CPU's own, and hooks that can interrupt one another at worst lose a count.
        unsafe { (*counters).by_reason[reason as usize] += 1 };
    }
}
