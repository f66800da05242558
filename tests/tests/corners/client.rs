//! An application inside the pod: sockets with deadlines, and lines asked and answered over them.

use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::{AsFd as _, AsRawFd as _},
    time::Duration,
};

use interceptor::parity::plan::{Family, Host};
use nix::{
    libc,
    poll::{PollFd, PollFlags, poll},
};
use socket2::{Domain, Protocol, Socket, Type};

use crate::account::Account;

/// Nothing here takes long; what takes as long as this hangs.
const DEADLINE: Duration = Duration::from_secs(10);

/// The families in which applications speak.
pub(crate) const FAMILIES: [Family; 3] = [Family::V4, Family::V6, Family::Mapped];

/// A service of the peer's.
pub(crate) fn service(number: u8, port: u16) -> SocketAddr {
    service_in(Family::V4, number, port)
}

/// The same in a family.
pub(crate) fn service_in(family: Family, number: u8, port: u16) -> SocketAddr {
    SocketAddr::new(Host::Service(number).address(family), port)
}

/// A TCP socket for connections to `to`.
pub(crate) fn tcp(to: SocketAddr) -> io::Result<Socket> {
    patient(Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?)
}

/// The socket, with calls that give up in the end.
pub(crate) fn patient(socket: Socket) -> io::Result<Socket> {
    socket.set_read_timeout(Some(DEADLINE))?;
    socket.set_write_timeout(Some(DEADLINE))?;
    Ok(socket)
}

/// Listens as the proxy does; for both families.
pub(crate) fn listen(port: u16) -> io::Result<[TcpListener; 2]> {
    Ok([listener(port, Domain::IPV4, false)?.into(), listener(port, Domain::IPV6, false)?.into()])
}

/// One listener on the wildcard address, an IPv6 one for IPv6 alone.
pub(crate) fn listener(port: u16, domain: Domain, shares_port: bool) -> io::Result<Socket> {
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shares_port)?;
    let address: SocketAddr = if domain == Domain::IPV6 {
        socket.set_only_v6(true)?;
        (Ipv6Addr::UNSPECIFIED, port).into()
    } else {
        (Ipv4Addr::UNSPECIFIED, port).into()
    };
    socket.bind(&address.into())?;
    socket.listen(128)?;
    patient(socket)
}

/// Connects, and notes what the application sees of it, with an answer over it.
pub(crate) fn connect(account: &mut Account, name: &str, socket: &Socket, to: SocketAddr) {
    let outcome = socket.connect(&to.into());
    account.outcome(&format!("{name}.connect"), &outcome);
    account.names(name, socket);
    if outcome.is_ok() {
        ask(account, name, socket);
    }
}

/// Asks a line, and notes the answer.
pub(crate) fn ask(account: &mut Account, name: &str, socket: &Socket) {
    let answer = asked(socket);
    account.note(&format!("{name}.answer"), answer.unwrap_or_else(|error| error.kind().to_string()));
}

fn asked(mut socket: &Socket) -> io::Result<String> {
    socket.write_all(b"hello\n")?;
    line(&mut socket)
}

/// Reads to the end of a line, byte by byte, so that nothing behind it is lost.
pub(crate) fn line(from: &mut impl io::Read) -> io::Result<String> {
    let (mut line, mut byte) = (Vec::new(), [0]);
    while from.read(&mut byte)? == 1 && byte != *b"\n" {
        line.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&line).into_owned())
}

/// Waits until a connection that is being made is made, or failed.
pub(crate) fn settled(socket: &Socket) -> io::Result<()> {
    const DEADLINE_MS: u16 = 10_000;
    if poll(&mut [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)], DEADLINE_MS)? == 0 {
        return Err(io::ErrorKind::TimedOut.into());
    }
    socket.take_error()?.map_or(Ok(()), Err)
}

/// Sets a number that no library names.
pub(crate) fn set(socket: &Socket, level: i32, name: i32, value: i32) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of::<i32>()).unwrap_or(4);
    // SAFETY: the kernel reads the number, of the length given.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Reads to the end of a stream.
pub(crate) fn rest(mut stream: &TcpStream) -> io::Result<String> {
    let mut rest = String::new();
    stream.read_to_string(&mut rest)?;
    Ok(rest)
}
