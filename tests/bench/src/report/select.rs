//! Numbers out of samples: medians, and ratios within a round.

use std::collections::{BTreeMap, BTreeSet};

use crate::{regime::Regime, sample::Sample, statistics::Estimate};

/// All samples of one measure.
#[derive(Clone, Debug)]
pub(super) struct Series<'s> {
    samples: Vec<&'s Sample>,
}

/// Who did something, at which size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Subject {
    pub(super) regime: Regime,
    pub(super) size: u64,
}

impl<'s> Series<'s> {
    /// The samples of a measure.
    pub(super) fn of(samples: &'s [Sample], measure: &str) -> Self {
        Self { samples: samples.iter().filter(|sample| sample.measure == measure).collect() }
    }

    /// Those of one case.
    pub(super) fn case(&self, case: &str) -> Self {
        Self { samples: self.samples.iter().copied().filter(|sample| sample.case == case).collect() }
    }

    /// The cases, in the order in which they were measured.
    pub(super) fn cases(&self) -> Vec<&'s str> {
        let mut seen = BTreeSet::new();
        self.samples.iter().map(|sample| sample.case.as_str()).filter(|case| seen.insert(*case)).collect()
    }

    /// Who was measured, sorted.
    pub(super) fn subjects(&self) -> Vec<Subject> {
        let subjects = self.samples.iter().map(|sample| Subject { regime: sample.regime, size: sample.size });
        subjects.collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// The sizes, sorted.
    pub(super) fn sizes(&self) -> Vec<u64> {
        self.samples.iter().map(|sample| sample.size).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// A subject's median of one value.
    pub(super) fn median(&self, subject: Subject, value: &str) -> Option<Estimate> {
        Estimate::of(self.by_round(subject, value).into_values())
    }

    /// The median, over rounds, of one subject's value divided by another's of the same round.
    pub(super) fn ratio(&self, subject: Subject, reference: Subject, value: &str) -> Option<Estimate> {
        let reference = self.by_round(reference, value);
        let ratios = self.by_round(subject, value).into_iter().filter_map(|(round, value)| {
            let reference = reference.get(&round).filter(|reference| **reference > 0.0)?;
            Some(value / reference)
        });
        Estimate::of(ratios)
    }

    /// Direct connections to compare a subject with: at its own size, or at the only one there is.
    pub(super) fn direct(&self, size: u64) -> Option<Subject> {
        let direct: Vec<_> =
            self.subjects().into_iter().filter(|subject| subject.regime == Regime::Direct).collect();
        direct.iter().find(|subject| subject.size == size).or(direct.first()).copied()
    }

    fn by_round(&self, subject: Subject, value: &str) -> BTreeMap<u32, f64> {
        let matching = self
            .samples
            .iter()
            .filter(|sample| sample.regime == subject.regime && sample.size == subject.size);
        matching.filter_map(|sample| Some((sample.round, *sample.values.get(value)?))).collect()
    }
}
