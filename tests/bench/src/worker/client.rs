//! The connecting end's hot loops.

use std::{
    net::SocketAddr,
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow};
use hdrhistogram::Histogram;
use nix::{errno::Errno, sys::socket::Shutdown};

use super::{
    clock::{cpu_time, histogram, record},
    protocol::{Connect, Connections, RoundTrips, Streamed},
    socket::{ECHO, SINK, Target, exchange, receive_exactly, send_all},
};

/// Makes short connections with every client at once.
pub(super) fn connect(plan: &Connect) -> anyhow::Result<Connections> {
    let targets: Vec<_> = plan.targets.iter().copied().map(Target::new).collect();
    let start_line = Barrier::new(plan.clients + 1);
    let cpu = cpu_time()?;
    let (runs, elapsed) = thread::scope(|scope| {
        let clients: Vec<_> = (0..plan.clients)
            .map(|client| {
                // Each client starts elsewhere among the targets, so that they do not march in step.
                let first = client * targets.len() / plan.clients;
                let (targets, start_line) = (&targets, &start_line);
                scope.spawn(move || {
                    let times = histogram();
                    start_line.wait();
                    anyhow::Ok(run(plan, targets, first, times?))
                })
            })
            .collect();
        start_line.wait();
        let start = Instant::now();
        let runs: Vec<_> = clients.into_iter().map(thread::ScopedJoinHandle::join).collect();
        (runs, start.elapsed())
    });
    let cpu_nanoseconds = cpu_time()? - cpu;
    let mut times = histogram()?;
    let mut failed = None;
    for run in runs {
        let run = run.map_err(|_panic| anyhow!("a client's thread panicked"))??;
        times.add(run.times).context("all histograms are alike")?;
        failed = failed.or(run.failed.map(|errno| errno as i32));
    }
    Ok(Connections {
        count: times.len(),
        seconds: elapsed.as_secs_f64(),
        cpu_nanoseconds,
        p50_nanoseconds: times.value_at_quantile(0.5),
        p99_nanoseconds: times.value_at_quantile(0.99),
        failed,
    })
}

/// What one client did.
struct Run {
    times: Histogram<u64>,
    failed: Option<Errno>,
}

fn run(plan: &Connect, targets: &[Target], first: usize, mut times: Histogram<u64>) -> Run {
    let deadline = Instant::now() + Duration::from_millis(plan.milliseconds);
    let at_most = plan.at_most.unwrap_or(u64::MAX);
    let mut start = Instant::now();
    for target in targets.iter().cycle().skip(first) {
        if times.len() == at_most || start >= deadline {
            break;
        }
        if let Err(errno) = target.connect().and_then(|connection| exchange(&connection, ECHO)) {
            return Run { times, failed: Some(errno) };
        }
        // The end of one connection is the start of the next: one look at the clock for both.
        let end = Instant::now();
        record(&mut times, end - start);
        start = end;
    }
    Run { times, failed: None }
}

/// Sends `bytes` and waits for as many, again and again.
pub(super) fn round_trips(target: SocketAddr, bytes: usize, time: Duration) -> anyhow::Result<RoundTrips> {
    let connection = Target::new(target).connect().with_context(|| format!("cannot connect to {target}"))?;
    exchange(&connection, ECHO)?;
    let mut buffer = vec![ECHO; bytes];
    let mut times = histogram()?;
    let cpu = cpu_time()?;
    let begin = Instant::now();
    let mut start = begin;
    while start - begin < time {
        send_all(&connection, &buffer)?;
        receive_exactly(&connection, &mut buffer)?;
        let end = Instant::now();
        record(&mut times, end - start);
        start = end;
    }
    Ok(RoundTrips {
        count: times.len(),
        seconds: (start - begin).as_secs_f64(),
        cpu_nanoseconds: cpu_time()? - cpu,
        p50_nanoseconds: times.value_at_quantile(0.5),
        p99_nanoseconds: times.value_at_quantile(0.99),
    })
}

/// Sends `bytes` in one go, and waits until the other end has them all.
pub(super) fn stream(target: SocketAddr, bytes: u64) -> anyhow::Result<Streamed> {
    const CHUNK: usize = 64 << 10;
    let connection = Target::new(target).connect().with_context(|| format!("cannot connect to {target}"))?;
    let chunk = vec![SINK; CHUNK];
    let cpu = cpu_time()?;
    let start = Instant::now();
    let mut left = bytes;
    while left > 0 {
        let length = usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK));
        send_all(&connection, &chunk[..length])?;
        left -= length as u64;
    }
    nix::sys::socket::shutdown(std::os::fd::AsRawFd::as_raw_fd(&connection), Shutdown::Write)?;
    receive_exactly(&connection, &mut [0])?;
    Ok(Streamed { seconds: start.elapsed().as_secs_f64(), cpu_nanoseconds: cpu_time()? - cpu })
}
