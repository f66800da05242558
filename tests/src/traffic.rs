//! Connections at full rate, out of pods and into them, each of which must arrive at its pod's proxy.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use anyhow::{anyhow, ensure};
use interceptor::parity::{
    actor::{
        Actor,
        protocol::{Churn, Churned, Tallied},
    },
    plan::Place,
    proxy,
    scenario::APP,
    world::{Namespace, World},
};

use crate::interceptor;

/// Ports on which every proxy accepts outbound connections: a capture may name either.
pub const OUTBOUND_PORTS: [u16; 2] = [proxy::OUTBOUND_PORT, 15101];
/// The same for inbound connections.
pub const INBOUND_PORTS: [u16; 2] = [proxy::INBOUND_PORT, 15106];

/// Connections that a client makes before it looks whether that is enough.
const BATCH: u16 = 250;
/// One less than the port that is connected to, as [`Churn`] counts.
const BEFORE_PORT: u16 = 8000;
/// What the peer answers for, so that a connection that passes a proxy by succeeds, and is seen.
const SERVICES: &str = "route add local 10.88.0.0/16 dev lo\nroute add local fd88::/16 dev lo\n";

/// Pods with a proxy and clients each, and the peer they would reach without a proxy.
pub struct Traffic {
    clients: Vec<Client>,
    proxies: Vec<Actor>,
    peer: Actor,
}

struct Client {
    actor: Actor,
    churn: Churn,
}

impl Traffic {
    /// Starts proxies and clients for `pods`, given by their numbers in the world's plan. Nobody connects yet.
    ///
    /// Of each pod, one client connects to services, by IPv4 or IPv6 in turn, and one of the peer's to the pod.
    pub fn prepare(world: &World, pods: &[(u8, Namespace)]) -> anyhow::Result<Self> {
        let command = interceptor();
        let output = world.run(Some(Place::Peer), Command::new("ip").args(["-batch", "-"]), SERVICES)?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let mut peer = Actor::start(world, &command, Place::Peer, APP.owner)?;
        for any in any_address(BEFORE_PORT + 1) {
            peer.tally(any)?;
        }
        let (mut clients, mut proxies) = (Vec::new(), Vec::new());
        for (number, pod) in pods {
            let mut proxy = Actor::start_in(world, &command, pod, proxy::OWNER)?;
            for port in OUTBOUND_PORTS.into_iter().chain(INBOUND_PORTS) {
                for any in any_address(port) {
                    proxy.tally(any)?;
                }
            }
            proxies.push(proxy);
            let service: IpAddr = if number % 2 == 0 {
                Ipv6Addr::new(0xfd88, 0, 0, 0, 0, 0, u16::from(*number), 1).into()
            } else {
                Ipv4Addr::new(10, 88, *number, 1).into()
            };
            clients.push(Client {
                actor: Actor::start_in(world, &command, pod, APP.owner)?,
                churn: churn(service, BATCH),
            });
            clients.push(Client {
                actor: Actor::start(world, &command, Place::Peer, APP.owner)?,
                churn: churn(Ipv4Addr::new(10, 77, *number, 2).into(), 1),
            });
        }
        Ok(Self { clients, proxies, peer })
    }

    /// Has all clients connect again and again while `disturb` runs, and checks every connection: none failed, and each
    /// arrived at the proxy of its pod with its original destination. Returns how many there were.
    pub fn flow_during(&mut self, disturb: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<u32> {
        let enough = AtomicBool::new(false);
        let connected = thread::scope(|scope| {
            let enough = &enough;
            let clients = self.clients.iter_mut();
            let running: Vec<_> =
                clients.map(|client| scope.spawn(|| client.connect_until(enough))).collect();
            let disturbed = disturb();
            enough.store(true, Ordering::Relaxed);
            let connected = running.into_iter().map(|client| {
                client.join().map_err(|_panic| anyhow!("a client's thread panicked")).flatten()
            });
            let connected = connected.collect::<anyhow::Result<Vec<u32>>>()?;
            disturbed.map(|()| connected)
        })?;
        let mut right = 0;
        for proxy in &mut self.proxies {
            let Tallied { right: seen, wrong, missing } = proxy.tallied()?;
            ensure!(wrong.is_empty(), "{} wrong original destinations: {:?}, ...", wrong.len(), wrong[0]);
            ensure!(
                missing.is_empty(),
                "{} original destinations missing: {:?}, ...",
                missing.len(),
                missing[0]
            );
            right += seen;
        }
        // Nothing was redirected there, so it finds no original destination.
        let passed_by = self.peer.tallied()?.missing;
        ensure!(
            passed_by.is_empty(),
            "{} connections passed their proxy by: {:?}, ...",
            passed_by.len(),
            passed_by[0]
        );
        let connected = connected.iter().sum();
        ensure!(right == connected, "{connected} connections were made, but proxies saw {right}");
        Ok(connected)
    }
}

impl Client {
    /// Connects until told that it is enough; says how often. A connection that fails is an error.
    fn connect_until(&mut self, enough: &AtomicBool) -> anyhow::Result<u32> {
        let mut connected = 0;
        while !enough.load(Ordering::Relaxed) {
            let churned = self.actor.churn(self.churn.clone())?;
            let all = u32::from(BATCH);
            ensure!(
                churned == Churned { connected: all, failed: None },
                "after {connected} more: {churned:?}"
            );
            connected += all;
        }
        Ok(connected)
    }
}

fn churn(first: IpAddr, addresses: u16) -> Churn {
    Churn { first: SocketAddr::new(first, BEFORE_PORT), addresses, count: BATCH.into() }
}

fn any_address(port: u16) -> [SocketAddr; 2] {
    [(Ipv4Addr::UNSPECIFIED, port).into(), (Ipv6Addr::UNSPECIFIED, port).into()]
}
