//! What `interceptor trace` is told of a decision.

use super::{Endpoint, Listener, assert_size};

/// One decision, in the ring buffer.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// When, in nanoseconds of `CLOCK_MONOTONIC`.
    pub time: u64,
    /// Cookie of the network namespace.
    pub workload: u64,
    /// Where the connection comes from: port 0 where the kernel has not chosen it yet.
    pub source: Endpoint,
    /// Where it wanted to go.
    pub destination: Endpoint,
    /// The clause that decided, as a number of [`crate::policy::Reason`].
    pub reason: u32,
    /// The proxy's listener it goes to, if any.
    pub listener: Listener,
    /// Where it was decided.
    pub point: Point,
    /// The caller's user id in the initial user namespace; 0 for an arriving connection.
    pub user: u32,
    /// The caller's process; 0 for an arriving connection, and where the kernel does not tell (before Linux 6.10).
    pub process: u32,
    /// Always 0; keeps the size a multiple of 8.
    pub reserved: u32,
    /// The name of the caller's thread, padded with zeros; empty where `process` is 0 for the first reason.
    pub command: [u8; 16],
}

/// Where a decision was made.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point(pub u32);

impl Point {
    /// A TCP socket connects.
    pub const CONNECT: Self = Self(1);
    /// A UDP socket connects or sends.
    pub const SEND: Self = Self(2);
    /// A TCP connection arrives from outside.
    pub const ARRIVE: Self = Self(3);
}

/// Index in `TRACING` of the time until which somebody reads, in nanoseconds of `CLOCK_MONOTONIC`. A reader that died
/// ends by itself.
pub const TRACING_UNTIL: u32 = 0;
/// Index in `TRACING` of how many decisions found the ring buffer full.
pub const TRACING_LOST: u32 = 1;

assert_size!(Event, 96);
