//! Medians, and how sure they are.

/// A median with the bounds between which the true one lies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Estimate {
    /// The median.
    pub(crate) median: f64,
    /// Lower bound.
    pub(crate) low: f64,
    /// Upper bound.
    pub(crate) high: f64,
}

impl Estimate {
    /// The median of some values, with the narrowest pair of them that holds the true median at 95 % confidence,
    /// whatever the distribution (order statistics of the sign test). Under six values there is no such pair: then the
    /// extremes are the bounds. None without values.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_unstable_by(f64::total_cmp);
        let last = values.len().checked_sub(1)?;
        let median = f64::midpoint(values[last / 2], values[values.len() / 2]);
        let cut = outside(values.len());
        Some(Self { median, low: values[cut], high: values[last - cut] })
    }
}

/// How many of the lowest of `count` sorted values, and of the highest, lie outside the 95 % bounds of the median.
fn outside(count: usize) -> usize {
    // With k values cut off, the chance that the true median lies below the lowest left is that of at most k heads in n throws.
    let mut chance = 0.5_f64.powi(i32::try_from(count).unwrap_or(i32::MAX));
    let mut tail = 0.0;
    for heads in 0..count / 2 {
        tail += chance;
        if tail > 0.025 {
            return heads.saturating_sub(1);
        }
        chance *= (count - heads) as f64 / (heads + 1) as f64;
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nine_values_lose_one_at_each_end() {
        let estimate = Estimate::of([9.0, 1.0, 8.0, 2.0, 7.0, 3.0, 6.0, 4.0, 5.0]);
        assert_eq!(estimate, Some(Estimate { median: 5.0, low: 2.0, high: 8.0 }));
    }

    #[test]
    fn few_values_are_bounded_by_their_extremes() {
        assert_eq!(Estimate::of([3.0, 1.0]), Some(Estimate { median: 2.0, low: 1.0, high: 3.0 }));
        assert_eq!(Estimate::of([]), None);
    }

    #[test]
    fn the_bounds_are_those_of_statistical_tables() {
        assert_eq!([5, 6, 8, 9, 12, 15, 20].map(outside), [0, 0, 0, 1, 2, 3, 5]);
    }
}
