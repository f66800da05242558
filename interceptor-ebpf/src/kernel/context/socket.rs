//! A socket, as far as programs may read it.

use aya_ebpf::bindings::bpf_sock;
use interceptor_ebpf::abi::{Address, Endpoint};

use super::{AF_INET, IPPROTO_TCP, either};

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
