//! What every measure needs: how long, where, and a place for its samples.

use std::{collections::BTreeMap, path::PathBuf, thread};

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};
use nix::{
    sched::sched_getaffinity,
    sys::resource::{Resource, getrlimit, setrlimit},
    unistd::Pid,
};

use crate::{regime::Regime, sample::Sample};

/// How much is done: the whole, or a trial of the harness itself.
#[derive(Clone, Debug)]
pub(crate) struct Effort {
    /// Rounds of every measure.
    pub(crate) rounds: u32,
    /// How long one regime connects in one round.
    pub(crate) slice_milliseconds: u64,
    /// Bytes of one stream.
    pub(crate) stream_bytes: u64,
    /// Excluded CIDRs.
    pub(crate) cidrs: Vec<u64>,
    /// Excluded ports.
    pub(crate) ports: Vec<u64>,
    /// Workloads on the node.
    pub(crate) workloads: Vec<u64>,
    /// Open connections.
    pub(crate) connections: Vec<u64>,
    /// Connections at which counting how many can be held stops.
    pub(crate) held: usize,
    /// Workloads applied at the same time.
    pub(crate) together: usize,
}

impl Effort {
    /// What the published numbers are made with.
    pub(crate) fn full() -> Self {
        Self {
            rounds: 11,
            slice_milliseconds: 100,
            stream_bytes: 1 << 30,
            cidrs: vec![0, 100, 1_000, 10_000],
            ports: vec![0, 10, 100, 1_000],
            workloads: vec![1, 10, 100, 1_000],
            connections: vec![0, 1_000, 10_000, 100_000],
            held: 100_000,
            together: 100,
        }
    }

    /// A few minutes; good to see that everything runs.
    pub(crate) fn quick() -> Self {
        Self {
            rounds: 3,
            slice_milliseconds: 60,
            stream_bytes: 64 << 20,
            cidrs: vec![0, 100, 1_000],
            ports: vec![0, 10, 100],
            workloads: vec![1, 20],
            connections: vec![0, 1_000],
            held: 5_000,
            together: 10,
        }
    }
}

/// A run of measures.
pub(crate) struct Bench {
    /// The `interceptor` command.
    pub(crate) interceptor: PathBuf,
    /// How much is done.
    pub(crate) effort: Effort,
    /// The regimes that work on this machine.
    pub(crate) regimes: Vec<Regime>,
    /// Where clients run, and where servers do.
    pub(crate) processors: Processors,
    /// Connections one process can keep open.
    pub(crate) connections_a_process: usize,
    samples: Vec<Sample>,
    progress: ProgressBar,
}

/// The processors of this machine, dealt out so that the ends of a connection do not push each other about.
#[derive(Clone, Debug)]
pub(crate) struct Processors {
    /// For connecting ends.
    pub(crate) clients: Vec<usize>,
    /// For accepting ends.
    pub(crate) servers: Vec<usize>,
}

impl Processors {
    /// Half of those we may use for each end; with only one, both share it.
    fn deal() -> anyhow::Result<Self> {
        let allowed = sched_getaffinity(Pid::from_raw(0)).context("cannot ask for our processors")?;
        let count = nix::sched::CpuSet::count();
        let all: Vec<usize> = (0..count).filter(|index| allowed.is_set(*index).unwrap_or(false)).collect();
        let (clients, servers) = all.split_at(all.len() / 2);
        let clients = if clients.is_empty() { servers } else { clients };
        Ok(Self { clients: clients.to_vec(), servers: servers.to_vec() })
    }
}

impl Bench {
    /// Prepares; nothing is measured yet.
    pub(crate) fn new(interceptor: PathBuf, effort: Effort, regimes: Vec<Regime>) -> anyhow::Result<Self> {
        let style = ProgressStyle::with_template("{spinner} {elapsed} {wide_msg}");
        let progress = ProgressBar::new_spinner();
        progress.set_style(style.context("the template is right")?);
        let (processors, connections_a_process) = (Processors::deal()?, connections_a_process()?);
        let samples = Vec::new();
        Ok(Self { interceptor, effort, regimes, processors, connections_a_process, samples, progress })
    }

    /// Says what is going on, on a terminal only.
    pub(crate) fn tell(&self, what: impl Into<String>) {
        self.progress.set_message(what.into());
        self.progress.tick();
    }

    /// Keeps a sample.
    pub(crate) fn record<const N: usize>(&mut self, label: &Label<'_>, values: [(&str, f64); N]) {
        let values: BTreeMap<String, f64> =
            values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        self.samples.push(Sample {
            measure: label.measure.to_owned(),
            case: label.case.to_owned(),
            size: label.size,
            regime: label.regime,
            round: label.round,
            values,
        });
    }

    /// Ends the run and hands out the samples.
    pub(crate) fn finish(self) -> Vec<Sample> {
        self.progress.finish_and_clear();
        self.samples
    }
}

/// What a sample is about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Label<'a> {
    pub(crate) measure: &'a str,
    pub(crate) case: &'a str,
    pub(crate) size: u64,
    pub(crate) regime: Regime,
    pub(crate) round: u32,
}

/// The subjects of a round: all of them, each round beginning with another one, so that nobody is always first.
pub(crate) fn turns(round: u32, subjects: usize) -> impl Iterator<Item = usize> {
    let first = round as usize % subjects.max(1);
    (first..subjects).chain(0..first)
}

/// Raises the limit of open files, which workers inherit, as far as it goes without rights of its own. Returns how many
/// connections one process can keep open, with room for what else it opens.
fn connections_a_process() -> anyhow::Result<usize> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).context("cannot raise the limit of open files")?;
    Ok(usize::try_from(hard)? / 4 * 3)
}

/// Threads a serving worker has: as many as there are clients at the same time.
pub(crate) const SERVER_THREADS: usize = 8;

/// How many tasks to start at a time where the number does not matter for the result.
pub(crate) fn parallelism() -> usize {
    thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
