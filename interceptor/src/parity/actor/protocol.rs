//! What the runner asks an actor to do and what the actor answers: one line of JSON each way.
//!
//! An answer is a `Result`: of the type that the request names, or the reason why the actor could not do what it was
//! asked. What interception does to a connection is never the latter.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// The result of a system call: a value or the number of its error.
pub type Outcome<T> = Result<T, i32>;

/// One thing to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Request {
    /// Makes a TCP socket, connects it, and says what it sees: [`Connected`]. The socket stays open under `id`.
    Connect {
        /// Name of the socket in later requests.
        id: u32,
        /// Where to.
        to: SocketAddr,
        /// Address to bind to first. `SO_REUSEADDR` is set then, so that several sockets may share a port.
        bind: Option<SocketAddr>,
    },
    /// Sends a line and waits for the answer: `Outcome<Answer>`.
    Ask {
        /// The socket.
        id: u32,
        /// What to send, without the line end.
        text: String,
    },
    /// Closes a socket. Like the other requests that name no type, it is answered by `null`.
    Close {
        /// The socket.
        id: u32,
    },
    /// Has a [`Conversation`] over a socket, with which that is closed: `Outcome<Answer>`.
    Converse {
        /// The socket.
        id: u32,
        /// Where it is connected to.
        to: SocketAddr,
        /// What to say.
        how: Conversation,
    },
    /// Connects, asks one line and closes again, that many times in a row: [`Shorts`].
    Shorts {
        /// Where to.
        to: SocketAddr,
        /// How often.
        count: u32,
    },
    /// Sends datagrams from one fresh socket, then waits for an answer to each: [`Datagram`].
    Datagram {
        /// Where to, one datagram each.
        to: Vec<SocketAddr>,
        /// Address to bind to first.
        bind: Option<SocketAddr>,
        /// Whether the socket is connected to the first of them, and sends without an address.
        connected: bool,
    },
    /// Serves these addresses until the actor ends: every line is answered with the server's name.
    Serve {
        /// How the server calls itself in answers.
        name: String,
        /// TCP addresses.
        tcp: Vec<SocketAddr>,
        /// UDP addresses.
        udp: Vec<SocketAddr>,
    },
    /// Is a sidecar proxy until the actor ends: accepts here and connects on to the original destination.
    Proxy {
        /// Listeners for the workload's own connections.
        outbound: Vec<SocketAddr>,
        /// Listeners for connections to the workload.
        inbound: Vec<SocketAddr>,
        /// The mark of its connections to the workload, made in the client's name, as in TPROXY mode.
        mark: Option<u32>,
    },
    /// Listens on these addresses until the actor ends, and never accepts. One connection may wait at each.
    Mute {
        /// TCP addresses.
        listen: Vec<SocketAddr>,
    },
    /// Asks for every connection that `Serve` or `Proxy` accepted since the last such request: a list of
    /// [`Sighting`].
    Sightings,
    /// Connects `count` times in a row, one connection at a time, to destinations that differ each time: [`Churned`].
    Churn(Churn),
    /// Accepts on this address with several threads and checks each connection against what its client says.
    Tally {
        /// Where to listen.
        listen: SocketAddr,
    },
    /// Asks for the counts of `Tally`: [`Tallied`].
    Tallied,
}

/// A run of short connections, for the counterpart [`Request::Tally`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Churn {
    /// The first destination; the following ones count its address up, and its port when the addresses are through.
    pub first: SocketAddr,
    /// How many addresses there are from the first one on.
    pub addresses: u16,
    /// How many connections to make.
    pub count: u32,
}

/// What is said over a connection beyond a line and its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Conversation {
    /// That many bytes to the server, which answers with their checksum.
    Upload(u64),
    /// That many bytes from the server; the answer is their checksum.
    Download(u64),
    /// The client ends its direction, the server tells what it got until then.
    HalfClose,
    /// The client resets the connection, and asks by another one how the server saw it end.
    Reset,
    /// The server closes instead of answering.
    ServerCloses,
    /// The server resets the connection instead of answering.
    ServerResets,
    /// A byte of urgent data among others; the server tells what it got.
    Urgent,
}

/// The end of [`Request::Shorts`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shorts {
    /// Connections that were answered.
    pub answered: u32,
    /// The error of the first that was not.
    pub failed: Option<i32>,
}

/// The far end's answer on a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// A line.
    Line(String),
    /// The connection was closed in good order instead.
    Closed,
}

/// What a connecting application sees.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Connected {
    /// What `connect()` returned.
    pub outcome: Outcome<()>,
    /// Whether it returned at once; if not, it was given up at a deadline.
    pub at_once: bool,
    /// What the socket shows afterwards.
    pub seen: Seen,
}

/// What the sender of datagrams sees.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Datagram {
    /// Local address after sending.
    pub local: Outcome<SocketAddr>,
    /// `getpeername()` of a connected socket.
    pub peer: Option<Outcome<SocketAddr>>,
    /// The answers in the order of their arrival, each with the address it came from.
    pub answers: Vec<Outcome<(String, SocketAddr)>>,
}

/// Everything a socket tells about its ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// `getsockname()`.
    pub local: Outcome<SocketAddr>,
    /// `getpeername()`.
    pub peer: Outcome<SocketAddr>,
    /// `SO_ORIGINAL_DST` at `SOL_IP`.
    pub original_v4: Outcome<SocketAddr>,
    /// `IP6T_SO_ORIGINAL_DST` at `SOL_IPV6`.
    pub original_v6: Outcome<SocketAddr>,
}

impl Seen {
    /// The original destination, at whichever level there is one.
    #[must_use]
    pub fn original(&self) -> Option<SocketAddr> {
        self.original_v4.or(self.original_v6).ok()
    }
}

/// One accepted connection, or one datagram that arrived.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sighting {
    /// The address the listener is bound to.
    pub listener: SocketAddr,
    /// The peer address that `accept()` itself (or `recvfrom()`) gave.
    pub from: SocketAddr,
    /// What the accepted socket shows; `None` for a datagram.
    pub seen: Option<Seen>,
    /// The proxy's own connection towards the destination; `None` for a server.
    pub onward: Option<Outcome<SocketAddr>>,
}

/// The end of a [`Churn`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Churned {
    /// Connections that were made and acknowledged by the proxy.
    pub connected: u32,
    /// The first connection that failed, and how.
    pub failed: Option<(SocketAddr, i32)>,
}

/// What the accepting side of a [`Churn`] counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tallied {
    /// Connections whose original destination was what the client had asked for.
    pub right: u32,
    /// Connections with another original destination: first one wanted and got.
    pub wrong: Vec<(SocketAddr, SocketAddr)>,
    /// Connections without an original destination: wanted, and the error.
    pub missing: Vec<(SocketAddr, i32)>,
}
