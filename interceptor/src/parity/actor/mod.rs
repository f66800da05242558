//! Processes that act in a world: applications, servers, and a small sidecar proxy.
//!
//! An actor is the `interceptor` command again with its hidden subcommand `actor`, in a namespace, in a cgroup and with an
//! owner of its own. It does what [`protocol::Request`] says, read from standard input, until that is closed.

mod churn;
mod converse;
mod datagram;
mod process;
pub mod protocol;
mod proxy;
mod server;
pub(super) mod socket;

use std::{
    net::SocketAddr,
    path::Path,
    process::{Child, Stdio},
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Context as _;

pub use self::process::serve_requests;
use self::protocol::{
    Answer, Churn, Churned, Connected, Conversation, Datagram, Outcome, Request, Shorts, Sighting, Tallied,
};
use super::{
    exchange::Exchange,
    plan::Place,
    world::{Namespace, World},
};

/// Owner of a process: user and group id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Owner {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// The runner's end of an actor. The process ends when its standard input is closed, so at the latest with this.
pub struct Actor {
    exchange: Exchange,
    child: Option<Arc<Mutex<Child>>>,
}

impl Actor {
    /// Starts an actor; `interceptor` is the path of the `interceptor` command.
    pub fn start(world: &World, interceptor: &Path, place: Place, owner: Owner) -> anyhow::Result<Self> {
        Self::start_in(world, interceptor, world.namespace(place)?, owner)
    }

    /// Starts an actor in any namespace.
    pub fn start_in(
        world: &World,
        interceptor: &Path,
        namespace: &Namespace,
        owner: Owner,
    ) -> anyhow::Result<Self> {
        let mut command = world.actor_command(interceptor, namespace, owner);
        let child = world.spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()))?;
        let actor = Self::of(&mut child.lock().unwrap_or_else(PoisonError::into_inner))?;
        Ok(Self { child: Some(child), ..actor })
    }

    /// Ends the process at once and waits until it is gone, with all its sockets.
    pub fn kill(self) -> anyhow::Result<()> {
        let child = self.child.context("the process of this actor is somebody else's to end")?;
        let mut child = child.lock().unwrap_or_else(PoisonError::into_inner);
        child.kill().and_then(|()| child.wait()).context("cannot end an actor")?;
        Ok(())
    }

    /// Takes charge of an actor's process, whose standard input and output are pipes.
    pub fn of(child: &mut Child) -> anyhow::Result<Self> {
        Ok(Self { exchange: Exchange::with(child)?, child: None })
    }

    /// Connects; see [`Request::Connect`].
    pub fn connect(
        &mut self,
        id: u32,
        to: SocketAddr,
        bind: Option<SocketAddr>,
    ) -> anyhow::Result<Connected> {
        self.exchange.ask(&Request::Connect { id, to, bind })
    }

    /// Sends a line and waits for the answer; see [`Request::Ask`].
    pub fn ask(&mut self, id: u32, text: &str) -> anyhow::Result<Outcome<Answer>> {
        self.exchange.ask(&Request::Ask { id, text: text.to_owned() })
    }

    /// Closes a socket.
    pub fn close(&mut self, id: u32) -> anyhow::Result<()> {
        self.exchange.ask(&Request::Close { id })
    }

    /// Has a conversation, after which the socket is closed; see [`Request::Converse`].
    pub fn converse(
        &mut self,
        id: u32,
        to: SocketAddr,
        how: Conversation,
    ) -> anyhow::Result<Outcome<Answer>> {
        self.exchange.ask(&Request::Converse { id, to, how })
    }

    /// Makes short connections; see [`Request::Shorts`].
    pub fn shorts(&mut self, to: SocketAddr, count: u32) -> anyhow::Result<Shorts> {
        self.exchange.ask(&Request::Shorts { to, count })
    }

    /// Sends datagrams and waits for the answers; see [`Request::Datagram`].
    pub fn datagram(
        &mut self,
        to: &[SocketAddr],
        bind: Option<SocketAddr>,
        connected: bool,
    ) -> anyhow::Result<Datagram> {
        self.exchange.ask(&Request::Datagram { to: to.to_vec(), bind, connected })
    }

    /// Becomes a server; see [`Request::Serve`].
    pub fn serve(&mut self, name: &str, tcp: &[SocketAddr], udp: &[SocketAddr]) -> anyhow::Result<()> {
        self.exchange.ask(&Request::Serve { name: name.to_owned(), tcp: tcp.to_vec(), udp: udp.to_vec() })
    }

    /// Becomes a proxy; see [`Request::Proxy`].
    pub fn proxy(&mut self, outbound: &[SocketAddr], inbound: &[SocketAddr]) -> anyhow::Result<()> {
        self.be_proxy(outbound, inbound, None)
    }

    /// Becomes a proxy in TPROXY mode, whose connections to the workload have this mark.
    pub fn transparent_proxy(
        &mut self,
        outbound: &[SocketAddr],
        inbound: &[SocketAddr],
        mark: u32,
    ) -> anyhow::Result<()> {
        self.be_proxy(outbound, inbound, Some(mark))
    }

    fn be_proxy(
        &mut self,
        outbound: &[SocketAddr],
        inbound: &[SocketAddr],
        mark: Option<u32>,
    ) -> anyhow::Result<()> {
        self.exchange.ask(&Request::Proxy { outbound: outbound.to_vec(), inbound: inbound.to_vec(), mark })
    }

    /// Listens without ever accepting; see [`Request::Mute`].
    pub fn mute(&mut self, listen: &[SocketAddr]) -> anyhow::Result<()> {
        self.exchange.ask(&Request::Mute { listen: listen.to_vec() })
    }

    /// What this server or proxy accepted since the last call.
    pub fn sightings(&mut self) -> anyhow::Result<Vec<Sighting>> {
        self.exchange.ask(&Request::Sightings)
    }

    /// Makes many short connections; see [`Request::Churn`].
    pub fn churn(&mut self, churn: Churn) -> anyhow::Result<Churned> {
        self.exchange.ask(&Request::Churn(churn))
    }

    /// Becomes the accepting side of [`Actor::churn`]; see [`Request::Tally`].
    pub fn tally(&mut self, listen: SocketAddr) -> anyhow::Result<()> {
        self.exchange.ask(&Request::Tally { listen })
    }

    /// What [`Actor::tally`] counted so far.
    pub fn tallied(&mut self) -> anyhow::Result<Tallied> {
        self.exchange.ask(&Request::Tallied)
    }
}
