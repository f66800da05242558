//! What a worker is asked to do, and what it answers: one line of JSON each way.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// One thing to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Answers connections on an address, until the worker ends, with one thread for each of this many clients.
    Serve { address: SocketAddr, threads: usize },
    /// Tells what was served so far: [`Served`].
    Served,
    /// Makes short connections: [`Connections`].
    Connect(Connect),
    /// Sends bytes and waits for the same number back, over one connection: [`RoundTrips`].
    RoundTrips { target: SocketAddr, bytes: usize, milliseconds: u64 },
    /// Sends this many bytes over one connection and waits until all have arrived: [`Streamed`].
    Stream { target: SocketAddr, bytes: u64 },
    /// Opens connections and keeps them, the targets in turn: [`Held`].
    Hold { targets: Vec<SocketAddr>, count: usize },
    /// Times single system calls against a listener of its own at this address: [`Calls`].
    Calls { address: SocketAddr, milliseconds: u64 },
}

/// Short connections: connect, one byte each way, close.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Connect {
    /// Where to, in turn.
    pub(crate) targets: Vec<SocketAddr>,
    /// Clients that connect at the same time.
    pub(crate) clients: usize,
    /// For how long.
    pub(crate) milliseconds: u64,
    /// How many at most, if there is a bound.
    pub(crate) at_most: Option<u64>,
}

/// What came of [`Connect`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Connections {
    /// Connections made.
    pub(crate) count: u64,
    /// The time that took.
    pub(crate) seconds: f64,
    /// CPU time the client spent meanwhile.
    pub(crate) cpu_nanoseconds: u64,
    /// Half of the connections took at most this long, from `socket` to `close`.
    pub(crate) p50_nanoseconds: u64,
    /// Ninety-nine of a hundred took at most this long.
    pub(crate) p99_nanoseconds: u64,
    /// The error that ended it before its time.
    pub(crate) failed: Option<i32>,
}

/// What a serving worker did so far.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Served {
    /// Connections accepted.
    pub(crate) accepted: u64,
    /// Those for which the kernel named an original destination.
    pub(crate) redirected: u64,
    /// CPU time spent.
    pub(crate) cpu_nanoseconds: u64,
}

/// What came of [`Request::RoundTrips`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct RoundTrips {
    /// Round trips made.
    pub(crate) count: u64,
    /// The time that took.
    pub(crate) seconds: f64,
    /// CPU time the client spent meanwhile.
    pub(crate) cpu_nanoseconds: u64,
    /// Half of the round trips took at most this long.
    pub(crate) p50_nanoseconds: u64,
    /// Ninety-nine of a hundred took at most this long.
    pub(crate) p99_nanoseconds: u64,
}

/// What came of [`Request::Stream`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Streamed {
    /// The time it took.
    pub(crate) seconds: f64,
    /// CPU time the client spent.
    pub(crate) cpu_nanoseconds: u64,
}

/// What came of [`Request::Hold`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Held {
    /// Connections open now.
    pub(crate) open: usize,
    /// The error that kept it from opening more.
    pub(crate) failed: Option<i32>,
    /// Memory for options charged to the last connection's client socket (`SK_MEMINFO_OPTMEM`), in bytes.
    pub(crate) option_memory: u32,
}

/// Median time of one call each, in nanoseconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Calls {
    /// `connect`, to an address of this namespace.
    pub(crate) connect: f64,
    /// `accept`, with the peer's address asked for.
    pub(crate) accept: f64,
    /// `getsockopt` of a plain option.
    pub(crate) getsockopt: f64,
    /// `getpeername`.
    pub(crate) getpeername: f64,
    /// `getsockname`.
    pub(crate) getsockname: f64,
}
