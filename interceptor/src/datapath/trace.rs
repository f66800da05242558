//! Reading decisions as they are made.

use std::{
    net::{Ipv6Addr, SocketAddr},
    path::Path,
    time::{Duration, SystemTime},
};

use aya::maps::{Array, Map, MapData, MapError, RingBuf};
use interceptor_ebpf::{
    abi::{Address, Endpoint, Event, Listener, Point, TRACING_LOST, TRACING_UNTIL},
    policy::Reason,
};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    time::{ClockId, clock_gettime},
};
use serde::Serialize;

use super::{DatapathError, rights, state::State};

/// How long programs go on telling after the reader last said that it reads.
const TERM: Duration = Duration::from_secs(3);
/// How often it says so.
const RENEWAL: Duration = Duration::from_secs(1);

/// A decision, as people read it.
#[derive(Clone, Debug, Serialize)]
pub struct Decided {
    /// When.
    #[serde(serialize_with = "rfc3339")]
    pub time: SystemTime,
    /// Cookie of the network namespace.
    pub workload: u64,
    /// `connect`, `send` or `arrive`.
    pub point: &'static str,
    /// The caller's process; none for an arriving connection, and before Linux 6.10.
    pub process: Option<u32>,
    /// The name of the calling thread.
    pub command: Option<String>,
    /// The caller's user id in the initial user namespace; none for an arriving connection.
    pub user: Option<u32>,
    /// Where it comes from, as `address:port`; port 0 where the kernel had not chosen one yet.
    pub source: String,
    /// Where it wanted to go.
    pub destination: String,
    /// Port it wanted to go to, in host order.
    pub port: u16,
    /// `pass`, `outbound`, `inbound` or `dns` (the proxy's listener), or `fail`.
    pub verdict: &'static str,
    /// The clause that decided.
    pub reason: &'static str,
}

/// A stream of decisions. While it is there, programs tell what they decide.
pub struct Trace {
    events: RingBuf<MapData>,
    switch: Array<MapData, u64>,
    /// What to add to the kernel's clock to get the time of day.
    boot: SystemTime,
    lost: u64,
}

impl Decided {
    /// The names of all clauses.
    pub fn reasons() -> impl Iterator<Item = &'static str> {
        Reason::ALL.iter().map(|reason| reason.name())
    }
}

impl Trace {
    /// Begins to read. An error if somebody else does: an event is read once.
    pub fn open(folder: &Path) -> Result<Self, DatapathError> {
        let not_installed = || DatapathError::NotInstalled { folder: folder.to_owned() };
        let state = State::open(folder)?.filter(State::is_installed).ok_or_else(not_installed)?;
        rights::check()?;
        let pinned = |name: &str| MapData::from_pin(state.maps().join(name));
        let open = || -> Result<_, MapError> {
            Ok((
                RingBuf::try_from(Map::RingBuf(pinned("TRACE")?))?,
                Array::try_from(Map::Array(pinned("TRACING")?))?,
            ))
        };
        let (events, switch) = open().map_err(failed)?;
        let now = now();
        let boot = SystemTime::now().checked_sub(now).unwrap_or(SystemTime::UNIX_EPOCH);
        if u128::from(switch.get(&TRACING_UNTIL, 0).map_err(failed)?) > now.as_nanos() {
            return Err(DatapathError::TraceRuns);
        }
        // From here on the switch is this reader's, and off when it goes.
        let mut trace = Self { events, switch, boot, lost: 0 };
        // What nobody read of an earlier trace is not of this one.
        while trace.events.next().is_some() {}
        trace.lost = trace.lost()?;
        trace.renew(now + TERM)?;
        Ok(trace)
    }

    /// Waits for decisions, for a second at most. Returns those there are, and how many were lost since the last call
    /// because the ring buffer was full.
    pub fn wait(&mut self) -> Result<(Vec<Decided>, u64), DatapathError> {
        self.renew(now() + TERM)?;
        let timeout = PollTimeout::try_from(RENEWAL).unwrap_or(PollTimeout::ZERO);
        match poll(&mut [PollFd::new(std::os::fd::AsFd::as_fd(&self.events), PollFlags::POLLIN)], timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(failed(MapError::IoError(errno.into()))),
        }
        let mut decided = Vec::new();
        while let Some(item) = self.events.next() {
            if item.len() == size_of::<Event>() {
                // SAFETY: the item is an event's bytes, and any bytes are one.
                let event = unsafe { item.as_ptr().cast::<Event>().read_unaligned() };
                decided.extend(describe(&event, self.boot));
            }
        }
        let lost = self.lost()?;
        let newly = lost.saturating_sub(self.lost);
        self.lost = lost;
        Ok((decided, newly))
    }

    fn renew(&mut self, until: Duration) -> Result<(), DatapathError> {
        let until = u64::try_from(until.as_nanos()).unwrap_or(u64::MAX);
        self.switch.set(TRACING_UNTIL, &until, 0).map_err(failed)
    }

    fn lost(&self) -> Result<u64, DatapathError> {
        self.switch.get(&TRACING_LOST, 0).map_err(failed)
    }
}

fn describe(event: &Event, boot: SystemTime) -> Option<Decided> {
    let reason = *Reason::ALL.get(usize::try_from(event.reason).ok()?)?;
    let called = event.point != Point::ARRIVE;
    let end = event.command.iter().position(|byte| *byte == 0).unwrap_or(event.command.len());
    let command = String::from_utf8_lossy(&event.command[..end]).into_owned();
    Some(Decided {
        time: boot + Duration::from_nanos(event.time),
        workload: event.workload,
        point: match event.point {
            Point::CONNECT => "connect",
            Point::SEND => "send",
            _ => "arrive",
        },
        process: (event.process != 0).then_some(event.process),
        command: Some(command).filter(|command| !command.is_empty()),
        user: called.then_some(event.user),
        source: text(&event.source),
        destination: text(&event.destination),
        port: event.destination.port,
        verdict: verdict(event.listener, reason),
        reason: reason.name(),
    })
}

impl Drop for Trace {
    fn drop(&mut self) {
        // It runs out by itself if this fails.
        let _runs_out = self.renew(Duration::ZERO);
    }
}

fn verdict(listener: Listener, reason: Reason) -> &'static str {
    if reason.is_failure() {
        return "fail";
    }
    match listener {
        Listener::OUTBOUND => "outbound",
        Listener::INBOUND | Listener::INBOUND_LOCAL => "inbound",
        Listener::DNS => "dns",
        _ => "pass",
    }
}

fn text(endpoint: &Endpoint) -> String {
    let Endpoint { address, port, .. } = *endpoint;
    if address == Address::UNSPECIFIED_V6 && port == 0 {
        return "-".to_owned();
    }
    SocketAddr::new(Ipv6Addr::from(address).to_canonical(), port).to_string()
}

/// The kernel's clock, as `bpf_ktime_get_ns` reads it.
fn now() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from)
}

fn failed(source: MapError) -> DatapathError {
    DatapathError::Map { action: "read the ring buffer of decisions", source: Box::new(source) }
}

fn rfc3339<S: serde::Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_rfc3339_millis(*time))
}
