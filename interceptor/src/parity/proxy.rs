//! The sidecar proxy of a world, whichever program it is.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use super::{
    actor::{Actor, Owner, protocol::Sighting},
    envoy::Envoy,
    plan::{Family, Place},
    report::Skip,
    world::World,
};
use crate::capture::{Capture, InboundMode};

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

    /// Kills it, and waits until it is gone with all its sockets.
    fn kill(self: Box<Self>) -> anyhow::Result<()>;
}

/// What a proxy must know of the capture it serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Post {
    /// Who it runs as.
    pub owner: Owner,
    /// The port for the workload's own connections.
    pub outbound: u16,
    /// The port for connections to the workload.
    pub inbound: u16,
    /// In TPROXY mode the mark of its connections to the workload.
    pub mark: Option<u32>,
}

impl Default for Post {
    /// Istio's, in REDIRECT mode.
    fn default() -> Self {
        Self { owner: OWNER, outbound: OUTBOUND_PORT, inbound: INBOUND_PORT, mark: None }
    }
}

impl Post {
    /// The post under a capture: its first user and group are the proxy's.
    #[must_use]
    pub fn of(capture: &Capture) -> Self {
        let gid = capture.proxy_gids.first().copied();
        let uid = capture.proxy_uids.first().copied();
        let (owner, mark) = match capture.inbound_mode {
            InboundMode::Redirect => {
                (Owner { uid: uid.unwrap_or(OWNER.uid), gid: gid.unwrap_or(OWNER.gid) }, None)
            }
            // Transparent sockets take a right that root alone has.
            InboundMode::Tproxy => {
                (Owner { uid: 0, gid: gid.unwrap_or(OWNER.gid) }, Some(capture.tproxy_mark))
            }
        };
        Self { owner, outbound: capture.outbound_port, inbound: capture.inbound_port, mark }
    }
}

impl ProxyKind {
    /// Starts the proxy of a pod and returns when it listens.
    pub fn start(&self, world: &World, interceptor: &Path, pod: Place) -> anyhow::Result<Box<dyn Proxy>> {
        self.start_at(world, interceptor, pod, Post::default())
    }

    /// The same for any capture.
    pub fn start_at(
        &self,
        world: &World,
        interceptor: &Path,
        pod: Place,
        post: Post,
    ) -> anyhow::Result<Box<dyn Proxy>> {
        match self {
            Self::Builtin => {
                let mut actor = Actor::start(world, interceptor, pod, post.owner)?;
                let any =
                    |port| [Family::V4, Family::V6].map(|family| SocketAddr::new(family.unspecified(), port));
                let (outbound, inbound) = (any(post.outbound), any(post.inbound));
                match post.mark {
                    None => actor.proxy(&outbound, &inbound)?,
                    Some(mark) => actor.transparent_proxy(&outbound, &inbound, mark)?,
                }
                Ok(Box::new(actor))
            }
            Self::Envoy(binary) => {
                if post != Post::default() {
                    let why = "Envoy is set up here for Istio's ports and user in REDIRECT mode only";
                    return Err(Skip(why.to_owned()).into());
                }
                Ok(Box::new(Envoy::start(world, interceptor, pod, binary, &[])?))
            }
        }
    }
}

impl Proxy for Actor {
    fn sightings(&mut self) -> anyhow::Result<Vec<Sighting>> {
        Self::sightings(self)
    }

    fn kill(self: Box<Self>) -> anyhow::Result<()> {
        (*self).kill()
    }
}
