//! A world with everybody in their places, and one connection after the other made in it.

use std::{
    collections::{BTreeSet, HashMap, hash_map::Entry},
    net::SocketAddr,
    ops::Range,
};

use anyhow::Context as _;

use super::{
    actor::{
        Actor,
        protocol::{Answer, Connected, Outcome},
    },
    backend::{self, Backend},
    catalogue::{APP_PORTS, DATAGRAM_PORTS, SERVICE_PORTS, STUB_PORTS, server_name},
    observation::{ClientSaw, Raw},
    plan::{Family, Host, Place},
    proxy::{Post, Proxy},
    report::Refusal,
    runner::Runner,
    scenario::{APP, Client, Connection, Deed, Event, Scenario, Sidecar},
    world::World,
};
use crate::capture::{Capture, CommandLine, Dns};

/// Port of Istio's DNS proxy; fixed there.
const DNS_PROXY_PORT: u16 = 15053;
/// The name the DNS proxy answers with.
const DNS_PROXY: &str = "dns";

/// A world with its proxies and servers up, and the clients started so far.
pub(super) struct Stage<'w> {
    runner: &'w Runner,
    world: &'w World,
    scenario: &'w Scenario,
    backend: Backend,
    post: Post,
    proxies: Vec<Box<dyn Proxy>>,
    /// Proxies of [`Sidecar::Mute`].
    mutes: Vec<Actor>,
    servers: Vec<(&'static str, Actor)>,
    clients: HashMap<Client, Actor>,
}

impl<'w> Stage<'w> {
    /// Intercepts the pods, then starts proxies and servers: the order in which a pod starts.
    pub(super) fn set(
        runner: &'w Runner,
        world: &'w World,
        scenario: &'w Scenario,
        backend: Backend,
    ) -> anyhow::Result<Self> {
        let capture = backend::settle(world.namespace(Place::Pod)?, &scenario.capture)?;
        let mut stage = Self {
            runner,
            world,
            scenario,
            backend,
            post: Post::of(&capture),
            proxies: Vec::new(),
            mutes: Vec::new(),
            servers: Vec::new(),
            clients: HashMap::new(),
        };
        for pod in stage.pods() {
            stage.intercept(pod, &scenario.capture)?;
        }
        match scenario.sidecar {
            Sidecar::Runs => stage.start_proxies()?,
            Sidecar::Mute => stage.start_mutes()?,
            Sidecar::Dead => {}
        }
        for pod in stage.pods() {
            if capture.dns != Dns::Off {
                stage.serve_dns(pod)?;
            }
            let own = own_ports(&capture);
            let tcp =
                stage.ports(pod, &APP_PORTS, Deed::is_tcp).difference(&own).copied().collect::<Vec<_>>();
            let udp = stage.ports(pod, &STUB_PORTS, |deed| !deed.is_tcp());
            stage.serve(pod, &tcp, &udp.difference(&own).copied().collect::<Vec<_>>())?;
        }
        let tcp = stage.ports(Place::Peer, &SERVICE_PORTS, Deed::is_tcp);
        let udp = stage.ports(Place::Peer, &DATAGRAM_PORTS, |deed| !deed.is_tcp());
        stage.serve(Place::Peer, &Vec::from_iter(tcp), &Vec::from_iter(udp))?;
        Ok(stage)
    }

    /// Makes a connection, and collects what all ends saw of it.
    ///
    /// Whoever accepts it writes that down before its client gets an answer, an end or an error from there, so
    /// everything is written down by the time the client is through.
    pub(super) fn make(&mut self, connection: &Connection, id: u32) -> anyhow::Result<Raw> {
        if let Some(event) = &connection.first {
            self.happen(event)?;
        }
        let mut raw = Raw { client: self.act(connection, id)?, proxies: Vec::new(), servers: Vec::new() };
        for proxy in &mut self.proxies {
            raw.proxies.extend(proxy.sightings()?);
        }
        for (name, server) in &mut self.servers {
            raw.servers.extend(server.sightings()?.into_iter().map(|sighting| (*name, sighting)));
        }
        Ok(raw)
    }

    fn act(&mut self, connection: &Connection, id: u32) -> anyhow::Result<ClientSaw> {
        let to = connection.to.address();
        let bind = connection.bind.map(super::scenario::Endpoint::address);
        let (world, interceptor) = (self.world, &self.runner.interceptor);
        // Many short connections are alone in their scenario, and need all the ports there are.
        if !matches!(connection.deed, Deed::Shorts(_)) {
            world.choose_ports_from(connection.client.place, ports_of(id))?;
        }
        let client = match self.clients.entry(connection.client) {
            Entry::Occupied(client) => client.into_mut(),
            Entry::Vacant(vacant) => {
                let Client { place, owner } = connection.client;
                vacant.insert(Actor::start(world, interceptor, place, owner)?)
            }
        };
        let mut stream = |then: &dyn Fn(&mut Actor) -> anyhow::Result<Option<Outcome<Answer>>>| {
            let connected: Connected = client.connect(id, to, bind)?;
            let answer = if connected.outcome.is_ok() { then(client)? } else { None };
            anyhow::Ok(ClientSaw::Stream(connected, answer))
        };
        match connection.deed {
            Deed::Ask => stream(&|client| Ok(Some(client.ask(id, "hello")?))),
            Deed::Open => stream(&|_| Ok(None)),
            Deed::Converse(how) => stream(&|client| Ok(Some(client.converse(id, to, how)?))),
            Deed::Again(other) => Ok(ClientSaw::Again(client.ask(other, "hello again")?)),
            Deed::Shorts(count) => Ok(ClientSaw::Shorts(client.shorts(to, count)?)),
            Deed::Datagram => Ok(ClientSaw::Datagram(client.datagram(&[to], bind, false)?)),
            Deed::ConnectedDatagram => Ok(ClientSaw::Datagram(client.datagram(&[to], bind, true)?)),
            Deed::Datagrams(other) => {
                Ok(ClientSaw::Datagram(client.datagram(&[to, other.address()], bind, false)?))
            }
            Deed::Fetch(program) => {
                Ok(ClientSaw::Program(program.fetch(world, interceptor, connection.client, to)?))
            }
            Deed::Validate => {
                let Client { place, owner } = connection.client;
                let mut command = world.command(interceptor, place, owner, interceptor)?;
                command.args(["apply", "--skip-rule-apply", "--run-validation", "--probe-timeout=200ms"]);
                command.args(&self.scenario.capture.flags);
                let output = world.run(None, &mut command, "")?;
                Ok(ClientSaw::Validated(output.status.code()))
            }
        }
    }

    fn happen(&mut self, event: &Event) -> anyhow::Result<()> {
        let (world, interceptor, backend) = (self.world, &self.runner.interceptor, self.backend);
        match event {
            Event::Capture(capture) => {
                self.pods().iter().try_for_each(|pod| backend.change(world, interceptor, *pod, capture))
            }
            Event::Release => {
                self.pods().iter().try_for_each(|pod| backend.release(world, interceptor, *pod))
            }
            Event::ProxiesEnd => self.proxies.drain(..).try_for_each(Proxy::kill),
            Event::ProxiesStart => self.start_proxies(),
        }
        .with_context(|| format!("{event:?}"))
    }

    fn pods(&self) -> Vec<Place> {
        let second = self.scenario.layout.second_pod.then_some(Place::SecondPod);
        [Some(Place::Pod), second].into_iter().flatten().collect()
    }

    /// Puts a pod under interception. Where the scenario says that eBPF refuses, its refusal is told as such.
    fn intercept(&self, pod: Place, capture: &CommandLine) -> anyhow::Result<()> {
        let applied = self.backend.apply(self.world, &self.runner.interceptor, pod, capture);
        let Some(words) = self.scenario.refused else { return applied };
        applied.map_err(|error| {
            let text = format!("{error:#}");
            if text.contains(words) { Refusal(text).into() } else { error }
        })
    }

    fn start_proxies(&mut self) -> anyhow::Result<()> {
        for pod in self.pods() {
            let proxy = self.runner.proxy.start_at(self.world, &self.runner.interceptor, pod, self.post)?;
            self.proxies.push(proxy);
        }
        Ok(())
    }

    fn start_mutes(&mut self) -> anyhow::Result<()> {
        for pod in self.pods() {
            let mut mute = Actor::start(self.world, &self.runner.interceptor, pod, self.post.owner)?;
            mute.mute(&any(&[self.post.outbound, self.post.inbound]))?;
            self.mutes.push(mute);
        }
        Ok(())
    }

    /// Istio's DNS proxy listens on loopback alone.
    fn serve_dns(&mut self, pod: Place) -> anyhow::Result<()> {
        let mut server = Actor::start(self.world, &self.runner.interceptor, pod, self.post.owner)?;
        let loopback = [Family::V4, Family::V6]
            .map(|family| SocketAddr::new(Host::Loopback(1).address(family), DNS_PROXY_PORT));
        server.serve(DNS_PROXY, &loopback, &loopback)?;
        self.servers.push((DNS_PROXY, server));
        Ok(())
    }

    fn serve(&mut self, place: Place, tcp: &[u16], udp: &[u16]) -> anyhow::Result<()> {
        let mut server = Actor::start(self.world, &self.runner.interceptor, place, APP.owner)?;
        let name = server_name(place);
        server.serve(name, &any(tcp), &any(udp))?;
        self.servers.push((name, server));
        Ok(())
    }

    /// The usual ports of a place; where the peer is everywhere, also those the scenario connects to.
    fn ports(&self, place: Place, usual: &[u16], is_wanted: impl Fn(Deed) -> bool) -> BTreeSet<u16> {
        let mut ports: BTreeSet<u16> = usual.iter().copied().collect();
        if self.scenario.layout.peer_is_everywhere {
            let wanted = self.scenario.connections.iter().filter(|connection| is_wanted(connection.deed));
            // Every port everywhere: who is asked in the end is what the scenario is to show.
            ports.extend(wanted.filter(|_| place != Place::SecondPod).map(|connection| connection.to.port));
        }
        ports
    }
}

/// The ports that the kernel may choose from for a connection. Connections stay open, and two to different places may
/// by chance get one port; once both are redirected to one place, nat then has to make up another for the second.
fn ports_of(connection: u32) -> Range<u32> {
    /// Above every port that a scenario names.
    const FIRST: u32 = 42_000;
    const EACH: u32 = 1_500;
    /// Ports end before another could follow.
    const SLICES: u32 = 15;
    let first = FIRST + connection % SLICES * EACH;
    first..first + EACH
}

/// Ports in the pod that the proxy needs.
fn own_ports(capture: &Capture) -> BTreeSet<u16> {
    BTreeSet::from([capture.outbound_port, capture.inbound_port, DNS_PROXY_PORT])
}

fn any(ports: &[u16]) -> Vec<SocketAddr> {
    let both = |port: &u16| [Family::V4, Family::V6].map(|f| SocketAddr::new(f.unspecified(), *port));
    ports.iter().flat_map(both).collect()
}
