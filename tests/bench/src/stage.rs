//! A world under a regime, with a client at one end of the measured connections and the proxy at the other.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use anyhow::{Context as _, bail, ensure};
use interceptor::parity::{
    catalogue::INJECTED,
    plan::{Family, Host, Place},
    proxy::{INBOUND_PORT, OUTBOUND_PORT, OWNER},
    scenario::{APP, REMOTE},
    world::{Layout, Namespace, World},
};
use nix::errno::Errno;

use crate::{
    bench::{Bench, SERVER_THREADS},
    regime::Regime,
    worker::{
        Worker,
        protocol::{Connect, Connections, Held, Request, Served},
    },
};

/// Which way the measured connections go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// From the application of the pod to the world.
    Outbound,
    /// From another host to the pod.
    Inbound,
}

/// What a stage is for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scene<'a> {
    pub(crate) direction: Direction,
    /// Whether it is IPv6; else IPv4.
    pub(crate) ipv6: bool,
    /// How many different destinations the client takes in turn.
    pub(crate) destinations: u32,
    /// Flags of the capture, beside those of every injected pod.
    pub(crate) capture: &'a [&'a str],
    /// How many connections will be held at the same time.
    pub(crate) held: usize,
}

impl Scene<'_> {
    /// Outbound IPv4 with enough destinations that ports in `TIME_WAIT` do not matter.
    pub(crate) const OUTBOUND: Self =
        Self { direction: Direction::Outbound, ipv6: false, destinations: 250, capture: &[], held: 0 };
}

/// A world under a regime, ready to measure.
pub(crate) struct Stage {
    pub(crate) regime: Regime,
    pub(crate) world: World,
    pub(crate) client: Worker,
    /// Processes that share the proxy's port.
    servers: Vec<Worker>,
    /// Processes that hold connections.
    holders: Vec<Worker>,
    pub(crate) targets: Vec<SocketAddr>,
}

/// A slice of connections, with what both ends spent.
pub(crate) struct Slice {
    pub(crate) connections: Connections,
    /// CPU time of both ends.
    pub(crate) cpu_nanoseconds: u64,
}

impl Stage {
    /// Builds the world, has the regime intercept, and starts both ends.
    pub(crate) fn set(bench: &Bench, regime: Regime, scene: &Scene<'_>) -> anyhow::Result<Self> {
        let world = World::build(Layout::default())?;
        let flags = capture(regime, scene);
        regime
            .backend()
            .apply(&world, &bench.interceptor, Place::Pod, flags.as_slice())
            .with_context(|| format!("cannot put the pod under {regime}"))?;
        for place in [Place::Pod, Place::Peer] {
            // A connection nobody answers fails after three seconds, not after two minutes.
            set(world.namespace(place)?, "net/ipv4/tcp_syn_retries", "1")?;
        }
        let (port, from) = match scene.direction {
            Direction::Outbound => (OUTBOUND_PORT, APP),
            Direction::Inbound => (INBOUND_PORT, REMOTE),
        };
        let start = |place, owner, processors: &[usize]| {
            Worker::start(&world, &bench.interceptor, place, owner, processors)
        };
        let any =
            if scene.ipv6 { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { IpAddr::V4(Ipv4Addr::UNSPECIFIED) };
        let listen = Request::Serve { address: SocketAddr::new(any, port), threads: SERVER_THREADS };
        // A process has only so many descriptors.
        let processes = scene.held.div_ceil(bench.connections_a_process);
        let mut servers = Vec::new();
        for _ in 0..processes.max(1) {
            let mut server = start(Place::Pod, OWNER, &bench.processors.servers)?;
            server.ask::<()>(&listen)?;
            servers.push(server);
        }
        let client = start(from.place, from.owner, &bench.processors.clients)?;
        let holders = (0..processes)
            .map(|_| start(from.place, from.owner, &bench.processors.clients))
            .collect::<anyhow::Result<_>>()?;
        let targets = (0..scene.destinations).map(|n| target(regime, scene, n)).collect();
        Ok(Self { regime, world, client, servers, holders, targets })
    }

    /// Lets ports that wait after a connection be used again after a second, as between different hosts they cannot
    /// be by default; so that long measures do not end for want of ports.
    pub(crate) fn reuse_ports(self) -> anyhow::Result<Self> {
        for place in [Place::Pod, Place::Peer] {
            set(self.world.namespace(place)?, "net/ipv4/tcp_tw_reuse", "1")?;
        }
        if self.regime.is_nat() {
            // Two minutes by default, in which the rates measured here would fill the table of the whole machine.
            let pod = self.world.namespace(Place::Pod)?;
            set(pod, "net/netfilter/nf_conntrack_tcp_timeout_time_wait", "10")?;
        }
        Ok(self)
    }

    /// Connects for a while. Every connection must have been made, and redirected if the regime is to do that.
    pub(crate) fn connect(&mut self, clients: usize, milliseconds: u64) -> anyhow::Result<Slice> {
        let plan = Connect { targets: self.targets.clone(), clients, milliseconds, at_most: None };
        let slice = self.connect_until(plan)?;
        if let Some(errno) = slice.connections.failed {
            let errno = Errno::from_raw(errno);
            bail!("a connection failed under {}: {}", self.regime, errno.desc());
        }
        Ok(slice)
    }

    /// Connects as planned; an error may end it.
    pub(crate) fn connect_until(&mut self, plan: Connect) -> anyhow::Result<Slice> {
        let before = self.served()?;
        let connections: Connections = self.client.ask(&Request::Connect(plan))?;
        let after = self.served()?;
        self.check(&before, &after, connections.count)?;
        let cpu_nanoseconds = connections.cpu_nanoseconds + after.cpu_nanoseconds - before.cpu_nanoseconds;
        Ok(Slice { connections, cpu_nanoseconds })
    }

    /// Opens connections and keeps them, at most as many as the scene provides for. The first that fails is the last.
    pub(crate) fn hold(&mut self, count: usize) -> anyhow::Result<Held> {
        let mut all = Held { open: 0, failed: None, option_memory: 0 };
        let each = count.div_ceil(self.holders.len().max(1));
        for holder in &mut self.holders {
            let count = each.min(count - all.open);
            let held: Held = holder.ask(&Request::Hold { targets: self.targets.clone(), count })?;
            all = Held { open: all.open + held.open, ..held };
            if all.failed.is_some() {
                break;
            }
        }
        Ok(all)
    }

    /// What the proxy's processes did so far, all together.
    pub(crate) fn served(&mut self) -> anyhow::Result<Served> {
        let mut all = Served { accepted: 0, redirected: 0, cpu_nanoseconds: 0 };
        for server in &mut self.servers {
            let served: Served = server.ask(&Request::Served)?;
            all.accepted += served.accepted;
            all.redirected += served.redirected;
            all.cpu_nanoseconds += served.cpu_nanoseconds;
        }
        Ok(all)
    }

    /// A regime that does nothing would be the fastest of all.
    fn check(&self, before: &Served, after: &Served, count: u64) -> anyhow::Result<()> {
        let (accepted, redirected) = (after.accepted - before.accepted, after.redirected - before.redirected);
        ensure!(
            accepted >= count && (self.regime == Regime::Direct || redirected == accepted),
            "under {} the client made {count} connections, of which the proxy got {accepted}, {redirected} of them \
             with an original destination",
            self.regime
        );
        Ok(())
    }
}

/// The flags that put a pod under a regime.
pub(crate) fn capture<'a>(regime: Regime, scene: &Scene<'a>) -> Vec<&'a str> {
    let ipv6: &[&str] = if scene.ipv6 { &["--ipv6", "on"] } else { &[] };
    [&INJECTED[..], ipv6, regime.flags(), scene.capture].concat()
}

/// Writes a setting of a namespace.
fn set(namespace: &Namespace, name: &str, value: &str) -> anyhow::Result<()> {
    namespace.enter(|| {
        let path = format!("/proc/sys/{name}");
        fs::write(&path, value).with_context(|| format!("cannot write {path}"))
    })
}

/// The client's `n`th destination. Without interception it is the proxy's own port, at as many addresses of the
/// loopback network as there would be destinations, so that no regime has fewer tuples than another.
fn target(regime: Regime, scene: &Scene<'_>, n: u32) -> SocketAddr {
    let direct = regime == Regime::Direct;
    let pod = Host::Pod.address(if scene.ipv6 { Family::V6 } else { Family::V4 });
    match (scene.direction, scene.ipv6, direct) {
        (Direction::Outbound, false, true) => {
            SocketAddr::from((Ipv4Addr::from_bits(0x7f01_0001 + n), OUTBOUND_PORT))
        }
        (Direction::Outbound, false, false) => SocketAddr::from((Ipv4Addr::from_bits(0x0a63_0001 + n), 80)),
        (Direction::Outbound, true, true) => SocketAddr::from((Ipv6Addr::LOCALHOST, OUTBOUND_PORT)),
        (Direction::Outbound, true, false) => {
            let last = u128::from(n) + 1;
            SocketAddr::from((Ipv6Addr::from_bits((0xfd99 << 112) | last), 80))
        }
        (Direction::Inbound, _, true) => SocketAddr::new(pod, INBOUND_PORT),
        (Direction::Inbound, _, false) => SocketAddr::new(pod, 8080),
    }
}
