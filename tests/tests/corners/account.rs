//! What is seen of one corner, in words that do not depend on the run.

use std::{fmt::Display, io, net::SocketAddr};

use interceptor::parity::{
    actor::protocol::{Seen, Sighting},
    plan,
};
use nix::{errno::Errno, libc};
use serde::{Deserialize, Serialize};
use socket2::{SockAddr, SockRef};

/// The first port that the kernel chooses by itself.
const FIRST_CHOSEN: u16 = 32768;

/// Facts with their names, in the order in which they were seen.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Account {
    /// What was seen: name and value.
    pub(crate) facts: Vec<(String, String)>,
    /// Why there is nothing to see on this machine.
    pub(crate) skipped: Option<String>,
    /// Source ports that the kernel chose for the client's sockets.
    pub(crate) ports: Vec<u16>,
}

impl Account {
    /// Notes a fact.
    pub(crate) fn note(&mut self, name: &str, value: impl Display) {
        self.facts.push((name.to_owned(), value.to_string()));
    }

    /// Notes how a call ended.
    pub(crate) fn outcome<T>(&mut self, name: &str, result: &io::Result<T>) {
        match result {
            Ok(_) => self.note(name, "ok"),
            Err(error) => self.note(name, error_name(error)),
        }
    }

    /// Notes everything a socket tells about its ends.
    pub(crate) fn names<'s, S>(&mut self, who: &str, socket: &'s S)
    where
        SockRef<'s>: From<&'s S>,
    {
        let socket = SockRef::from(socket);
        let told = [
            ("local", socket.local_addr()),
            ("peer", socket.peer_addr()),
            ("original_v4", socket.original_dst_v4()),
            ("original_v6", socket.original_dst_v6()),
        ];
        if let Ok(Some(local)) = socket.local_addr().map(|local| local.as_socket())
            && local.port() >= FIRST_CHOSEN
        {
            self.ports.push(local.port());
        }
        for (what, address) in told {
            let address = self.address(address.and_then(|address| internet(&address)));
            self.note(&format!("{who}.{what}"), address);
        }
    }

    /// Notes what a proxy or server accepted.
    pub(crate) fn sighting(&mut self, who: &str, sighting: &Sighting) {
        let Sighting { listener, from, seen, onward: _ } = sighting;
        self.note(&format!("{who}.listener"), self.words(*listener));
        self.note(&format!("{who}.from"), self.words(*from));
        if let Some(Seen { local, peer, original_v4, original_v6 }) = *seen {
            let told = [
                ("local", local),
                ("peer", peer),
                ("original_v4", original_v4),
                ("original_v6", original_v6),
            ];
            for (what, address) in told {
                let address = self.address(address.map_err(io::Error::from_raw_os_error));
                self.note(&format!("{who}.{what}"), address);
            }
        }
    }

    /// An address by its names, or the error in its place.
    pub(crate) fn address(&self, address: io::Result<SocketAddr>) -> String {
        address.map_or_else(|error| error_name(&error), |address| self.words(address))
    }

    fn words(&self, address: SocketAddr) -> String {
        let host = plan::name(address.ip());
        match address.port() {
            port if self.ports.contains(&port) => format!("{host} client's port"),
            port if port >= FIRST_CHOSEN => format!("{host} another port"),
            port => format!("{host} {port}"),
        }
    }
}

fn internet(address: &SockAddr) -> io::Result<SocketAddr> {
    address.as_socket().ok_or_else(|| io::Error::from_raw_os_error(libc::EAFNOSUPPORT))
}

fn error_name(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => format!("{:?}", Errno::from_raw(number)),
        None => error.to_string(),
    }
}
