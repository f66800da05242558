//! Times and their distribution.

use std::time::Duration;

use anyhow::Context as _;
use hdrhistogram::Histogram;
use nix::time::{ClockId, clock_gettime};

/// Longest time that is told from a longer one.
const LONGEST: Duration = Duration::from_secs(60);

/// A histogram of nanoseconds, three significant digits; recording allocates nothing.
pub(super) fn histogram() -> anyhow::Result<Histogram<u64>> {
    let longest = u64::try_from(LONGEST.as_nanos())?;
    Histogram::new_with_bounds(1, longest, 3).context("cannot make a histogram")
}

/// Records one time.
pub(super) fn record(histogram: &mut Histogram<u64>, time: Duration) {
    histogram.saturating_record(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
}

/// CPU time of this process, all threads, in nanoseconds.
pub(super) fn cpu_time() -> nix::Result<u64> {
    let time = Duration::from(clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID)?);
    Ok(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
}
