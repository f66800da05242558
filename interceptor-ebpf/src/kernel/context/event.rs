//! What the hook of socket events is given.

use aya_ebpf::{
    bindings::bpf_sock_ops,
    helpers::generated::{bpf_get_netns_cookie, bpf_get_socket_cookie},
    programs::SockOpsContext,
};
use interceptor_ebpf::abi::{Address, Endpoint};

use super::{AF_INET, Socket, either, hidden};

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
