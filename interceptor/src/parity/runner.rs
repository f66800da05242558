//! Scenarios brought to life, one world each.

use std::{
    collections::{HashMap, hash_map::Entry},
    iter,
    net::SocketAddr,
    num::NonZero,
    path::PathBuf,
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use anyhow::Context as _;

use super::{
    actor::Actor,
    backend::Backend,
    catalogue::{APP_PORTS, DATAGRAM_PORTS, INJECTED, SERVICE_PORTS, server_name},
    observation::{ClientSaw, Observation, Raw},
    plan::{Family, Place},
    proxy::{Proxy, ProxyKind},
    scenario::{APP, Client, Connection, Endpoint, Protocol, Scenario},
    world::{Layout, World},
};

/// How scenarios are run.
#[derive(Clone, Debug)]
pub struct Runner {
    /// The `interceptor` command: the actors, and the backend `ebpf`.
    pub interceptor: PathBuf,
    /// The proxy in the pods.
    pub proxy: ProxyKind,
}

/// What came of one scenario under one backend: an observation per connection.
pub type Run = anyhow::Result<Vec<Observation>>;

impl Runner {
    /// Runs every scenario under every backend, as many at once as there are processors.
    ///
    /// The result has a row per scenario with a run per backend, in the orders given. `done` is called after each run.
    pub fn run_all(
        &self,
        scenarios: &[Scenario],
        backends: &[Backend],
        done: impl Fn() + Sync,
    ) -> Vec<Vec<Run>> {
        let jobs: Vec<_> = scenarios.iter().flat_map(|s| backends.iter().map(move |b| (s, *b))).collect();
        let runs: Vec<OnceLock<Run>> = jobs.iter().map(|_| OnceLock::new()).collect();
        let next = AtomicUsize::new(0);
        let workers = thread::available_parallelism().map_or(1, NonZero::get);
        thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(|| {
                    let take = || next.fetch_add(1, Ordering::Relaxed);
                    for index in iter::repeat_with(take).take_while(|index| *index < jobs.len()) {
                        let (scenario, backend) = jobs[index];
                        runs[index].get_or_init(|| self.run(scenario, backend));
                        done();
                    }
                });
            }
        });
        let mut runs = runs.into_iter().filter_map(OnceLock::into_inner);
        scenarios.iter().map(|_| runs.by_ref().take(backends.len()).collect()).collect()
    }

    /// Tries whether a backend works on this machine at all, so that a missing tool or right is told once.
    pub fn try_out(&self, backend: Backend) -> anyhow::Result<()> {
        let world = World::build(Layout::default())?;
        backend
            .apply(&world, &self.interceptor, Place::Pod, &INJECTED)
            .with_context(|| format!("{backend} does not work here"))?;
        world.close()
    }

    /// Runs one scenario under one backend in a world of its own.
    pub fn run(&self, scenario: &Scenario, backend: Backend) -> Run {
        let world = World::build(scenario.layout)?;
        let mut stage = Stage::set(self, &world, scenario, backend)?;
        let observations = scenario
            .connections
            .iter()
            .zip(0..)
            .map(|(connection, id)| {
                let raw = stage.make(connection, id).with_context(|| format!("connection {connection}"))?;
                Ok(Observation::new(&raw))
            })
            .collect::<anyhow::Result<_>>()?;
        drop(stage);
        world.close()?;
        Ok(observations)
    }
}

/// A world with its proxies and servers up, and the clients started so far.
struct Stage<'w> {
    runner: &'w Runner,
    world: &'w World,
    proxies: Vec<Box<dyn Proxy>>,
    servers: Vec<(&'static str, Actor)>,
    clients: HashMap<Client, Actor>,
}

impl<'w> Stage<'w> {
    /// Intercepts the pods, then starts proxies and servers: the order in which a pod starts.
    fn set(
        runner: &'w Runner,
        world: &'w World,
        scenario: &Scenario,
        backend: Backend,
    ) -> anyhow::Result<Self> {
        let mut stage =
            Self { runner, world, proxies: Vec::new(), servers: Vec::new(), clients: HashMap::new() };
        let pods = [Some(Place::Pod), scenario.layout.second_pod.then_some(Place::SecondPod)];
        for pod in pods.into_iter().flatten() {
            backend.apply(world, &runner.interceptor, pod, &scenario.capture)?;
            if scenario.proxy_runs {
                stage.proxies.push(runner.proxy.start(world, &runner.interceptor, pod)?);
            }
            stage.serve(pod, &APP_PORTS, &[])?;
        }
        stage.serve(Place::Peer, &SERVICE_PORTS, &DATAGRAM_PORTS)?;
        Ok(stage)
    }

    fn serve(&mut self, place: Place, tcp: &[u16], udp: &[u16]) -> anyhow::Result<()> {
        let any = |ports: &[u16]| -> Vec<_> {
            let both = |port: &u16| [Family::V4, Family::V6].map(|f| SocketAddr::new(f.unspecified(), *port));
            ports.iter().flat_map(both).collect()
        };
        let mut server = Actor::start(self.world, &self.runner.interceptor, place, APP.owner)?;
        let name = server_name(place);
        server.serve(name, &any(tcp), &any(udp))?;
        self.servers.push((name, server));
        Ok(())
    }

    /// Makes a connection, and collects what all ends saw of it.
    ///
    /// Whoever accepts it writes that down before its client gets an answer, an end or an error from there, so
    /// everything is written down by the time the client is through.
    fn make(&mut self, connection: &Connection, id: u32) -> anyhow::Result<Raw> {
        let client = match self.clients.entry(connection.client) {
            Entry::Occupied(client) => client.into_mut(),
            Entry::Vacant(vacant) => {
                let Client { place, owner } = connection.client;
                vacant.insert(Actor::start(self.world, &self.runner.interceptor, place, owner)?)
            }
        };
        let to = connection.to.address();
        let client = match connection.protocol {
            Protocol::Tcp => {
                let connected = client.connect(id, to, connection.bind.map(Endpoint::address))?;
                let answer = connected.outcome.is_ok().then(|| client.ask(id, "hello")).transpose()?;
                ClientSaw::Stream(connected, answer)
            }
            Protocol::Udp => ClientSaw::Datagram(client.datagram(to, "hello")?),
        };
        let mut raw = Raw { client, proxies: Vec::new(), servers: Vec::new() };
        for proxy in &mut self.proxies {
            raw.proxies.extend(proxy.sightings()?);
        }
        for (name, server) in &mut self.servers {
            raw.servers.extend(server.sightings()?.into_iter().map(|sighting| (*name, sighting)));
        }
        Ok(raw)
    }
}
