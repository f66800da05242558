//! Captures and connections drawn at random, and of those on which two backends differ, the simplest.

pub mod captures;

use proptest::{
    prelude::*,
    sample::Index,
    strategy::ValueTree,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};

use super::{
    backend::Backend,
    catalogue::{connections_of, scenario},
    report::Report,
    runner::Runner,
    scenario::Scenario,
};
use crate::capture::{Capture, InboundMode, OutboundCidrs, SelfCalls};

/// Connections of one case.
const CONNECTIONS: usize = 8;
/// Attempts to make a case simpler, each two runs of a scenario.
const MOST_ATTEMPTS: u32 = 200;
/// Cases drawn before they are run side by side.
const TOGETHER: usize = 8;

/// What is drawn, and how often.
#[derive(Clone, Copy, Debug)]
pub struct Draw {
    /// How many cases.
    pub count: u32,
    /// The same seed draws the same cases.
    pub seed: u64,
}

/// What a search found.
#[derive(Debug)]
pub enum Found {
    /// Both backends agreed about every connection.
    Nothing {
        /// How many connections that were.
        connections: usize,
    },
    /// A case on which they differ.
    Difference(Box<Counterexample>),
}

/// The simplest case found on which two backends differ.
#[derive(Debug)]
pub struct Counterexample {
    /// Which of the cases it began as, from 1.
    pub case: u32,
    /// The capture, and the connections that are left.
    pub scenario: Scenario,
    /// What was seen.
    pub report: Report,
    /// Attempts that made it as simple as this.
    pub attempts: u32,
}

type Case = (Capture, Vec<Index>);

/// Runs random cases under both backends until they differ. `done` is told of each case.
pub fn search(
    runner: &Runner,
    backends: [Backend; 2],
    draw: Draw,
    done: impl Fn() + Sync,
) -> anyhow::Result<Found> {
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&draw.seed.to_le_bytes());
    let config = Config { failure_persistence: None, max_local_rejects: u32::MAX, ..Config::default() };
    let mut drawing = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed));
    let strategy = case();
    let (mut connections, mut number) = (0, 0);
    while number < draw.count {
        let batch = TOGETHER.min((draw.count - number) as usize);
        let mut trees = Vec::new();
        for _ in 0..batch {
            let tree = strategy.new_tree(&mut drawing);
            trees.push(tree.map_err(|reason| anyhow::anyhow!("cannot draw a case: {reason}"))?);
        }
        let scenarios: Vec<_> = trees.iter().map(|tree| scenario_of(&tree.current())).collect();
        let runs = runner.run_all(&scenarios, &backends, || {});
        for ((tree, scenario), runs) in trees.iter_mut().zip(scenarios).zip(runs) {
            number += 1;
            connections += scenario.connections.len();
            let report = Report::new(std::slice::from_ref(&scenario), &backends, &[runs]);
            if report.objections().next().is_some() {
                let found = Counterexample { case: number, scenario, report, attempts: 0 };
                return Ok(Found::Difference(Box::new(simplify(runner, backends, tree, found))));
            }
            done();
        }
    }
    Ok(Found::Nothing { connections })
}

/// Makes a case simpler for as long as the backends differ.
fn simplify(
    runner: &Runner,
    backends: [Backend; 2],
    tree: &mut impl ValueTree<Value = Case>,
    mut simplest: Counterexample,
) -> Counterexample {
    let mut has_next = tree.simplify();
    while has_next && simplest.attempts < MOST_ATTEMPTS {
        simplest.attempts += 1;
        let scenario = scenario_of(&tree.current());
        let runs = runner.run_all(std::slice::from_ref(&scenario), &backends, || {});
        let report = Report::new(std::slice::from_ref(&scenario), &backends, &runs);
        has_next = if report.objections().next().is_some() {
            simplest = Counterexample { scenario, report, ..simplest };
            tree.simplify()
        } else {
            tree.complicate()
        };
    }
    simplest
}

fn case() -> impl Strategy<Value = Case> {
    let capture = captures::capture().prop_map(made_live);
    (capture, proptest::collection::vec(any::<Index>(), 1..=CONNECTIONS))
}

fn scenario_of((capture, chosen): &Case) -> Scenario {
    let all = connections_of(capture);
    let chosen = chosen.iter().filter(|_| !all.is_empty()).map(|index| index.get(&all).clone());
    scenario("random", capture, chosen.collect())
}

/// The same capture without what only exists on paper.
fn made_live(mut capture: Capture) -> Capture {
    // eBPF refuses it, as a scenario of the catalogue pins.
    capture.rerouted_interfaces.clear();
    // One listener cannot be two, and these are the ports of servers.
    if capture.outbound_port == capture.inbound_port || capture.outbound_port < 1024 {
        (capture.outbound_port, capture.inbound_port) = (15001, 15006);
    }
    // A proxy that the rules do not know as one is intercepted by itself, round and round.
    if capture.proxy_uids.is_empty() {
        capture.proxy_uids.push(1337);
    }
    if capture.proxy_gids.is_empty() {
        capture.proxy_gids.push(1337);
    }
    capture.quirks.passthrough_source_exempt = true;
    capture.quirks.self_calls = SelfCalls::ProxyToInbound;
    if capture.inbound_mode == InboundMode::Tproxy {
        capture.tproxy_mark = 1337;
    }
    if let OutboundCidrs::Only(cidrs) = &mut capture.outbound_cidrs
        && cidrs.is_empty()
    {
        capture.outbound_cidrs = OutboundCidrs::None;
    }
    capture
}
