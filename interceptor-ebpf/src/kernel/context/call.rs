//! What hooks of connect, sendmsg, recvmsg, getpeername and getsockname are given.

use aya_ebpf::{
    bindings::bpf_sock_addr, helpers::generated::bpf_get_netns_cookie, programs::SockAddrContext,
};
use interceptor_ebpf::abi::{Address, Endpoint};

use super::{Family, IPPROTO_TCP, IPPROTO_UDP, Socket, hidden};

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
