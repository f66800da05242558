//! What was promised, and whether it holds.

use super::select::{Series, Subject};
use crate::{regime::Regime, sample::Sample, statistics::Estimate};

/// A goal held against what was measured.
#[derive(Clone, Debug)]
pub(crate) struct Judged {
    /// The goal in words.
    pub(super) goal: String,
    /// What must hold of the median.
    pub(super) bound: Bound,
    /// What was measured.
    pub(super) measured: Estimate,
}

/// What must hold of a number.
#[derive(Clone, Copy, Debug)]
pub(super) enum Bound {
    AtLeast(f64),
    AtMost(f64),
    /// Nothing: it is to be known, whatever it is.
    Stated,
}

/// Whether a goal holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The median does.
    Met,
    /// The median does not, but lies no farther off than the noise.
    WithinNoise,
    /// It is missed by more than the noise.
    Missed,
    /// There is nothing to hold.
    Stated,
}

impl Judged {
    /// Whether it is missed by more than the noise.
    pub(crate) fn is_missed(&self) -> bool {
        self.verdict() == Verdict::Missed
    }

    /// Whether it holds.
    pub(super) fn verdict(&self) -> Verdict {
        let Estimate { median, low, high } = self.measured;
        let (holds, may_hold) = match self.bound {
            Bound::AtLeast(bound) => (median >= bound, high >= bound),
            Bound::AtMost(bound) => (median <= bound, low <= bound),
            Bound::Stated => return Verdict::Stated,
        };
        match (holds, may_hold) {
            (true, _) => Verdict::Met,
            (false, true) => Verdict::WithinNoise,
            (false, false) => Verdict::Missed,
        }
    }
}

/// Holds every goal against the samples; those nothing was measured for are left out.
pub(crate) fn judge(samples: &[Sample]) -> Vec<Judged> {
    let mut judged = Vec::new();
    set_up(samples, &mut judged);
    established(samples, &mut judged);
    growth(samples, &mut judged);
    others(samples, &mut judged);
    judged
}

const EBPF: Subject = Subject { regime: Regime::Ebpf, size: 0 };
const DIRECT: Subject = Subject { regime: Regime::Direct, size: 0 };
const NFT: Subject = Subject { regime: Regime::IptablesNft, size: 0 };

/// Connections one pod shall hold.
const HELD: f64 = 100_000.0;

fn set_up(samples: &[Sample], judged: &mut Vec<Judged>) {
    let all = Series::of(samples, "set-up");
    for case in all.cases() {
        let series = all.case(case);
        let rate = "connections_per_second";
        let goals = [
            ("rate against direct", series.ratio(EBPF, DIRECT, rate), Bound::AtLeast(0.97)),
            ("rate against iptables-nft", series.ratio(EBPF, NFT, rate), Bound::AtLeast(1.2)),
            ("p99 against direct", series.ratio(EBPF, DIRECT, "p99_us"), Bound::AtMost(1.1)),
        ];
        for (goal, measured, bound) in goals {
            push(judged, format!("set-up, {case}: {goal}"), measured, bound);
        }
    }
}

fn established(samples: &[Sample], judged: &mut Vec<Judged>) {
    let measures = [("round-trip", "round_trips_per_second"), ("stream", "mebibytes_per_second")];
    for (measure, rate) in measures {
        let all = Series::of(samples, measure);
        for case in all.cases() {
            let ratio = all.case(case).ratio(EBPF, DIRECT, rate);
            push(judged, format!("{measure}, {case}: rate against direct"), ratio, Bound::AtLeast(0.98));
        }
    }
}

/// The largest size against the smallest.
fn growth(samples: &[Sample], judged: &mut Vec<Judged>) {
    for (measure, what) in [("excluded-cidrs", "excluded CIDRs"), ("workloads", "workloads")] {
        let series = Series::of(samples, measure);
        let sizes = series.sizes();
        if let [smallest, .., largest] = sizes[..] {
            let at = |size| Subject { regime: Regime::Ebpf, size };
            let ratio = series.ratio(at(largest), at(smallest), "connections_per_second");
            let goal = format!("set-up rate with {largest} {what} against {smallest}");
            push(judged, goal, ratio, Bound::AtLeast(0.97));
        }
    }
}

fn others(samples: &[Sample], judged: &mut Vec<Judged>) {
    let calls = Series::of(samples, "calls");
    let connect = calls.case("bystander").ratio(EBPF, DIRECT, "connect_ns");
    push(
        judged,
        "a bystander's connect, with our programs against without".to_owned(),
        connect,
        Bound::AtMost(1.02),
    );
    for (case, who) in [("bystander", "a bystander's getsockopt"), ("workload", "getsockopt in a workload")] {
        let tax = calls.case(case).difference(EBPF, DIRECT, "getsockopt_ns");
        push(judged, format!("{who}: what our programs add, in ns"), tax, Bound::Stated);
    }

    let alone = Series::of(samples, "apply");
    let alone = alone.case("alone");
    let (apply, grace_period) = (alone.median(EBPF, "apply_ms"), alone.median(EBPF, "grace_period_ms"));
    push(judged, "apply of one workload, in ms".to_owned(), apply, Bound::AtMost(10.0));
    push(
        judged,
        "one grace period of RCU, measured beside it, in ms".to_owned(),
        grace_period,
        Bound::Stated,
    );

    let series = Series::of(samples, "held").case("1,000 destinations");
    // A short run stops before it knows how many there could be.
    let stopped = series.median(EBPF, "errno").is_some_and(|errno| errno.median == 0.0);
    let held = series.median(EBPF, "connections").filter(|held| !stopped || held.median >= HELD);
    push(judged, "connections one pod holds to 1,000 destinations".to_owned(), held, Bound::AtLeast(HELD));
}

fn push(judged: &mut Vec<Judged>, goal: String, measured: Option<Estimate>, bound: Bound) {
    if let Some(measured) = measured {
        judged.push(Judged { goal, bound, measured });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(bound: Bound, low: f64, median: f64, high: f64) -> Verdict {
        let measured = Estimate { median, low, high };
        Judged { goal: String::new(), bound, measured }.verdict()
    }

    #[test]
    fn a_goal_is_missed_only_beyond_the_noise() {
        assert_eq!(verdict(Bound::AtLeast(0.97), 0.95, 0.98, 1.0), Verdict::Met);
        assert_eq!(verdict(Bound::AtLeast(0.97), 0.9, 0.96, 0.975), Verdict::WithinNoise);
        assert_eq!(verdict(Bound::AtLeast(0.97), 0.9, 0.95, 0.96), Verdict::Missed);
        assert_eq!(verdict(Bound::AtMost(1.1), 1.0, 1.2, 1.3), Verdict::WithinNoise);
        assert_eq!(verdict(Bound::AtMost(1.1), 1.15, 1.2, 1.3), Verdict::Missed);
    }

    #[test]
    fn ratios_are_taken_within_rounds() {
        // Everything is twice as slow in the second round; the ratio is the same in both.
        let sample = |regime, round, rate: f64| Sample {
            measure: "set-up".to_owned(),
            case: "one".to_owned(),
            size: 0,
            regime,
            round,
            values: [("connections_per_second".to_owned(), rate)].into(),
        };
        let samples = [
            sample(Regime::Direct, 0, 100.0),
            sample(Regime::Ebpf, 0, 90.0),
            sample(Regime::Direct, 1, 50.0),
            sample(Regime::Ebpf, 1, 45.0),
        ];
        let judged = judge(&samples);
        assert_eq!(judged.len(), 1, "{judged:?}");
        assert_eq!(judged[0].measured, Estimate { median: 0.9, low: 0.9, high: 0.9 });
        assert_eq!(judged[0].verdict(), Verdict::Missed);
    }
}
