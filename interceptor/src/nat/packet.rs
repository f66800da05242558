//! The first packet of a connection, as the rules see it.

use std::{fmt, net::IpAddr};

use super::model::{Family, Protocol};

/// The first packet of a connection. Rules decide about it, and the kernel applies their verdict to all that follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// TCP, UDP or another.
    pub protocol: Protocol,
    /// Where it comes from.
    pub source: IpAddr,
    /// The source port, host order.
    pub source_port: u16,
    /// Where it goes to.
    pub destination: IpAddr,
    /// The destination port, host order.
    pub port: u16,
    /// Which way it passes.
    pub path: Path,
}

/// Which way a packet passes the rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Path {
    /// It was made here: OUTPUT.
    Outgoing {
        /// The interface the route leads out of; `lo` when the destination is local.
        interface: String,
        /// The user that made the socket.
        uid: u32,
        /// The group that made the socket.
        gid: u32,
        /// The socket's firewall mark; 0 unless it asked for one.
        mark: u32,
    },
    /// It arrives from elsewhere: PREROUTING.
    Incoming {
        /// The interface it arrives on.
        interface: String,
    },
}

impl Packet {
    /// The family, which says whose rules apply.
    #[must_use]
    pub fn family(&self) -> Family {
        if self.destination.is_ipv4() { Family::V4 } else { Family::V6 }
    }
}

/// A sentence's worth: `tcp 10.1.0.5:40000 -> 10.9.9.9:80, from uid 1000 gid 1000, out of eth0`.
impl fmt::Display for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { protocol, source, source_port, destination, port, path } = self;
        let source = std::net::SocketAddr::new(*source, *source_port);
        let destination = std::net::SocketAddr::new(*destination, *port);
        write!(f, "{protocol} {source} -> {destination}, ")?;
        match path {
            Path::Outgoing { interface, uid, gid, mark } => {
                write!(f, "made by uid {uid} gid {gid}, ")?;
                if *mark != 0 {
                    write!(f, "with mark {mark}, ")?;
                }
                write!(f, "out of {interface}")
            }
            Path::Incoming { interface } => write!(f, "arriving on {interface}"),
        }
    }
}
