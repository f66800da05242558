//! cgroup/getpeername and getsockname: every end is told the addresses it would be told under nat.
//!
//! The peer hooks run for the address `accept` returns, too.

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};
use interceptor_ebpf::{
    abi::{Address, Endpoint, Role, SocketRecord, Switches},
    policy::{Incoming, Tables as _, incoming},
};

use crate::kernel::{
    context::{Family, SocketAddress},
    outcome::ALLOW,
    records,
    tables::KernelTables,
};

const TCP_CLOSE: u32 = 7;

#[cgroup_sock_addr(getpeername4)]
fn getpeername4(context: SockAddrContext) -> i32 {
    peer_name(&SocketAddress::new(&context, Family::V4))
}

#[cgroup_sock_addr(getpeername6)]
fn getpeername6(context: SockAddrContext) -> i32 {
    peer_name(&SocketAddress::new(&context, Family::V6))
}

#[cgroup_sock_addr(getsockname4)]
fn getsockname4(context: SockAddrContext) -> i32 {
    socket_name(&SocketAddress::new(&context, Family::V4))
}

#[cgroup_sock_addr(getsockname6)]
fn getsockname6(context: SockAddrContext) -> i32 {
    socket_name(&SocketAddress::new(&context, Family::V6))
}

/// A client sees the destination it asked for; the proxy sees the client by the address it would have had.
#[inline(always)]
fn peer_name(context: &SocketAddress) -> i32 {
    if let Some(record) = records::get(context.socket()) {
        if record.role == Role::REDIRECTED {
            context.set_endpoint(&record.original.0);
        } else if record.role == Role::PROXY && !record.alias.is_unspecified() {
            context.set_address(&record.alias);
        }
    }
    ALLOW
}

/// A client sees the address it would have had; the proxy sees the local address REDIRECT would have given.
#[inline(always)]
fn socket_name(context: &SocketAddress) -> i32 {
    if let Some(record) = records::get(context.socket()) {
        if record.role == Role::PROXY {
            proxy_name(context, record);
        } else {
            client_name(context, record);
        }
    }
    ALLOW
}

/// A connection that failed leaves its socket unbound, though an address we bound stays in force.
#[inline(always)]
fn client_name(context: &SocketAddress, record: &SocketRecord) {
    if record.bound_here == 1 && context.socket().state() == TCP_CLOSE {
        // An IPv6 socket that spoke IPv4 is bound to `::` again; for an IPv4 one only the last word counts.
        context.set_address(&Address::UNSPECIFIED_V6);
    } else if !record.alias.is_unspecified() {
        context.set_address(&record.alias);
    }
}

/// REDIRECT of a local packet makes its destination the loopback address; of an arriving one, the first address of
/// the interface (net/netfilter/nf_nat_redirect.c).
#[inline(always)]
fn proxy_name(context: &SocketAddress, record: &SocketRecord) {
    if record.original.is_known() {
        let address = record.original.0.address.loopback_of_family();
        return context.set_endpoint(&Endpoint::new(address, record.listener_port));
    }
    let local = context.endpoint();
    let Ok(tables) = KernelTables::of(context.workload()) else { return };
    if tables.workload().any(Switches::TPROXY) || record.listener_port != tables.workload().inbound_port {
        return;
    }
    let remote = context.socket().remote().address;
    if remote.is_unspecified() || tables.is_local(&remote) {
        return;
    }
    let Some(entry) = tables.address(&local.address) else { return };
    let facts = Incoming {
        is_v4: local.address.is_v4(),
        destination: entry.marks,
        port: local.port,
        interface: entry.interface,
    };
    if !incoming(&facts, &tables).passes() {
        context.set_endpoint(&Endpoint::new(entry.primary, record.listener_port));
    }
}
