//! Kernel memory of a workload and of an open connection.

use std::{fs, thread, time::Duration};

use anyhow::Context as _;
use interceptor::parity::world::Namespace;

use super::application;
use crate::{
    bench::{Bench, Label, turns},
    stage::{Scene, Stage},
};

/// Parts of /proc/meminfo that hold the kernel's own data: maps, rules and sockets lie in the first three.
const KERNEL: [&str; 4] = ["Slab:", "VmallocUsed:", "Percpu:", "PageTables:"];

pub(super) fn measure(bench: &mut Bench) -> anyhow::Result<()> {
    let regimes = bench.regimes.clone();
    for round in 0..bench.effort.rounds.min(3) {
        for turn in turns(round, regimes.len()) {
            let regime = regimes[turn];
            bench.tell(format!("memory, round {round}, {regime}"));
            let connections = bench.effort.held / 5;
            let scene = Scene { destinations: 1_000, held: connections, ..Scene::OUTBOUND };
            let mut stage = Stage::set(bench, regime, &scene)?;

            let workloads = bench.effort.together;
            let others = (0..workloads).map(|_| Namespace::create()).collect::<anyhow::Result<Vec<_>>>()?;
            let before = kernel_memory()?;
            application::apply_all(bench, &stage.world, regime, &others)?;
            let per_workload = (kernel_memory()? - before) / workloads as f64;

            let before = kernel_memory()?;
            let held = stage.hold(connections)?;
            let per_connection = (kernel_memory()? - before) / held.open as f64;

            let label = Label { measure: "memory", case: "kernel", size: 0, regime, round };
            let values = [
                ("workload_bytes", per_workload),
                ("connection_bytes", per_connection),
                ("socket_option_bytes", f64::from(held.option_memory)),
            ];
            bench.record(&label, values);
            stage.world.close()?;
        }
    }
    Ok(())
}

/// Bytes the kernel uses for itself, once it has done what it puts off.
fn kernel_memory() -> anyhow::Result<f64> {
    // Freed memory of programs, rules and namespaces comes back after a grace period, of which nobody is told.
    thread::sleep(Duration::from_millis(500));
    let text = fs::read_to_string("/proc/meminfo").context("cannot read /proc/meminfo")?;
    let kibibytes = |name: &str| -> anyhow::Result<f64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|line| line.split_whitespace().next());
        number.and_then(|number| number.parse().ok()).with_context(|| format!("/proc/meminfo has no {name}"))
    };
    let total: f64 = KERNEL.iter().map(|name| kibibytes(name)).sum::<anyhow::Result<f64>>()?;
    Ok(total * 1024.0)
}
