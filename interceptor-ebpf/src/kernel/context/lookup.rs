//! What the hook that chooses a listener is given.

use aya_ebpf::{EbpfContext as _, bindings::bpf_sk_lookup, programs::SkLookupContext};
use interceptor_ebpf::abi::{Endpoint, Flow, Target};

use super::{AF_INET, IPPROTO_TCP, either};

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
