//! Socket calls as an application makes them, with their errors kept as numbers.

use std::{io, net::SocketAddr, time::Duration};

use nix::{errno::Errno, libc};
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};

use super::protocol::{Outcome, Seen};

/// How long any single call may block. Nothing in a world is that far away: reaching it is an outcome of its own.
pub(super) const DEADLINE: Duration = Duration::from_secs(5);

/// The number of a system call's error.
pub(super) fn errno(error: &io::Error) -> i32 {
    // An error without a number is one of the standard library's own making: malformed data.
    error.raw_os_error().unwrap_or(libc::EBADMSG)
}

/// `ECONNREFUSED` and the like.
pub(in crate::parity) fn error_name(errno: i32) -> String {
    format!("{:?}", Errno::from_raw(errno))
}

/// A blocking socket whose calls give up after [`DEADLINE`]. The kernel reports that as EAGAIN, for `connect()` EINPROGRESS.
pub(super) fn open(address: SocketAddr, kind: Type) -> io::Result<Socket> {
    let protocol = if kind == Type::STREAM { Protocol::TCP } else { Protocol::UDP };
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    socket.set_read_timeout(Some(DEADLINE))?;
    socket.set_write_timeout(Some(DEADLINE))?;
    Ok(socket)
}

/// A socket bound to `address`, an IPv6 one for IPv6 alone.
pub(super) fn bound(address: SocketAddr, kind: Type) -> io::Result<Socket> {
    let protocol = if kind == Type::STREAM { Protocol::TCP } else { Protocol::UDP };
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if kind == Type::STREAM {
        // As every server does that is to be started again while connections of its last life linger.
        socket.set_reuse_address(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Everything the socket tells about its ends.
pub(super) fn observe<'s, S>(socket: &'s S) -> Seen
where
    SockRef<'s>: From<&'s S>,
{
    let socket = SockRef::from(socket);
    Seen {
        local: address(socket.local_addr()),
        peer: address(socket.peer_addr()),
        original_v4: address(socket.original_dst_v4()),
        original_v6: address(socket.original_dst_v6()),
    }
}

/// An address as the kernel gave it. One of no internet family counts as an error of the data.
pub(super) fn address(answer: io::Result<SockAddr>) -> Outcome<SocketAddr> {
    answer.map_err(|error| errno(&error))?.as_socket().ok_or(libc::EAFNOSUPPORT)
}
