//! What is kept with a socket for as long as it lives (`sk_storage`).

use super::{Address, Listener, OriginalDestination, assert_size};

/// A socket's part in interception.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketRecord {
    /// Its part.
    pub role: Role,
    /// For the proxy's sockets, the port their listener is bound to; for a redirected or asking one, the port it was
    /// sent to; else 0. Host order.
    pub listener_port: u16,
    /// For a redirected client, the proxy's listener it was sent to; else 0.
    pub listener: Listener,
    /// Where the application wanted to go; unknown (port 0) where nothing was rewritten.
    pub original: OriginalDestination,
    /// Address shown in place of the client's own where the kernel's choice had to differ; else unspecified (`::`).
    pub alias: Address,
    /// 1 if the client's source address was bound by us and not by the application, else 0. The kernel keeps such a
    /// binding when a connection fails, though the application must not see it.
    pub bound_here: u32,
}

/// A socket's part in interception.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Role(pub u16);

impl Role {
    /// An application's socket whose connection was redirected.
    pub const REDIRECTED: Self = Self(1);
    /// A socket of the workload that connected, without being redirected.
    pub const DIRECT: Self = Self(2);
    /// A socket of the workload that connected from an address of another host (`IP_TRANSPARENT`), as
    /// the proxy does in TPROXY mode: what arrives must not be taken for that host's.
    pub const IMPERSONATING: Self = Self(5);
    /// The proxy's listening socket; every socket it accepts inherits the record (`BPF_F_CLONE`).
    pub const PROXY: Self = Self(3);
    /// An application's unconnected UDP socket that has asked a DNS server.
    pub const ASKING: Self = Self(4);
}

impl SocketRecord {
    /// A record of a role, with nothing else known.
    #[inline(always)]
    #[must_use]
    pub const fn new(role: Role) -> Self {
        Self {
            role,
            listener_port: 0,
            listener: Listener::NONE,
            original: OriginalDestination::UNKNOWN,
            alias: Address::UNSPECIFIED_V6,
            bound_here: 0,
        }
    }

    /// The record of a listening socket of the proxy, which every socket it accepts inherits.
    #[inline(always)]
    #[must_use]
    pub const fn listening(port: u16) -> Self {
        let mut record = Self::new(Role::PROXY);
        record.listener_port = port;
        record
    }
}

assert_size!(SocketRecord, 48);
