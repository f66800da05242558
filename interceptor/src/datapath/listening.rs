//! Which sockets listen in the calling thread's namespace.
//!
//! The kernel is asked for listening sockets alone (`NETLINK_SOCK_DIAG`). /proc/net/tcp would list all connections, and
//! reading it walks the table of the whole machine's, which has up to half a million places.

use std::{io, net::SocketAddr};

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_sock_diag::{
    SockDiagMessage,
    constants::{AF_INET, AF_INET6, IPPROTO_TCP},
    inet::{ExtensionFlags, InetRequest, SocketId, StateFlags},
};
use netlink_sys::{Socket, protocols::NETLINK_SOCK_DIAG};

/// A socket that listens.
pub(super) struct Listening {
    /// Its inode, by which a process's descriptor names it.
    pub(super) inode: u64,
    /// Where it listens.
    pub(super) local: SocketAddr,
}

/// The TCP sockets that listen in the calling thread's namespace.
pub(super) fn listening() -> io::Result<Vec<Listening>> {
    let socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.connect(&netlink_sys::SocketAddr::new(0, 0))?;
    let mut found = dump(&socket, AF_INET, SocketId::new_v4())?;
    found.extend(dump(&socket, AF_INET6, SocketId::new_v6())?);
    Ok(found)
}

#[expect(clippy::wildcard_enum_match_arm, reason = "any other answer is an error")]
fn dump(socket: &Socket, family: u8, socket_id: SocketId) -> io::Result<Vec<Listening>> {
    let request = InetRequest {
        family,
        protocol: IPPROTO_TCP,
        extensions: ExtensionFlags::empty(),
        states: StateFlags::LISTEN,
        socket_id,
    };
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let mut message = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0)?;

    let mut found = Vec::new();
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        let mut rest = datagram.as_slice();
        while !rest.is_empty() {
            let message = NetlinkMessage::<SockDiagMessage>::deserialize(rest).map_err(io::Error::other)?;
            // Messages are aligned to four bytes (NLMSG_ALIGN).
            let length = (message.header.length as usize).next_multiple_of(4);
            rest = rest.get(length..).unwrap_or_default();
            match message.payload {
                NetlinkPayload::Done(_) => return Ok(found),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(response)) => {
                    let header = response.header;
                    let local =
                        SocketAddr::new(header.socket_id.source_address, header.socket_id.source_port);
                    found.push(Listening { inode: header.inode.into(), local });
                }
                other => return Err(io::Error::other(format!("the kernel answered {other:?}"))),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, os::linux::fs::MetadataExt as _};

    use super::*;

    #[test]
    fn a_listener_is_found_by_its_inode_and_a_connection_is_not() -> io::Result<()> {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(address)?;
            let local = listener.local_addr()?;
            let client = std::net::TcpStream::connect(local)?;
            let inode = |socket: &dyn std::os::fd::AsRawFd| {
                std::fs::metadata(format!("/proc/self/fd/{}", socket.as_raw_fd())).map(|file| file.st_ino())
            };
            let found = listening()?;
            let listener = inode(&listener)?;
            assert!(found.iter().any(|socket| socket.inode == listener && socket.local == local));
            let client = inode(&client)?;
            assert!(found.iter().all(|socket| socket.inode != client));
        }
        Ok(())
    }
}
