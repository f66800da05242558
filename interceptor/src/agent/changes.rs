//! Changes of namespaces, heard from outside.
//!
//! A socket inside a namespace would keep it alive. So one rtnetlink socket in the agent's own namespace listens to
//! all that have an id there (`NETLINK_LISTEN_ALL_NSID`, Linux 4.2): their addresses, links, routes and rules, and their
//! end.

use std::{
    io::{self, IoSliceMut},
    os::fd::AsRawFd as _,
};

use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    RouteNetlinkMessage,
    nsid::{NsidAttribute, NsidMessage},
};
use nix::{
    cmsg_space, libc,
    sys::socket::{ControlMessageOwned, MsgFlags, recvmsg},
};
use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use crate::netns::Netns;

/// A namespace as the agent's own namespace calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct NamespaceId(i32);

impl NamespaceId {
    /// The agent's own namespace, which has no id in itself.
    pub(super) const OWN: Self = Self(-1);
}

/// What was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// Something about a namespace's network changed.
    Changed(NamespaceId),
    /// A namespace is gone.
    Gone(NamespaceId),
    /// The kernel dropped messages: anything may have changed.
    Lost,
}

/// Hears the changes of every namespace that has an id.
pub(super) struct Changes {
    socket: Socket,
}

impl Changes {
    /// Begins to listen in the calling thread's namespace.
    pub(super) fn listen() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind(&SocketAddr::new(0, 0))?;
        socket.set_listen_all_namespaces(true)?;
        let groups = [
            libc::RTNLGRP_LINK,
            libc::RTNLGRP_IPV4_IFADDR,
            libc::RTNLGRP_IPV6_IFADDR,
            libc::RTNLGRP_IPV4_ROUTE,
            libc::RTNLGRP_IPV6_ROUTE,
            libc::RTNLGRP_IPV4_RULE,
            libc::RTNLGRP_IPV6_RULE,
            libc::RTNLGRP_NSID,
        ];
        for group in groups {
            socket.add_membership(group)?;
        }
        Ok(Self { socket })
    }

    /// Waits for the next change.
    pub(super) fn next(&self) -> io::Result<Heard> {
        let mut buffer = [0; 16 * 1024];
        loop {
            let mut control = cmsg_space!(libc::c_int);
            let mut parts = [IoSliceMut::new(&mut buffer)];
            let received =
                recvmsg::<()>(self.socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::empty());
            let (bytes, namespace) = match received {
                Ok(message) => (message.bytes, message.cmsgs()?.find_map(|control| namespace(&control))),
                Err(nix::Error::EINTR) => continue,
                Err(nix::Error::ENOBUFS) => return Ok(Heard::Lost),
                Err(errno) => return Err(errno.into()),
            };
            match ended(&buffer[..bytes]) {
                Some(gone) => return Ok(Heard::Gone(gone)),
                None => return Ok(Heard::Changed(namespace.unwrap_or(NamespaceId::OWN))),
            }
        }
    }
}

/// The id of the namespace a message is about, which comes beside it.
fn namespace(control: &ControlMessageOwned) -> Option<NamespaceId> {
    let ControlMessageOwned::Unknown(control) = control else { return None };
    let is_id = control.cmsg_header.cmsg_level == libc::SOL_NETLINK
        && control.cmsg_header.cmsg_type == libc::NETLINK_LISTEN_ALL_NSID;
    let id = control.data_bytes.get(..4)?.try_into().ok()?;
    is_id.then(|| NamespaceId(i32::from_ne_bytes(id)))
}

/// The namespace that a message says is gone.
fn ended(message: &[u8]) -> Option<NamespaceId> {
    let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(message).ok()?;
    let NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelNsId(message)) = message.payload else {
        return None;
    };
    id(&message)
}

/// Gives a namespace an id in the calling thread's one, unless it has one, and returns it. The id goes with the namespace.
pub(super) fn name(netns: &Netns) -> io::Result<NamespaceId> {
    let own = Netns::current().map_err(io::Error::other)?;
    if own.inode()? == netns.inode()? {
        return Ok(NamespaceId::OWN);
    }
    let descriptor = u32::try_from(netns.raw_fd()).map_err(io::Error::other)?;
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind(&SocketAddr::new(0, 0))?;
    let mut message = NsidMessage::default();
    message.attributes = vec![NsidAttribute::Fd(descriptor), NsidAttribute::Id(-1)];
    match ask(&socket, RouteNetlinkMessage::NewNsId(message), NLM_F_ACK) {
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {}
        answer => drop(answer?),
    }
    let mut message = NsidMessage::default();
    message.attributes = vec![NsidAttribute::Fd(descriptor)];
    match ask(&socket, RouteNetlinkMessage::GetNsId(message), 0)? {
        Some(RouteNetlinkMessage::NewNsId(answer)) => id(&answer),
        _ => None,
    }
    .ok_or_else(|| io::Error::other("the kernel does not tell the namespace's id"))
}

fn id(message: &NsidMessage) -> Option<NamespaceId> {
    message.attributes.iter().find_map(|attribute| {
        if let NsidAttribute::Id(id) = attribute { Some(NamespaceId(*id)) } else { None }
    })
}

/// One request and its answer; an acknowledgement is an answer without a message.
fn ask(socket: &Socket, request: RouteNetlinkMessage, flags: u16) -> io::Result<Option<RouteNetlinkMessage>> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    header.sequence_number = 1;
    let mut request = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(request));
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    let (answer, _) = socket.recv_from_full()?;
    let answer = NetlinkMessage::deserialize(&answer).map_err(io::Error::other)?.payload;
    if let NetlinkPayload::InnerMessage(message) = answer {
        return Ok(Some(message));
    }
    if let NetlinkPayload::Error(error) = answer
        && error.code.is_some()
    {
        return Err(error.to_io());
    }
    Ok(None)
}
