//! Single system calls, timed one by one on one thread: what a process pays that nobody intercepts.

use std::{
    net::SocketAddr,
    os::fd::AsRawFd as _,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use nix::sys::socket::{SockaddrStorage, getpeername, getsockname, getsockopt, sockopt};

use super::{protocol::Calls, server::listener, socket::Target};

/// Calls that are too short for the clock are made this often in a row.
const BATCH: u32 = 64;

/// Connects to a listener of its own, again and again, and times every call on the way.
///
/// Nothing waits for anything here: `connect` on the loopback interface returns with the connection queued.
pub(super) fn calls(address: SocketAddr, time: Duration) -> anyhow::Result<Calls> {
    let listener = listener(address).with_context(|| format!("cannot listen on {address}"))?;
    let target = Target::new(listener.local_addr()?);
    let mut samples = Samples::default();
    let begin = Instant::now();
    while begin.elapsed() < time {
        let socket = target.socket()?;
        samples.connect.time(1, || target.connect_from(&socket))?;
        let (accepted, _peer) = samples.accept.time(1, || listener.accept())?;
        samples.getsockopt.time(BATCH, || getsockopt(&socket, sockopt::RcvBuf))?;
        samples.getpeername.time(BATCH, || getpeername::<SockaddrStorage>(socket.as_raw_fd()))?;
        samples.getsockname.time(BATCH, || getsockname::<SockaddrStorage>(socket.as_raw_fd()))?;
        drop(accepted);
    }
    Ok(Calls {
        connect: samples.connect.median(),
        accept: samples.accept.median(),
        getsockopt: samples.getsockopt.median(),
        getpeername: samples.getpeername.median(),
        getsockname: samples.getsockname.median(),
    })
}

#[derive(Default)]
struct Samples {
    connect: Sample,
    accept: Sample,
    getsockopt: Sample,
    getpeername: Sample,
    getsockname: Sample,
}

/// Times of one call, in nanoseconds.
#[derive(Default)]
struct Sample(Vec<f64>);

impl Sample {
    /// Makes the call `times` times in a row and notes the time of one; returns the last result.
    fn time<T, E>(&mut self, times: u32, mut call: impl FnMut() -> Result<T, E>) -> Result<T, E> {
        let start = Instant::now();
        for _ in 1..times {
            call()?;
        }
        let result = call()?;
        self.0.push(start.elapsed().as_nanos() as f64 / f64::from(times));
        Ok(result)
    }

    fn median(mut self) -> f64 {
        self.0.sort_unstable_by(f64::total_cmp);
        self.0.get(self.0.len() / 2).copied().unwrap_or(f64::NAN)
    }
}
