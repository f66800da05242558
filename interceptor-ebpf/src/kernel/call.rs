//! A connect or send call: where it goes, from where, and what the policy says of it.

use aya_ebpf::helpers::bpf_get_current_uid_gid;
use interceptor_ebpf::{
    abi::{Address, Endpoint, Entry, Listener, OriginalDestination, Point},
    policy::{Decision, Outgoing, Protocol, Reason, outgoing},
};

use super::{
    context::{Socket, SocketAddress},
    forget::Forget,
    records,
    tables::KernelTables,
    trace::{self, Told},
};

/// A call, and what was decided about it.
pub(crate) struct Call {
    pub(crate) socket: Socket,
    pub(crate) bound: Bound,
    pub(crate) original: OriginalDestination,
    /// Source address the kernel would choose without us; unspecified if it has none.
    pub(crate) source: Address,
    pub(crate) decision: Decision,
}

impl Call {
    #[inline(always)]
    pub(crate) fn of(context: &SocketAddress, protocol: Protocol, tables: &KernelTables) -> Self {
        let socket = context.socket();
        let forget = tables.forget();
        let bound = Bound::of(socket).forgotten(forget);
        let original = destination(context.endpoint(), &bound.by_application());
        let original = OriginalDestination(forget.endpoint(&original.0));
        let (source, decision) = match tables.address(&original.0.address) {
            Some(entry) => decide(protocol, socket, &bound, &original, entry, tables),
            None => (Address::UNSPECIFIED_V6, Decision::pass(Reason::NoRoute)),
        };
        let (source, decision) = (forget.address(&source), forget.decision(&decision));
        Self { socket, bound, original, source, decision }
    }

    /// Tells what was decided.
    #[inline(always)]
    pub(crate) fn trace(&self, workload: u64, protocol: Protocol) {
        trace::tell(&Told {
            workload,
            source: &Endpoint::new(self.source, self.bound.port),
            destination: &self.original.0,
            reason: self.decision.reason,
            listener: self.decision.redirect().unwrap_or(Listener::NONE),
            point: point(protocol),
        });
    }
}

/// Where a call of a protocol is decided.
#[inline(always)]
pub(crate) fn point(protocol: Protocol) -> Point {
    if matches!(protocol, Protocol::Tcp) { Point::CONNECT } else { Point::SEND }
}

#[inline(always)]
fn decide(
    protocol: Protocol,
    socket: Socket,
    bound: &Bound,
    original: &OriginalDestination,
    entry: &Entry,
    tables: &KernelTables,
) -> (Address, Decision) {
    let bound = bound.by_application();
    let source = if bound.is_unspecified() { entry.source } else { bound };
    let ids = bpf_get_current_uid_gid();
    let facts = Outgoing {
        protocol,
        destination: entry,
        is_v4: tables.forget().flag(original.0.address.is_v4()),
        port: original.0.port,
        source,
        user: ids as u32,
        group: (ids >> 32) as u32,
        mark: socket.mark(),
    };
    (source, outgoing(&facts, tables))
}

/// The destination as the kernel will understand it: it takes an unspecified one for the socket's own address, or for
/// the loopback address (net/ipv4/route.c, net/ipv6/tcp_ipv6.c).
#[inline(always)]
fn destination(given: Endpoint, bound: &Address) -> OriginalDestination {
    let address = if !given.address.is_unspecified() {
        given.address
    } else if bound.is_unspecified() {
        given.address.loopback_of_family()
    } else {
        *bound
    };
    OriginalDestination(Endpoint::new(address, given.port))
}

/// What a socket is bound to when it is used, and by whom.
pub(crate) struct Bound {
    /// The address in force; unspecified if the kernel may still choose.
    pub(crate) address: Address,
    /// The port in force; 0 if the kernel may still choose.
    pub(crate) port: u16,
    /// Whether the address in force is from an earlier connect of this socket, and ours.
    pub(crate) by_us: bool,
}

impl Bound {
    #[inline(always)]
    fn of(socket: Socket) -> Self {
        let local = socket.local();
        let is_bound = !local.address.is_unspecified();
        let by_us = is_bound && records::get(socket).is_some_and(|record| record.bound_here == 1);
        Self { address: local.address, port: local.port, by_us }
    }

    /// The address the application bound; unspecified if it did not.
    #[inline(always)]
    pub(crate) fn by_application(&self) -> Address {
        if self.by_us { Address::UNSPECIFIED_V6 } else { self.address }
    }

    /// The same, without what the verifier knows of it.
    #[inline(always)]
    fn forgotten(self, forget: Forget<'_>) -> Self {
        Self { address: forget.address(&self.address), port: self.port, by_us: forget.flag(self.by_us) }
    }

    /// Whether an address can still be bound: not once the socket has one, or a port.
    #[inline(always)]
    pub(crate) fn is_free(&self) -> bool {
        self.address.is_unspecified() && self.port == 0
    }

    /// The address to show in place of the one in force, where that is not the one the route gives: on a port bound
    /// to the wildcard address the kernel chooses 127.0.0.1 for the target, and a binding of ours outlives its
    /// connection.
    #[inline(always)]
    pub(crate) fn alias(&self, source: &Address) -> Address {
        if self.address == *source { Address::UNSPECIFIED_V6 } else { *source }
    }
}
