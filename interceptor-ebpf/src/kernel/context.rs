//! Typed access to the contexts the kernel hands to a hook.
//!
//! The verifier allows a context field only one access: its own width at its own offset. LLVM merges or splits plain
//! accesses, so every one here is volatile.

use aya_ebpf::{
    EbpfContext as _,
    bindings::{bpf_sk_lookup, bpf_sock, bpf_sock_addr, bpf_sock_ops},
    helpers::generated::{bpf_get_netns_cookie, bpf_get_socket_cookie},
    programs::{SkLookupContext, SockAddrContext, SockOpsContext},
};
use interceptor_ebpf::abi::{Address, Endpoint, Flow, Target};

pub(crate) const AF_INET: u32 = 2;
pub(crate) const IPPROTO_TCP: u32 = 6;
pub(crate) const IPPROTO_UDP: u32 = 17;

/// A context, hidden from LLVM's sight: it would keep the address of a field in a register, and the verifier refuses a
/// load or store through that ("dereference of modified ctx ptr").
#[inline(always)]
fn hidden<T>(context: *mut T) -> *mut T {
    core::hint::black_box(context)
}

/// Reads one field of a context or socket the verifier knows.
macro_rules! read {
    ($pointer:expr, $($field:tt)+) => {
        // SAFETY: the pointer comes from the kernel for the length of this run, and the verifier checks each access.
        unsafe { core::ptr::read_volatile(&raw const (*$pointer).$($field)+) }
    };
}
pub(crate) use read;

/// Reads a field of four words, one by one.
macro_rules! words {
    ($pointer:expr, $field:ident) => {
        [
            read!($pointer, $field[0]),
            read!($pointer, $field[1]),
            read!($pointer, $field[2]),
            read!($pointer, $field[3]),
        ]
    };
}

/// Writes one field of a context.
macro_rules! write {
    ($pointer:expr, $($field:tt)+) => {
        write!(@ $pointer, $($field)+)
    };
    (@ $pointer:expr, $field:ident $([$index:literal])? = $value:expr) => {
        // SAFETY: as for `read`.
        unsafe { core::ptr::write_volatile(&raw mut (*$pointer).$field $([$index])?, $value) }
    };
}
pub(crate) use write;

/// Address family a `sock_addr` hook was attached for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

/// The context of connect, getpeername and getsockname hooks.
pub(crate) struct SocketAddress {
    context: *mut bpf_sock_addr,
    family: Family,
}

impl SocketAddress {
    #[inline(always)]
    pub(crate) const fn new(context: &SockAddrContext, family: Family) -> Self {
        Self { context: context.sock_addr, family }
    }

    /// The endpoint the caller gave, or will be told.
    #[inline(always)]
    pub(crate) fn endpoint(&self) -> Endpoint {
        let address = match self.family {
            Family::V4 => Address::from_v4(read!(hidden(self.context), user_ip4)),
            Family::V6 => Address::from_v6(words!(hidden(self.context), user_ip6)),
        };
        Endpoint::new(address, u16::from_be(read!(hidden(self.context), user_port) as u16))
    }

    #[inline(always)]
    pub(crate) fn set_endpoint(&self, endpoint: &Endpoint) {
        self.set_address(&endpoint.address);
        self.set_port(endpoint.port);
    }

    #[inline(always)]
    pub(crate) fn set_address(&self, address: &Address) {
        match self.family {
            Family::V4 => write!(hidden(self.context), user_ip4 = address.v4_word()),
            Family::V6 => {
                let [a, b, c, d] = address.words();
                write!(hidden(self.context), user_ip6[0] = a);
                write!(hidden(self.context), user_ip6[1] = b);
                write!(hidden(self.context), user_ip6[2] = c);
                write!(hidden(self.context), user_ip6[3] = d);
            }
        }
    }

    #[inline(always)]
    pub(crate) fn set_port(&self, port: u16) {
        write!(hidden(self.context), user_port = u32::from(port.to_be()));
    }

    /// The source address of the datagram being sent.
    #[inline(always)]
    pub(crate) fn set_source(&self, address: &Address) {
        match self.family {
            Family::V4 => write!(hidden(self.context), msg_src_ip4 = address.v4_word()),
            Family::V6 => {
                let [a, b, c, d] = address.words();
                write!(hidden(self.context), msg_src_ip6[0] = a);
                write!(hidden(self.context), msg_src_ip6[1] = b);
                write!(hidden(self.context), msg_src_ip6[2] = c);
                write!(hidden(self.context), msg_src_ip6[3] = d);
            }
        }
    }

    /// The number of TCP or UDP; none for other protocols.
    ///
    /// Found in a set of bits: comparing with the one and the other would make two ways of all that follows.
    #[inline(always)]
    pub(crate) fn protocol(&self) -> Option<u32> {
        const SET: u32 = 1 << IPPROTO_TCP | 1 << IPPROTO_UDP;
        let number = read!(hidden(self.context), protocol);
        (number < u32::BITS && SET >> number & 1 == 1).then_some(number)
    }

    #[inline(always)]
    pub(crate) fn socket(&self) -> Socket {
        Socket(read!(hidden(self.context), __bindgen_anon_1.sk))
    }

    #[inline(always)]
    pub(crate) fn as_ptr(&self) -> *mut bpf_sock_addr {
        self.context
    }

    #[inline(always)]
    pub(crate) fn workload(&self) -> u64 {
        // SAFETY: the helper only reads its context.
        unsafe { bpf_get_netns_cookie(self.context.cast()) }
    }
}

/// A socket as a hook sees it.
#[derive(Clone, Copy)]
pub(crate) struct Socket(pub(crate) *mut bpf_sock);

impl Socket {
    /// The local endpoint; unspecified and 0 while not bound.
    #[inline(always)]
    pub(crate) fn local(&self) -> Endpoint {
        let address = either(self.is_v4(), read!(self.0, src_ip4), words!(self.0, src_ip6));
        Endpoint::new(address, read!(self.0, src_port) as u16)
    }

    /// What [`Self::local`] is made of: address and port as an IPv6 socket has them, the address of an IPv4 one, and
    /// the family.
    #[inline(always)]
    pub(crate) fn local_parts(&self) -> (Endpoint, u32, u32) {
        let address = Address::from_v6(words!(self.0, src_ip6));
        let endpoint = Endpoint::new(address, read!(self.0, src_port) as u16);
        (endpoint, read!(self.0, src_ip4), read!(self.0, family))
    }

    /// The remote endpoint.
    #[inline(always)]
    pub(crate) fn remote(&self) -> Endpoint {
        let address = either(self.is_v4(), read!(self.0, dst_ip4), words!(self.0, dst_ip6));
        Endpoint::new(address, u16::from_be(read!(self.0, dst_port)))
    }

    /// The firewall mark (`SO_MARK`).
    #[inline(always)]
    pub(crate) fn mark(&self) -> u32 {
        read!(self.0, mark)
    }

    /// Whether it is an `AF_INET` socket; one of `AF_INET6` may speak IPv4, too.
    #[inline(always)]
    pub(crate) fn is_v4(&self) -> bool {
        read!(self.0, family) == AF_INET
    }

    #[inline(always)]
    pub(crate) fn is_tcp(&self) -> bool {
        read!(self.0, protocol) == IPPROTO_TCP
    }

    #[inline(always)]
    pub(crate) fn state(&self) -> u32 {
        read!(self.0, state)
    }
}

/// The context of a socket event.
pub(crate) struct SocketEvent {
    context: *mut bpf_sock_ops,
}

impl SocketEvent {
    #[inline(always)]
    pub(crate) const fn new(context: &SockOpsContext) -> Self {
        Self { context: context.ops }
    }

    #[inline(always)]
    pub(crate) fn operation(&self) -> u32 {
        read!(hidden(self.context), op)
    }

    #[inline(always)]
    pub(crate) fn argument(&self, index: usize) -> u32 {
        match index {
            0 => read!(hidden(self.context), __bindgen_anon_1.args[0]),
            _ => read!(hidden(self.context), __bindgen_anon_1.args[1]),
        }
    }

    #[inline(always)]
    pub(crate) fn as_ptr(&self) -> *mut bpf_sock_ops {
        self.context
    }

    /// The socket, unless the event is about a request that has none yet.
    #[inline(always)]
    pub(crate) fn socket(&self) -> Option<Socket> {
        let socket = read!(hidden(self.context), __bindgen_anon_2.sk);
        (!socket.is_null()).then_some(Socket(socket))
    }

    #[inline(always)]
    pub(crate) fn local(&self) -> Endpoint {
        let address = either(
            self.is_v4(),
            read!(hidden(self.context), local_ip4),
            words!(hidden(self.context), local_ip6),
        );
        Endpoint::new(address, self.local_port())
    }

    #[inline(always)]
    pub(crate) fn local_port(&self) -> u16 {
        read!(hidden(self.context), local_port) as u16
    }

    #[inline(always)]
    pub(crate) fn remote(&self) -> Endpoint {
        let address = either(
            self.is_v4(),
            read!(hidden(self.context), remote_ip4),
            words!(hidden(self.context), remote_ip6),
        );
        Endpoint::new(address, u32::from_be(read!(hidden(self.context), remote_port)) as u16)
    }

    #[inline(always)]
    pub(crate) fn workload(&self) -> u64 {
        // SAFETY: the helper only reads its context.
        unsafe { bpf_get_netns_cookie(self.context.cast()) }
    }

    #[inline(always)]
    pub(crate) fn socket_cookie(&self) -> u64 {
        // SAFETY: the helper only reads its context.
        unsafe { bpf_get_socket_cookie(self.context.cast()) }
    }

    /// Whether packets are IPv4. An AF_INET6 socket with an IPv4-mapped peer has its IPv4 addresses filled in, and
    /// while it connects only those.
    #[inline(always)]
    fn is_v4(&self) -> bool {
        read!(hidden(self.context), family) == AF_INET
            || Address::from_v6(words!(hidden(self.context), remote_ip6)).is_v4()
    }
}

/// The context of a listener look-up.
pub(crate) struct ListenerLookup {
    context: *mut bpf_sk_lookup,
}

impl ListenerLookup {
    #[inline(always)]
    pub(crate) fn new(context: &SkLookupContext) -> Self {
        Self { context: context.as_ptr().cast() }
    }

    #[inline(always)]
    pub(crate) fn is_tcp(&self) -> bool {
        read!(self.context, protocol) == IPPROTO_TCP
    }

    #[inline(always)]
    pub(crate) fn interface(&self) -> u32 {
        read!(self.context, ingress_ifindex)
    }

    /// The arriving connection, named as a redirected one would be.
    #[inline(always)]
    pub(crate) fn flow(&self, workload: u64) -> Flow {
        let is_v4 = read!(self.context, family) == AF_INET;
        let client = either(is_v4, read!(self.context, remote_ip4), words!(self.context, remote_ip6));
        let target = either(is_v4, read!(self.context, local_ip4), words!(self.context, local_ip6));
        Flow {
            workload,
            client: Endpoint::new(client, u16::from_be(read!(self.context, remote_port))),
            target: Target(Endpoint::new(target, read!(self.context, local_port) as u16)),
        }
    }
}

/// The address of the family a socket has. Both are read first: LLVM makes one load of a choice between two fields,
/// at a computed offset, which the verifier refuses ("pointer arithmetic on sock prohibited").
#[inline(always)]
fn either(is_v4: bool, v4: u32, v6: [u32; 4]) -> Address {
    if is_v4 { Address::from_v4(v4) } else { Address::from_v6(v6) }
}
