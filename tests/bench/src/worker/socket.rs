//! Sockets as the hot loops use them: one system call a line, nothing allocated.

use std::{
    net::SocketAddr,
    os::fd::{AsRawFd as _, OwnedFd},
};

use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, connect, recv, send,
        socket,
    },
};

/// The first byte of a connection tells the serving end what to do with it.
pub(super) const ECHO: u8 = b'e';
/// Everything is read, and one byte sent when all has come.
pub(super) const SINK: u8 = b's';
/// The byte is answered, and the connection kept.
pub(super) const KEEP: u8 = b'k';

/// A target as the kernel takes it.
pub(super) struct Target {
    address: SockaddrStorage,
    family: AddressFamily,
}

impl Target {
    pub(super) fn new(address: SocketAddr) -> Self {
        let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        Self { address: address.into(), family }
    }

    /// A connection to it.
    pub(super) fn connect(&self) -> nix::Result<OwnedFd> {
        let connection = self.socket()?;
        self.connect_from(&connection)?;
        Ok(connection)
    }

    /// A socket that can connect to it.
    pub(super) fn socket(&self) -> nix::Result<OwnedFd> {
        socket(self.family, SockType::Stream, SockFlag::SOCK_CLOEXEC, SockProtocol::Tcp)
    }

    /// Connects a socket to it.
    pub(super) fn connect_from(&self, socket: &OwnedFd) -> nix::Result<()> {
        connect(socket.as_raw_fd(), &self.address)
    }
}

/// Sends one byte and waits for one.
pub(super) fn exchange(connection: &OwnedFd, byte: u8) -> nix::Result<()> {
    send_all(connection, &[byte])?;
    receive_exactly(connection, &mut [0])
}

/// Sends all of it.
pub(super) fn send_all(connection: &OwnedFd, mut bytes: &[u8]) -> nix::Result<()> {
    while !bytes.is_empty() {
        let sent = send(connection.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL)?;
        bytes = &bytes[sent..];
    }
    Ok(())
}

/// Fills all of it. A connection that ends before is an error.
pub(super) fn receive_exactly(connection: &OwnedFd, mut bytes: &mut [u8]) -> nix::Result<()> {
    while !bytes.is_empty() {
        match recv(connection.as_raw_fd(), bytes, MsgFlags::empty())? {
            0 => return Err(Errno::ECONNABORTED),
            received => bytes = &mut bytes[received..],
        }
    }
    Ok(())
}
