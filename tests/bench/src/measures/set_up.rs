//! Connections made: connect, one byte each way, close.

use crate::{
    bench::{Bench, Label, turns},
    stage::{Direction, Scene, Slice, Stage},
};

/// Clients that connect at the same time, by the name of the case.
const CLIENTS: [(usize, &str); 2] = [(1, "1 client"), (8, "8 clients")];

pub(super) fn measure(bench: &mut Bench) -> anyhow::Result<()> {
    let scenes = [
        ("outbound IPv4", Direction::Outbound, false),
        ("outbound IPv6", Direction::Outbound, true),
        ("inbound IPv4", Direction::Inbound, false),
        ("inbound IPv6", Direction::Inbound, true),
    ];
    for (name, direction, ipv6) in scenes {
        let destinations = if direction == Direction::Inbound { 1 } else { Scene::OUTBOUND.destinations };
        let scene = Scene { direction, ipv6, destinations, ..Scene::OUTBOUND };
        let mut stages = bench
            .regimes
            .iter()
            .map(|regime| Stage::set(bench, *regime, &scene)?.reuse_ports())
            .collect::<anyhow::Result<Vec<_>>>()?;
        for round in 0..bench.effort.rounds {
            for (clients, plural) in CLIENTS {
                let case = format!("{name}, {plural}");
                bench.tell(format!("set-up, {case}, round {round}"));
                for turn in turns(round, stages.len()) {
                    let stage = &mut stages[turn];
                    let slice = stage.connect(clients, bench.effort.slice_milliseconds)?;
                    let label =
                        Label { measure: "set-up", case: &case, size: 0, regime: stage.regime, round };
                    record(bench, &label, &slice);
                }
            }
        }
        for stage in stages {
            stage.world.close()?;
        }
    }
    Ok(())
}

/// Keeps a slice of connections.
pub(super) fn record(bench: &mut Bench, label: &Label<'_>, slice: &Slice) {
    let made = &slice.connections;
    let values = [
        ("connections_per_second", made.count as f64 / made.seconds),
        ("p50_us", made.p50_nanoseconds as f64 / 1e3),
        ("p99_us", made.p99_nanoseconds as f64 / 1e3),
        ("cpu_us", slice.cpu_nanoseconds as f64 / made.count as f64 / 1e3),
    ];
    bench.record(label, values);
}
