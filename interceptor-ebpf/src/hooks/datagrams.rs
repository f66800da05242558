//! cgroup/sendmsg and recvmsg: DNS queries to the proxy, and its answers from where they were asked for.
//!
//! One socket may ask several servers at once, and the proxy answers all of them from one address. So every server
//! but a socket's first is asked from an address that stands for it (its spread address); the proxy's answer to that
//! address is sent from it, too, and so says whose it is.

use aya_ebpf::{bindings::BPF_ANY, macros::cgroup_sock_addr, programs::SockAddrContext};
use interceptor_ebpf::{
    abi::{Address, Endpoint, Listener, Resolver, Role, SocketRecord, Switches},
    policy::{DNS_PORT, Reason, Tables as _},
};

use crate::kernel::{
    call::Call,
    context::{Family, IPPROTO_UDP, SocketAddress},
    maps::RESOLVERS,
    outcome::{self, ALLOW, Failure},
    records,
    tables::KernelTables,
};

#[cgroup_sock_addr(sendmsg4)]
fn sendmsg4(context: SockAddrContext) -> i32 {
    send(&SocketAddress::new(&context, Family::V4))
}

#[cgroup_sock_addr(sendmsg6)]
fn sendmsg6(context: SockAddrContext) -> i32 {
    send(&SocketAddress::new(&context, Family::V6))
}

#[cgroup_sock_addr(recvmsg4)]
fn recvmsg4(context: SockAddrContext) -> i32 {
    received(&SocketAddress::new(&context, Family::V4))
}

#[cgroup_sock_addr(recvmsg6)]
fn recvmsg6(context: SockAddrContext) -> i32 {
    received(&SocketAddress::new(&context, Family::V6))
}

#[inline(always)]
fn send(context: &SocketAddress) -> i32 {
    let workload = context.workload();
    let tables = match outcome::tables(workload) {
        Ok(tables) => tables,
        Err(told) => return told,
    };
    // Only DNS is captured over UDP; every other datagram leaves here, uncounted.
    if !tables.workload().any(Switches::DNS) {
        return ALLOW;
    }
    if context.socket().local_parts().0.port == tables.workload().dns_port {
        answer(context, &tables);
        return ALLOW;
    }
    if context.endpoint().port != DNS_PORT {
        return ALLOW;
    }
    let mut call = Call::of(context, IPPROTO_UDP);
    call.decide(&tables);
    let outcome = ask(context, workload, &mut call, &tables);
    outcome::tell(workload, &tables, &mut call, outcome)
}

/// Sends a query to the proxy.
#[inline(always)]
fn ask(
    context: &SocketAddress,
    workload: u64,
    call: &mut Call,
    tables: &KernelTables,
) -> Result<Reason, Failure> {
    if call.listener == Listener::NONE {
        return Ok(call.reason());
    }
    let target = Endpoint::new(call.target.0.address, tables.workload().dns_port);
    let may_choose = call.bound.address.is_unspecified();
    let first = match records::get(context.socket()) {
        Some(record) if record.original == call.original => true,
        Some(_) if may_choose => false,
        // A socket bound to an address hears answers only there: the last server asked is the one that answers.
        _ => {
            let record = SocketRecord {
                listener_port: target.port,
                listener: call.listener,
                original: call.original,
                ..SocketRecord::new(Role::ASKING)
            };
            if !records::put(context.socket(), &record) {
                return Err(Failure::Record);
            }
            true
        }
    };
    if may_choose {
        let source = if first { call.source } else { resolver(workload, call, tables)? };
        if !source.is_unspecified() {
            context.set_source(&source);
        }
    }
    context.set_endpoint(&target);
    Ok(call.reason())
}

/// The address that stands for a server, noted so that its answers are known by it.
#[inline(always)]
fn resolver(workload: u64, call: &Call, tables: &KernelTables) -> Result<Address, Failure> {
    let switches = tables.workload();
    let spread = if call.original.0.address.is_v4() { Switches::SPREAD } else { Switches::SPREAD_V6 };
    if !switches.any(spread) {
        return Err(Failure::Resolver);
    }
    let key = Resolver { workload, address: call.original.spread_address() };
    if let Some(known) = RESOLVERS.get_ptr(&key) {
        // SAFETY: the value is plain data; the map's entries of one key never change.
        return if unsafe { *known } == call.original.0 { Ok(key.address) } else { Err(Failure::Resolver) };
    }
    match RESOLVERS.insert(&key, &call.original.0, u64::from(BPF_ANY)) {
        Ok(()) => Ok(key.address),
        Err(_) => Err(Failure::Resolver),
    }
}

/// The proxy answers a query: from the address it was asked at, or from the one that stands for the server asked.
#[inline(always)]
fn answer(context: &SocketAddress, tables: &KernelTables) {
    let client = context.endpoint().address;
    if client.is_spread() {
        context.set_source(&client);
    } else if tables.is_local(&client) && context.socket().local().address.is_unspecified() {
        context.set_source(&client.loopback_of_family());
    }
}

/// Shows an answer's source as the server that was asked.
#[inline(always)]
fn received(context: &SocketAddress) -> i32 {
    let Some(record) = records::get(context.socket()) else { return ALLOW };
    let from = context.endpoint();
    if from.port != record.listener_port || record.role == Role::PROXY {
        return ALLOW;
    }
    if from.address == from.address.loopback_of_family() {
        context.set_endpoint(&record.original.0);
    } else if from.address.is_spread() {
        let key = Resolver { workload: context.workload(), address: from.address };
        if let Some(server) = RESOLVERS.get_ptr(&key) {
            // SAFETY: the value is plain data; the map's entries of one key never change.
            context.set_endpoint(unsafe { &*server });
        }
    }
    ALLOW
}
