//! From a connection's tuple to its original destination, between SYN and accept.

use super::{Address, Endpoint, OriginalDestination, Target, Workload, assert_size};

/// A redirected connection, named as both of its ends can name it.
///
/// The target belongs to the name, because one source port may serve two targets at once; the netns cookie does,
/// because every pod has the same loopback addresses.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Cookie of the network namespace.
    pub workload: u64,
    /// The connecting socket's own endpoint.
    pub client: Endpoint,
    /// Where it was rewritten to.
    pub target: Target,
}

/// What is known of a redirected connection until the proxy's socket for it exists.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pending {
    /// Cookie of the connecting socket: only it may take this entry back.
    pub owner: u64,
    /// Where the application wanted to go.
    pub original: OriginalDestination,
    /// Which of the proxy's listeners the connection is for; none if it must not be intercepted as it arrives.
    pub listener: Listener,
    /// Address the proxy must see as its peer where the kernel's own choice had to differ; else unspecified (`::`).
    pub alias: Address,
    /// Always 0; keeps the size a multiple of 8.
    pub reserved: [u32; 2],
}

/// A listener of the proxy, told apart by who can reach it.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listener(pub u32);

impl Listener {
    /// None.
    pub const NONE: Self = Self(0);
    /// The outbound port, reachable at the loopback address.
    pub const OUTBOUND: Self = Self(1);
    /// The inbound port, reachable at the loopback address: the proxy calling itself.
    pub const INBOUND_LOCAL: Self = Self(2);
    /// The inbound port, reachable from other hosts.
    pub const INBOUND: Self = Self(3);
    /// The DNS port, reachable at the loopback address.
    pub const DNS: Self = Self(4);
    /// Every one.
    pub const ALL: [Self; 4] = [Self::OUTBOUND, Self::INBOUND_LOCAL, Self::INBOUND, Self::DNS];

    /// Whether connections of the workload itself come to it with their destination unchanged: those that TPROXY takes.
    #[inline(always)]
    #[must_use]
    pub const fn is_transparent(self) -> bool {
        self.0 == Self::INBOUND.0
    }

    /// Whether a socket that listens on `address` and `port` (host order) is this listener of the workload: it has the
    /// port, and those can reach it whom nat would send there.
    #[inline(always)]
    #[must_use]
    pub fn is_at(self, address: &Address, port: u16, workload: &Workload) -> bool {
        let any = address.is_unspecified();
        let loopback = *address == Address::LOOPBACK_V4 || *address == Address::LOOPBACK_V6;
        match self {
            Self::OUTBOUND => port == workload.outbound_port && (any || loopback),
            Self::INBOUND_LOCAL => port == workload.inbound_port && (any || loopback),
            Self::INBOUND => port == workload.inbound_port && (any || !loopback),
            Self::DNS => port == workload.dns_port && (any || loopback),
            _ => false,
        }
    }
}

/// One listening socket of the proxy in `listeners`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenerKey {
    /// Cookie of the network namespace.
    pub workload: u64,
    /// Which listener it is.
    pub listener: Listener,
    /// Which of its sockets, below [`super::LISTENER_SLOTS`].
    pub slot: u32,
}

/// A DNS server by the address its answers come from in the workload, where a socket asks several at once.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resolver {
    /// Cookie of the network namespace.
    pub workload: u64,
    /// The server's spread address.
    pub address: Address,
}

assert_size!(Resolver, 24);
assert_size!(Flow, 48);
assert_size!(Pending, 56);
assert_size!(ListenerKey, 16);
