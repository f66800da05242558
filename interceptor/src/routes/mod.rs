//! The route mirror: what the kernel would answer for every destination of a namespace.
//!
//! A connection's source address, and whether its destination is local, are the kernel's routing decision, and a
//! BPF program cannot ask for it at connect. So userspace asks: the namespace's tables give the prefixes at which an
//! answer can change, and for each prefix the kernel itself is asked about one address of it (`RTM_GETROUTE`). That way
//! metrics, preferred sources and table order are the kernel's own doing.

mod local;
mod marked;
mod netlink;
mod representative;
mod rules;

use std::net::IpAddr;

use ipnet::IpNet;
use thiserror::Error;

pub use self::{
    local::{add_local_ipv6, remove_local_ipv6},
    marked::{add_marked, remove_marked},
    netlink::{is_neighbour, read},
    rules::policy_rules,
};

/// What the kernel does with destinations of one prefix that no longer prefix covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The destinations.
    pub prefix: IpNet,
    /// What becomes of them.
    pub answer: Answer,
    /// For a local address, the first address of its interface: what nat's REDIRECT shows for packets from outside.
    pub primary: Option<IpAddr>,
}

/// What the kernel does with a destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is an address of this namespace.
    Local {
        /// Source address chosen for it.
        source: Option<IpAddr>,
    },
    /// It is sent out.
    Forward {
        /// Index of the interface.
        interface: u32,
        /// Source address chosen for it.
        source: Option<IpAddr>,
    },
    /// It cannot be connected to: no route, or a broadcast or multicast address.
    Unreachable,
}

/// Why the routes of a namespace cannot be read.
#[derive(Debug, Error)]
pub enum RoutesError {
    /// No netlink socket.
    #[error("cannot open a netlink socket in the namespace: {0}")]
    Socket(#[from] std::io::Error),
    /// A switch of the namespace cannot be read or set.
    #[error("cannot switch on or off {path}, which TPROXY's way back needs: {source}")]
    Switch {
        /// The switch.
        path: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// A request failed.
    #[error("cannot {what} in the namespace by netlink: {source}")]
    Request {
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        source: rtnetlink::Error,
    },
}

/// Runs netlink requests on a connection of the calling thread's namespace.
fn with_netlink<T, F>(work: impl FnOnce(rtnetlink::Handle) -> F) -> Result<T, RoutesError>
where
    F: Future<Output = Result<T, RoutesError>>,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let (connection, handle, _messages) = rtnetlink::new_connection()?;
        let driver = tokio::spawn(connection);
        let result = work(handle).await;
        driver.abort();
        result
    })
}
