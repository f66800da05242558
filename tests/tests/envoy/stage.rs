//! A world with Envoy in the pod, an application beside it, and services at the peer.

use std::{
    collections::{BTreeMap, HashMap, hash_map::Entry},
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};
use interceptor::parity::{
    actor::{
        Actor,
        protocol::{Answer, Connected, Outcome, Sighting},
    },
    backend::Backend,
    catalogue::{APP_PORTS, INJECTED, SERVICE_PORTS, server_name},
    envoy::{Access, Envoy, Service},
    plan::{self, Family, Host, Place},
    scenario::{APP, Client},
    world::{Layout, World},
};
use nix::errno::Errno;

/// What is sent to this port of any address, Envoy sends to the pod's own application.
pub(crate) const MESH_PORT: u16 = 9080;

/// The application's port that [`MESH_PORT`] stands for.
const APP_PORT: u16 = 8080;

/// Where `cargo xtask setup` puts Envoy.
pub(crate) fn envoy_path() -> anyhow::Result<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/bin/envoy");
    ensure!(path.exists(), "Envoy is missing at {}: run `cargo xtask setup`", path.display());
    Ok(path)
}

/// Everything that takes part in a test.
pub(crate) struct Stage {
    // Fields are dropped from the top: processes before the world they are in.
    clients: HashMap<Client, Actor>,
    servers: [(&'static str, Actor); 2],
    envoy: Option<Envoy>,
    interceptor: PathBuf,
    world: World,
}

impl Stage {
    /// Sets it up in the order in which a pod starts: interception, Envoy, application.
    pub(crate) fn set(backend: Backend) -> anyhow::Result<Self> {
        let interceptor = interceptor_tests::interceptor();
        let world = World::build(Layout::default())?;
        backend.apply(&world, &interceptor, Place::Pod, &INJECTED)?;
        let envoy = Some(start(&world, &interceptor)?);
        let servers = [
            serve(&world, &interceptor, Place::Pod, &APP_PORTS)?,
            serve(&world, &interceptor, Place::Peer, &SERVICE_PORTS)?,
        ];
        Ok(Self { clients: HashMap::new(), servers, envoy, interceptor, world })
    }

    /// Makes a connection, asks over it, closes it, and tells what all ends saw, a line each.
    ///
    /// Ports that a kernel chose are called by the role of who got them.
    pub(crate) fn connect(&mut self, client: Client, to: Host, port: u16) -> anyhow::Result<Vec<String>> {
        let actor = match self.clients.entry(client) {
            Entry::Occupied(actor) => actor.into_mut(),
            Entry::Vacant(vacant) => {
                vacant.insert(Actor::start(&self.world, &self.interceptor, client.place, client.owner)?)
            }
        };
        let connected = actor.connect(0, SocketAddr::new(to.address(Family::V4), port), None)?;
        let answer = connected.outcome.is_ok().then(|| actor.ask(0, "hello")).transpose()?;
        if connected.outcome.is_ok() {
            actor.close(0)?;
        }
        let accesses = self.envoy.as_mut().map_or(Ok(Vec::new()), Envoy::accesses)?;

        let mut seen = vec![client_line(&connected, answer)];
        // The latest connection comes first: whoever is seen further on is more likely its maker.
        let mut callers: Vec<_> =
            connected.seen.local.ok().map(|local| (local, "client")).into_iter().collect();
        for access in &accesses {
            seen.push(envoy_line(access, &callers));
            callers.splice(0..0, access.upstream_source.map(|source| (source, "envoy")));
        }
        for (name, server) in &mut self.servers {
            for sighting in server.sightings()? {
                seen.push(server_line(name, &sighting, &callers)?);
            }
        }
        Ok(seen)
    }

    /// Envoy's counters.
    pub(crate) fn stats(&self) -> anyhow::Result<BTreeMap<String, u64>> {
        self.envoy.as_ref().context("Envoy is not running")?.stats()
    }

    /// Ends Envoy as a crash would.
    pub(crate) fn stop_envoy(&mut self) -> anyhow::Result<()> {
        self.envoy.take().context("Envoy is not running")?.stop()
    }

    /// Starts Envoy again.
    pub(crate) fn start_envoy(&mut self) -> anyhow::Result<()> {
        ensure!(self.envoy.is_none(), "Envoy is running");
        self.envoy = Some(start(&self.world, &self.interceptor)?);
        Ok(())
    }

    /// Removes everything, and says whether that worked.
    pub(crate) fn close(self) -> anyhow::Result<()> {
        let Self { clients, servers, envoy, interceptor: _, world } = self;
        drop((clients, servers, envoy));
        world.close()
    }
}

fn start(world: &World, interceptor: &Path) -> anyhow::Result<Envoy> {
    let endpoint = SocketAddr::new(Host::Pod.address(Family::V4), APP_PORT);
    Envoy::start(world, interceptor, Place::Pod, &envoy_path()?, &[Service { port: MESH_PORT, endpoint }])
}

fn serve(
    world: &World,
    interceptor: &Path,
    place: Place,
    ports: &[u16],
) -> anyhow::Result<(&'static str, Actor)> {
    let mut server = Actor::start(world, interceptor, place, APP.owner)?;
    let addresses: Vec<_> = ports.iter().map(|port| SocketAddr::from(([0; 4], *port))).collect();
    server.serve(server_name(place), &addresses, &[])?;
    Ok((server_name(place), server))
}

fn client_line(connected: &Connected, answer: Option<Outcome<Answer>>) -> String {
    let (Ok(()), Ok(local), Ok(peer)) = (connected.outcome, connected.seen.local, connected.seen.peer) else {
        let errors = [connected.outcome.err(), connected.seen.local.err(), connected.seen.peer.err()];
        return format!("client: {}", errors.into_iter().flatten().next().map_or_else(String::new, error));
    };
    let answer = match answer {
        Some(Ok(Answer::Line(line))) => format!("answers {line:?}"),
        Some(Ok(Answer::Closed)) => "closes".to_owned(),
        Some(Err(number)) => error(number),
        None => "was not asked".to_owned(),
    };
    format!("client from {}:client: {} {answer}", plan::name(local.ip()), fixed(peer))
}

fn envoy_line(access: &Access, callers: &[(SocketAddr, &str)]) -> String {
    let Access { chain, cluster, flags, .. } = access;
    let (local, peer, original) = (fixed(access.local), caller(access.peer, callers), fixed(access.original));
    let upstream = access.upstream.map_or_else(|| "nobody".to_owned(), fixed);
    format!("{chain} at {local}: {peer} for {original}; {cluster} to {upstream}, {flags}")
}

fn server_line(name: &str, sighting: &Sighting, callers: &[(SocketAddr, &str)]) -> anyhow::Result<String> {
    let local = sighting.seen.as_ref().and_then(|seen| seen.local.ok());
    let local = local.context("a server's socket has a local address")?;
    Ok(format!("{name} at {}: {}", fixed(local), caller(sighting.from, callers)))
}

/// An address whose port somebody decided on.
fn fixed(address: SocketAddr) -> String {
    format!("{}:{}", plan::name(address.ip()), address.port())
}

/// An address by the role of who connected from it.
fn caller(address: SocketAddr, callers: &[(SocketAddr, &str)]) -> String {
    let role = callers.iter().find(|(caller, _)| *caller == address).map_or("unknown", |(_, role)| role);
    format!("{}:{role}", plan::name(address.ip()))
}

fn error(number: i32) -> String {
    format!("{:?}", Errno::from_raw(number))
}
