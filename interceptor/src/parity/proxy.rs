//! The sidecar proxy of a world, whichever program it is.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use super::{
    actor::{Actor, Owner, protocol::Sighting},
    envoy::Envoy,
    plan::{Family, Place},
    world::World,
};

/// Istio's port for connections of the workload's own.
pub const OUTBOUND_PORT: u16 = 15001;
/// Istio's port for connections to the workload.
pub const INBOUND_PORT: u16 = 15006;
/// Who Istio's proxy runs as.
pub const OWNER: Owner = Owner { uid: 1337, gid: 1337 };

/// Which program is the proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ProxyKind {
    /// A small one of our own, which tells everything it sees.
    #[default]
    Builtin,
    /// The Envoy at this path, with Istio's listeners.
    Envoy(PathBuf),
}

/// A running proxy.
pub trait Proxy {
    /// What it accepted since the last call.
    fn sightings(&mut self) -> anyhow::Result<Vec<Sighting>>;
}

impl ProxyKind {
    /// Starts the proxy of a pod and returns when it listens.
    pub fn start(&self, world: &World, interceptor: &Path, pod: Place) -> anyhow::Result<Box<dyn Proxy>> {
        match self {
            Self::Builtin => {
                let mut actor = Actor::start(world, interceptor, pod, OWNER)?;
                let any =
                    |port| [Family::V4, Family::V6].map(|family| SocketAddr::new(family.unspecified(), port));
                actor.proxy(&any(OUTBOUND_PORT), &any(INBOUND_PORT))?;
                Ok(Box::new(actor))
            }
            Self::Envoy(binary) => Ok(Box::new(Envoy::start(world, interceptor, pod, binary, &[])?)),
        }
    }
}

impl Proxy for Actor {
    fn sightings(&mut self) -> anyhow::Result<Vec<Sighting>> {
        Self::sightings(self)
    }
}
