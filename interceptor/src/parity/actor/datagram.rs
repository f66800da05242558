//! Datagrams, from both ends.

use std::{
    io::{self, IoSlice, IoSliceMut},
    net::{SocketAddr, UdpSocket},
    os::fd::AsRawFd as _,
};

use anyhow::Context as _;
use nix::{
    libc,
    sys::socket::{
        ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt, sockopt,
    },
};
use socket2::Type;

use super::{
    protocol::{Datagram, Outcome, Sighting},
    server::Log,
    socket::{self, address, bound, errno},
};

/// Longer than any text that is sent here.
const LONGEST: usize = 512;

/// Sends a datagram to each address, then waits for as many answers.
pub(super) fn exchange(
    to: &[SocketAddr],
    bind: Option<SocketAddr>,
    connected: bool,
) -> anyhow::Result<Datagram> {
    let first = to.first().context("a datagram goes somewhere")?;
    let socket = socket::open(*first, Type::DGRAM).context("cannot make a datagram socket")?;
    if let Some(bind) = bind {
        socket.set_reuse_address(true)?;
        socket.bind(&bind.into()).with_context(|| format!("cannot bind to {bind}"))?;
    }
    let connecting = if connected { socket.connect(&(*first).into()) } else { Ok(()) };
    let socket = UdpSocket::from(socket);
    let sent: Vec<Outcome<()>> = to
        .iter()
        .zip(1..)
        .map(|(to, number)| {
            let text = format!("hello{number}");
            let sent = match (&connecting, connected) {
                (Err(error), _) => return Err(errno(error)),
                (Ok(()), true) => socket.send(text.as_bytes()),
                (Ok(()), false) => socket.send_to(text.as_bytes(), to),
            };
            sent.map(drop).map_err(|error| errno(&error))
        })
        .collect();
    let reference = socket2::SockRef::from(&socket);
    let (local, peer) = (address(reference.local_addr()), address(reference.peer_addr()));
    let mut answers: Vec<_> = sent.into_iter().map(|sent| sent.and_then(|()| receive(&socket))).collect();
    // They come in any order; their texts end in the number of the question.
    answers.sort_by_key(|answer| answer.as_ref().ok().and_then(|(text, _)| text.chars().last()));
    Ok(Datagram { local, peer: connected.then_some(peer), answers })
}

fn receive(socket: &UdpSocket) -> Outcome<(String, SocketAddr)> {
    let mut buffer = [0; LONGEST];
    let (length, from) = socket.recv_from(&mut buffer).map_err(|error| errno(&error))?;
    Ok((String::from_utf8_lossy(&buffer[..length]).into_owned(), from))
}

/// Answers every datagram with `name` and the text, from the address it was sent to.
pub(super) fn serve(
    name: &str,
    address: SocketAddr,
    log: &Log,
) -> io::Result<impl FnOnce() -> io::Result<()> + Send + use<>> {
    let socket = UdpSocket::from(bound(address, Type::DGRAM)?);
    if address.is_ipv4() {
        setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
    } else {
        setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
    }
    let (name, log) = (name.to_owned(), log.clone());
    Ok(move || {
        loop {
            answer(&name, &socket, address, &log)?;
        }
    })
}

fn answer(name: &str, socket: &UdpSocket, listener: SocketAddr, log: &Log) -> io::Result<()> {
    let mut buffer = [0; LONGEST];
    let mut control = nix::cmsg_space!(libc::in_pktinfo, libc::in6_pktinfo);
    let (text, from, info) = {
        let mut parts = [IoSliceMut::new(&mut buffer)];
        let message = recvmsg::<SockaddrStorage>(
            socket.as_raw_fd(),
            &mut parts,
            Some(&mut control),
            MsgFlags::empty(),
        )?;
        let from = message.address.as_ref().and_then(internet).ok_or(io::ErrorKind::InvalidData)?;
        let info = message.cmsgs()?.find_map(|control| sent_to(&control));
        let text = message.iovs().flat_map(<[u8]>::to_vec).collect::<Vec<_>>();
        (text, from, info)
    };
    log.add(Sighting { listener, from, seen: None, onward: None });
    let text = format!("{name} {}", String::from_utf8_lossy(&text));
    // A socket bound to an address answers from it anyway; only one bound to none must be told.
    let info = info.filter(|_| listener.ip().is_unspecified());
    let control = match &info {
        Some(Info::V4(info)) => vec![ControlMessage::Ipv4PacketInfo(info)],
        Some(Info::V6(info)) => vec![ControlMessage::Ipv6PacketInfo(info)],
        None => Vec::new(),
    };
    let to = SockaddrStorage::from(from);
    // The asker may be gone, and a later one will want its answer all the same.
    let _gone =
        sendmsg(socket.as_raw_fd(), &[IoSlice::new(text.as_bytes())], &control, MsgFlags::empty(), Some(&to));
    Ok(())
}

/// Where a datagram was sent to, in the form that says where its answer comes from.
enum Info {
    V4(libc::in_pktinfo),
    V6(libc::in6_pktinfo),
}

fn sent_to(control: &ControlMessageOwned) -> Option<Info> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the enum has dozens of cases, and two are asked for")]
    match control {
        // The interface is left to the route.
        ControlMessageOwned::Ipv4PacketInfo(info) => {
            Some(Info::V4(libc::in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: info.ipi_addr, ..*info }))
        }
        ControlMessageOwned::Ipv6PacketInfo(info) => {
            Some(Info::V6(libc::in6_pktinfo { ipi6_ifindex: 0, ..*info }))
        }
        _ => None,
    }
}

fn internet(name: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = name.as_sockaddr_in().map(|v4| SocketAddr::from((v4.ip(), v4.port())));
    v4.or_else(|| name.as_sockaddr_in6().map(|v6| SocketAddr::from((v6.ip(), v6.port()))))
}
