//! How many connections one pod can have.

use crate::{
    bench::{Bench, Label},
    regime::Regime,
    stage::{Scene, Stage},
    worker::protocol::Connect,
};

/// How long connections are made in a row to one destination, if the ports last.
const IN_A_ROW_MILLISECONDS: u64 = 20_000;

pub(super) fn measure(bench: &mut Bench) -> anyhow::Result<()> {
    for regime in bench.regimes.clone() {
        for (case, destinations) in [("one destination", 1), ("1,000 destinations", 1_000)] {
            bench.tell(format!("capacity, {case}, {regime}"));
            hold(bench, regime, case, destinations)?;
        }
        bench.tell(format!("capacity, in a row, {regime}"));
        in_a_row(bench, regime)?;
    }
    Ok(())
}

/// Opens connections until one fails.
fn hold(bench: &mut Bench, regime: Regime, case: &str, destinations: u32) -> anyhow::Result<()> {
    let scene = Scene { destinations, held: bench.effort.held, ..Scene::OUTBOUND };
    let mut stage = Stage::set(bench, regime, &scene)?;
    let held = stage.hold(bench.effort.held)?;
    let label = Label { measure: "held", case, size: 0, regime, round: 0 };
    bench.record(
        &label,
        [("connections", held.open as f64), ("errno", f64::from(held.failed.unwrap_or_default()))],
    );
    stage.world.close()
}

/// Makes short connections to one destination until no port is left, with the kernel's own settings for ports that
/// wait after a connection (`TIME_WAIT`).
fn in_a_row(bench: &mut Bench, regime: Regime) -> anyhow::Result<()> {
    let mut stage = Stage::set(bench, regime, &Scene { destinations: 1, ..Scene::OUTBOUND })?;
    let slice = stage.connect_until(Connect {
        targets: stage.targets.clone(),
        clients: 1,
        milliseconds: IN_A_ROW_MILLISECONDS,
        at_most: Some(bench.effort.held as u64),
    })?;
    let made = &slice.connections;
    let label = Label { measure: "in-a-row", case: "one destination", size: 0, regime, round: 0 };
    let values = [
        ("connections", made.count as f64),
        ("connections_per_second", made.count as f64 / made.seconds),
        ("errno", f64::from(made.failed.unwrap_or_default())),
    ];
    bench.record(&label, values);
    stage.world.close()
}
