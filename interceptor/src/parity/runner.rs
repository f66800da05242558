//! Scenarios brought to life, one world each.

use std::{
    iter,
    num::NonZero,
    path::PathBuf,
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use anyhow::Context as _;

use super::{
    backend::Backend,
    catalogue::INJECTED,
    observation::Observation,
    plan::Place,
    proxy::ProxyKind,
    scenario::Scenario,
    stage::Stage,
    world::{Layout, World},
};

/// How scenarios are run.
#[derive(Clone, Debug)]
pub struct Runner {
    /// The `interceptor` command: the actors, and the backend `ebpf`.
    pub interceptor: PathBuf,
    /// The proxy in the pods.
    pub proxy: ProxyKind,
}

/// What came of one scenario under one backend: an observation per connection.
pub type Run = anyhow::Result<Vec<Observation>>;

impl Runner {
    /// Runs every scenario under every backend, as many at once as there are processors.
    ///
    /// The result has a row per scenario with a run per backend, in the orders given. `done` is called after each run.
    pub fn run_all(
        &self,
        scenarios: &[Scenario],
        backends: &[Backend],
        done: impl Fn() + Sync,
    ) -> Vec<Vec<Run>> {
        let jobs: Vec<_> = scenarios.iter().flat_map(|s| backends.iter().map(move |b| (s, *b))).collect();
        let runs: Vec<OnceLock<Run>> = jobs.iter().map(|_| OnceLock::new()).collect();
        let next = AtomicUsize::new(0);
        let workers = thread::available_parallelism().map_or(1, NonZero::get);
        thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(|| {
                    let take = || next.fetch_add(1, Ordering::Relaxed);
                    for index in iter::repeat_with(take).take_while(|index| *index < jobs.len()) {
                        let (scenario, backend) = jobs[index];
                        runs[index].get_or_init(|| self.run(scenario, backend));
                        done();
                    }
                });
            }
        });
        let mut runs = runs.into_iter().filter_map(OnceLock::into_inner);
        scenarios.iter().map(|_| runs.by_ref().take(backends.len()).collect()).collect()
    }

    /// Tries whether a backend works on this machine at all, so that a missing tool or right is told once.
    pub fn try_out(&self, backend: Backend) -> anyhow::Result<()> {
        let world = World::build(Layout::default())?;
        backend
            .apply(&world, &self.interceptor, Place::Pod, &INJECTED)
            .with_context(|| format!("{backend} does not work here"))?;
        world.close()
    }

    /// Runs one scenario under one backend in a world of its own.
    pub fn run(&self, scenario: &Scenario, backend: Backend) -> Run {
        let world = World::build(scenario.layout)?;
        let mut stage = Stage::set(self, &world, scenario, backend)?;
        let observations = scenario
            .connections
            .iter()
            .zip(0..)
            .map(|(connection, id)| {
                let raw = stage.make(connection, id).with_context(|| format!("connection {connection}"))?;
                Ok(Observation::new(&raw))
            })
            .collect::<anyhow::Result<_>>()?;
        drop(stage);
        world.close()?;
        Ok(observations)
    }
}
