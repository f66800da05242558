//! Raw data: a line of JSON for the machine, then one a sample.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::{machine::Machine, regime::Regime};

/// Everything that was measured in one run.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    /// Where.
    pub(crate) machine: Machine,
    /// What.
    pub(crate) samples: Vec<Sample>,
}

/// What one regime did in one round of one measure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sample {
    /// What was measured.
    pub(crate) measure: String,
    /// Which variant of it.
    pub(crate) case: String,
    /// How large whatever grows was; 0 where nothing grows.
    pub(crate) size: u64,
    /// Under which regime.
    pub(crate) regime: Regime,
    /// In which round. Samples of one round were taken right after one another.
    pub(crate) round: u32,
    /// The numbers; a name ends in its unit.
    pub(crate) values: BTreeMap<String, f64>,
}

impl Run {
    /// Writes it to a file.
    pub(crate) fn write(&self, path: &Path) -> anyhow::Result<()> {
        let mut lines = vec![serde_json::to_string(&self.machine)?];
        for sample in &self.samples {
            lines.push(serde_json::to_string(sample)?);
        }
        let text = lines.join("\n") + "\n";
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Reads what [`Run::write`] wrote.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut lines = text.lines();
        let machine = lines.next().and_then(|line| serde_json::from_str(line).ok());
        let machine = machine.with_context(|| format!("{} does not begin with a machine", path.display()))?;
        let sample = |(line, number)| {
            serde_json::from_str(line)
                .with_context(|| format!("line {number} of {} is no sample", path.display()))
        };
        Ok(Self { machine, samples: lines.zip(2..).map(sample).collect::<anyhow::Result<_>>()? })
    }
}
