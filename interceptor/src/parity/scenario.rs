//! A scenario: who connects to where, under which capture, with whom listening. Pure data; the runner gives it life.

use std::{fmt, net::SocketAddr};

use clap::ValueEnum;

use super::{
    actor::{Owner, protocol::Conversation},
    backend::Backend,
    observation::Fact,
    plan::{self, Family, Host, Place},
    program::Program,
    world::Layout,
};
use crate::capture::CommandLine;

/// Some connections in one world, made one after the other and all kept open to the end.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// What it is about, in plain words; no two scenarios have the same.
    pub name: String,
    /// What is intercepted of each pod, as `interceptor apply` takes it.
    pub capture: CommandLine,
    /// What the world consists of.
    pub layout: Layout,
    /// What the proxies do.
    pub sidecar: Sidecar,
    /// The connections in the order in which they are made.
    pub connections: Vec<Connection>,
    /// Differences between nat and eBPF that are meant to be.
    pub expected: Vec<Expected>,
    /// What nat does instead on some kernels.
    pub lost: Option<Lost>,
    /// Why eBPF refuses the capture, in words that its refusal contains; most are not refused.
    pub refused: Option<&'static str>,
    /// Which part of the catalogue it belongs to.
    pub set: Set,
}

/// What a scenario's proxies do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sidecar {
    /// They accept and connect on.
    Runs,
    /// They are not there: nothing listens on their ports.
    Dead,
    /// They listen, but never accept, and few connections can wait for them.
    Mute,
}

/// A part of the catalogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Set {
    /// An ordinary pod as Istio's injector makes it, over IPv4.
    Injected,
    /// The same over IPv6, and over IPv4 on IPv6 sockets.
    Families,
    /// Other captures: every flag, from both sides of its boundary.
    Captures,
    /// Every first and last address and port of lists and ranges, and their neighbours.
    Boundaries,
    /// DNS queries, intercepted and not.
    Dns,
    /// The injected pod's connections in TPROXY mode.
    Tproxy,
    /// What travels over a connection, and how it ends.
    Streams,
    /// Connections while captures change and proxies come and go.
    Changes,
    /// Programs of others as the application: curl, Python, Java, Node, Go.
    Programs,
    /// Transfers of 1 GiB; only run when named.
    Bulk,
}

/// One connection, or one datagram and its answer.
#[derive(Clone, Debug)]
pub struct Connection {
    /// What happens before.
    pub first: Option<Event>,
    /// Who makes it.
    pub client: Client,
    /// What is done.
    pub deed: Deed,
    /// What the client's socket is bound to first.
    pub bind: Option<Endpoint>,
    /// Where it goes.
    pub to: Endpoint,
}

/// What a client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// Connects over TCP, and asks one line.
    Ask,
    /// Connects over TCP, and says nothing.
    Open,
    /// Asks one line over the connection of that index.
    Again(u32),
    /// Connects over TCP, and says more.
    Converse(Conversation),
    /// Makes that many TCP connections, one after the other, each with one line asked.
    Shorts(u32),
    /// Sends a datagram, and waits for an answer.
    Datagram,
    /// The same over a connected socket.
    ConnectedDatagram,
    /// Sends a datagram to each of two places from one socket, then waits for the answers.
    Datagrams(Endpoint),
    /// Fetches a page by a program of somebody else's.
    Fetch(Program),
    /// Has the product find out whether interception works, as Istio's validation container does: it takes the place
    /// of the proxy, which must not be there, and goes nowhere else.
    Validate,
}

impl Deed {
    /// Whether it is done over TCP.
    #[must_use]
    pub fn is_tcp(self) -> bool {
        !matches!(self, Self::Datagram | Self::ConnectedDatagram | Self::Datagrams(_))
    }
}

/// What happens between connections, to every pod.
#[derive(Clone, Debug)]
pub enum Event {
    /// Another capture is put in force.
    Capture(CommandLine),
    /// Interception ends.
    Release,
    /// The proxies are killed.
    ProxiesEnd,
    /// The proxies are started.
    ProxiesStart,
}

/// A process that connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Client {
    /// Where it is.
    pub place: Place,
    /// Whose it is.
    pub owner: Owner,
}

/// An ordinary application in the pod.
pub const APP: Client = Client { place: Place::Pod, owner: Owner { uid: 1000, gid: 1000 } };
/// An application of root's in the pod.
pub const ROOT: Client = Client { place: Place::Pod, owner: Owner { uid: 0, gid: 0 } };
/// A process of the proxy's user and group in the pod.
pub const PROXY: Client = Client { place: Place::Pod, owner: Owner { uid: 1337, gid: 1337 } };
/// A process in the pod that shares only the group with the proxy.
pub const PROXY_GROUP: Client = Client { place: Place::Pod, owner: Owner { uid: 2000, gid: 1337 } };
/// An ordinary application in the second pod.
pub const SECOND_APP: Client = Client { place: Place::SecondPod, owner: APP.owner };
/// Somebody on another host.
pub const REMOTE: Client = Client { place: Place::Peer, owner: APP.owner };

/// An address and port of the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Whose address, or `None` for the wildcard address.
    pub host: Option<Host>,
    /// Its family.
    pub family: Family,
    /// The port, zero for one of the kernel's choice.
    pub port: u16,
}

impl Endpoint {
    /// The endpoint as the socket calls take it.
    #[must_use]
    pub fn address(self) -> SocketAddr {
        let ip = self.host.map_or_else(|| self.family.unspecified(), |host| host.address(self.family));
        SocketAddr::new(ip, self.port)
    }
}

/// A fact that is different under nat and under eBPF, on purpose. Both values are pinned.
#[derive(Clone, Debug)]
pub struct Expected {
    /// Index of the connection.
    pub connection: usize,
    /// Which fact, as [`Fact::name`] gives it.
    pub fact: &'static str,
    /// Its value under a nat backend.
    pub nat: &'static str,
    /// Its value under eBPF.
    pub ebpf: &'static str,
    /// Why they differ.
    pub reason: &'static str,
}

/// A connection that nat loses on some kernels. There it fails, and what else is expected of it under nat is not seen.
#[derive(Clone, Copy, Debug)]
pub struct Lost {
    /// Index of the connection.
    pub connection: usize,
    /// How `connect()` then fails.
    pub errno: &'static str,
    /// The answer that it gets under eBPF all the same.
    pub answer: &'static str,
    /// The original destination that the proxy is told then, at one of the two levels.
    pub original: &'static str,
    /// On which kernels, and why.
    pub reason: &'static str,
}

impl Expected {
    /// Whether this speaks of that fact of that connection.
    #[must_use]
    pub fn is_about(&self, connection: usize, fact: &Fact) -> bool {
        self.connection == connection && self.fact == fact.name
    }

    /// The value pinned for a backend; without interception there is none.
    #[must_use]
    pub fn value(&self, backend: Backend) -> Option<&'static str> {
        if backend.is_nat() { Some(self.nat) } else { (backend == Backend::Ebpf).then_some(self.ebpf) }
    }
}

impl fmt::Display for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.client)?;
        if let Some(bind) = self.bind {
            write!(f, " from {bind}")?;
        }
        write!(f, " → {}", self.to)?;
        match self.deed {
            Deed::Ask => Ok(()),
            Deed::Open => f.write_str(" (says nothing)"),
            Deed::Again(_) => f.write_str(" (asks once more)"),
            Deed::Converse(how) => write!(f, " ({how:?})"),
            Deed::Shorts(count) => write!(f, " ({count} times)"),
            Deed::Datagram => f.write_str(" (UDP)"),
            Deed::ConnectedDatagram => f.write_str(" (UDP, connected)"),
            Deed::Datagrams(other) => write!(f, " and {other} (UDP)"),
            Deed::Fetch(program) => write!(f, " (by {program})"),
            Deed::Validate => f.write_str(" (validation)"),
        }?;
        match &self.first {
            None => Ok(()),
            Some(Event::Capture(_)) => f.write_str(", after the capture changed"),
            Some(Event::Release) => f.write_str(", after interception ended"),
            Some(Event::ProxiesEnd) => f.write_str(", after the proxy died"),
            Some(Event::ProxiesStart) => f.write_str(", after the proxy was started"),
        }
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            APP => f.write_str("app"),
            ROOT => f.write_str("root's app"),
            PROXY => f.write_str("proxy"),
            SECOND_APP => f.write_str("app in pod2"),
            REMOTE => f.write_str("client"),
            Self { place, owner: Owner { uid, gid } } => write!(f, "uid {uid} gid {gid} in {place}"),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = match self.host {
            Some(host) => plan::name(host.address(self.family)),
            None => "*".to_owned(),
        };
        match self.port {
            0 => f.write_str(&host),
            port => f.write_str(&plan::join(&host, &port.to_string())),
        }
    }
}
