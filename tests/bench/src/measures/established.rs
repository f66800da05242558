//! Connections in use: what interception costs once it is over.

use crate::{
    bench::{Bench, Label, turns},
    stage::{Direction, Scene, Stage},
    worker::protocol::{Request, RoundTrips, Streamed},
};

/// Bytes of a round trip, by the name of the case.
const SIZES: [(usize, &str); 2] = [(1, "1 byte"), (64 << 10, "64 KiB")];

pub(super) fn measure(bench: &mut Bench) -> anyhow::Result<()> {
    for (name, direction) in [("outbound", Direction::Outbound), ("inbound", Direction::Inbound)] {
        let scene = Scene { direction, destinations: 1, ..Scene::OUTBOUND };
        let mut stages = bench
            .regimes
            .iter()
            .map(|regime| Stage::set(bench, *regime, &scene))
            .collect::<anyhow::Result<Vec<_>>>()?;
        for round in 0..bench.effort.rounds {
            bench.tell(format!("established, {name}, round {round}"));
            for (bytes, plural) in SIZES {
                let case = format!("{name}, {plural}");
                for turn in turns(round, stages.len()) {
                    round_trips(bench, &mut stages[turn], &case, bytes, round)?;
                }
            }
            let case = format!("{name}, {} MiB", bench.effort.stream_bytes >> 20);
            for turn in turns(round, stages.len()) {
                stream(bench, &mut stages[turn], &case, round)?;
            }
        }
        for stage in stages {
            stage.world.close()?;
        }
    }
    Ok(())
}

fn round_trips(
    bench: &mut Bench,
    stage: &mut Stage,
    case: &str,
    bytes: usize,
    round: u32,
) -> anyhow::Result<()> {
    let before = stage.served()?;
    let request = Request::RoundTrips {
        target: stage.targets[0],
        bytes,
        milliseconds: bench.effort.slice_milliseconds,
    };
    let made: RoundTrips = stage.client.ask(&request)?;
    let cpu = made.cpu_nanoseconds + stage.served()?.cpu_nanoseconds - before.cpu_nanoseconds;
    let label = Label { measure: "round-trip", case, size: 0, regime: stage.regime, round };
    let values = [
        ("round_trips_per_second", made.count as f64 / made.seconds),
        ("p50_us", made.p50_nanoseconds as f64 / 1e3),
        ("p99_us", made.p99_nanoseconds as f64 / 1e3),
        ("cpu_us", cpu as f64 / made.count as f64 / 1e3),
    ];
    bench.record(&label, values);
    Ok(())
}

fn stream(bench: &mut Bench, stage: &mut Stage, case: &str, round: u32) -> anyhow::Result<()> {
    let bytes = bench.effort.stream_bytes;
    let before = stage.served()?;
    let streamed: Streamed = stage.client.ask(&Request::Stream { target: stage.targets[0], bytes })?;
    let cpu = streamed.cpu_nanoseconds + stage.served()?.cpu_nanoseconds - before.cpu_nanoseconds;
    let mebibytes = bytes as f64 / f64::from(1 << 20);
    let label = Label { measure: "stream", case, size: 0, regime: stage.regime, round };
    let values = [
        ("mebibytes_per_second", mebibytes / streamed.seconds),
        ("cpu_us_per_mebibyte", cpu as f64 / mebibytes / 1e3),
    ];
    bench.record(&label, values);
    Ok(())
}
