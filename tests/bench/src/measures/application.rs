//! Putting a workload under interception and taking it out: one alone, and many at the same time.

use std::{
    io::Write as _,
    process::{Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow, ensure};
use interceptor::parity::{
    backend::{Backend, Step, state_dir},
    catalogue::INJECTED,
    plan::Place,
    world::{Layout, Namespace, World},
};
use rustix::thread::{MembarrierCommand, membarrier};

use crate::{
    bench::{Bench, Label, parallelism, turns},
    regime::Regime,
    statistics::Estimate,
};

pub(super) fn measure(bench: &mut Bench) -> anyhow::Result<()> {
    let regimes: Vec<_> = bench
        .regimes
        .iter()
        .copied()
        .filter(|regime| !matches!(regime, Regime::Direct | Regime::EbpfNoSpread))
        .collect();
    let worlds = regimes.iter().map(|regime| first(bench, *regime)).collect::<anyhow::Result<Vec<_>>>()?;
    for round in 0..bench.effort.rounds {
        bench.tell(format!("apply, round {round}"));
        for turn in turns(round, regimes.len()) {
            alone(bench, &worlds[turn], regimes[turn], round)?;
        }
    }
    for round in 0..bench.effort.rounds.min(3) {
        bench.tell(format!("apply together, round {round}"));
        for turn in turns(round, regimes.len()) {
            together(bench, &worlds[turn], regimes[turn], round)?;
        }
    }
    worlds.into_iter().try_for_each(World::close)
}

/// A world whose pod is under the regime already, so that whatever is loaded once a node is loaded.
fn first(bench: &Bench, regime: Regime) -> anyhow::Result<World> {
    let world = World::build(Layout { second_pod: true, ..Layout::default() })?;
    regime.backend().apply(&world, &bench.interceptor, Place::Pod, &INJECTED)?;
    Ok(world)
}

/// The second pod, on and off.
fn alone(bench: &mut Bench, world: &World, regime: Regime, round: u32) -> anyhow::Result<()> {
    let namespace = world.namespace(Place::SecondPod)?;
    let steps = regime.backend().steps(world, &bench.interceptor, namespace, &INJECTED)?;
    let apply = timed(steps, namespace)?;
    let release = timed(undo(bench, world, regime, namespace), namespace)?;
    let label = Label { measure: "apply", case: "alone", size: 0, regime, round };
    let values = [
        ("apply_ms", milliseconds(apply)),
        ("release_ms", milliseconds(release)),
        ("grace_period_ms", milliseconds(grace_period()?)),
    ];
    bench.record(&label, values);
    Ok(())
}

/// How long the kernel takes until nobody reads what was in force before: RCU's grace period, of which writing to a map
/// of maps waits for one (`maybe_wait_bpf_programs`), and this call for one and nothing else.
fn grace_period() -> anyhow::Result<Duration> {
    let start = Instant::now();
    membarrier(MembarrierCommand::Global).context("cannot wait for a grace period")?;
    Ok(start.elapsed())
}

/// Many namespaces at the same time: how long each of them waits.
fn together(bench: &mut Bench, world: &World, regime: Regime, round: u32) -> anyhow::Result<()> {
    let count = bench.effort.together;
    let namespaces = (0..count).map(|_| Namespace::create()).collect::<anyhow::Result<Vec<_>>>()?;
    let start = Instant::now();
    let times = apply_each(bench, world, regime, &namespaces, count)?;
    let total = start.elapsed();
    let one = Estimate::of(times.iter().copied().map(milliseconds)).context("there are namespaces")?;
    let slowest = times.into_iter().max().unwrap_or_default();
    let label = Label { measure: "apply-together", case: "together", size: count as u64, regime, round };
    let values =
        [("median_ms", one.median), ("slowest_ms", milliseconds(slowest)), ("all_ms", milliseconds(total))];
    bench.record(&label, values);
    for namespace in &namespaces {
        timed(undo(bench, world, regime, namespace), namespace)?;
    }
    Ok(())
}

/// Puts namespaces under a regime, a few at a time.
pub(super) fn apply_all(
    bench: &Bench,
    world: &World,
    regime: Regime,
    namespaces: &[Namespace],
) -> anyhow::Result<()> {
    apply_each(bench, world, regime, namespaces, parallelism()).map(drop)
}

/// Puts each namespace under the regime, so many at the same time, and says how long each took.
fn apply_each(
    bench: &Bench,
    world: &World,
    regime: Regime,
    namespaces: &[Namespace],
    at_a_time: usize,
) -> anyhow::Result<Vec<Duration>> {
    // An empty namespace has no address that would tell its family.
    let flags = [&INJECTED[..], &["--ipv6", "off"]].concat();
    let next = AtomicUsize::new(0);
    let apply_some = || -> anyhow::Result<Vec<Duration>> {
        let mut times = Vec::new();
        while let Some(namespace) = namespaces.get(next.fetch_add(1, Ordering::Relaxed)) {
            let steps = regime.backend().steps(world, &bench.interceptor, namespace, flags.as_slice())?;
            times.push(timed(steps, namespace)?);
        }
        Ok(times)
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..at_a_time).map(|_| scope.spawn(apply_some)).collect();
        let mut times = Vec::with_capacity(namespaces.len());
        for thread in threads {
            times.extend(thread.join().map_err(|_panic| anyhow!("a thread that applies panicked"))??);
        }
        Ok(times)
    })
}

/// The commands that take a namespace out again.
fn undo(bench: &Bench, world: &World, regime: Regime, namespace: &Namespace) -> Vec<Step> {
    let kind = match regime.backend() {
        Backend::None => return Vec::new(),
        Backend::Ebpf | Backend::Nft | Backend::Iptables => {
            let mut command = Command::new(&bench.interceptor);
            command.arg("--state-dir").arg(state_dir(world)).arg("release");
            command.arg("--netns").arg(namespace.path());
            return vec![Step { command, input: String::new(), inside: false }];
        }
        Backend::IptablesNft => "nft",
        Backend::IptablesLegacy => "legacy",
    };
    // Without --noflush a restore empties the table first.
    let mut command = Command::new(format!("iptables-{kind}-restore"));
    command.args(["--wait", "30"]);
    vec![Step { command, input: "*nat\nCOMMIT\n".to_owned(), inside: true }]
}

/// Runs the steps and says how long the commands took, not how long it took to enter the namespace.
fn timed(steps: Vec<Step>, namespace: &Namespace) -> anyhow::Result<Duration> {
    let mut total = Duration::ZERO;
    for mut step in steps {
        total += if step.inside { namespace.enter(|| run(&mut step))? } else { run(&mut step)? };
    }
    Ok(total)
}

fn run(step: &mut Step) -> anyhow::Result<Duration> {
    let name = step.command.get_program().to_string_lossy().into_owned();
    step.command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let start = Instant::now();
    let mut child = step.command.spawn().with_context(|| format!("cannot run {name}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(step.input.as_bytes()).with_context(|| format!("cannot feed {name}"))?;
    }
    let output = child.wait_with_output().with_context(|| format!("cannot wait for {name}"))?;
    let time = start.elapsed();
    ensure!(output.status.success(), "{name} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(time)
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
