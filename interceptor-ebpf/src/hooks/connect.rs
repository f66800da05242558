//! cgroup/connect4 and connect6: decide, and rewrite the destination.

use aya_ebpf::{helpers::generated::bpf_bind, macros::cgroup_sock_addr, programs::SockAddrContext};
use interceptor_ebpf::{
    abi::{Address, Role, SocketRecord, Target},
    policy::{Protocol, Reason, Tables as _},
};

use crate::kernel::{
    call::Call,
    context::{Family, SocketAddress},
    outcome::{self, ALLOW, Failure},
    records,
    tables::KernelTables,
};

#[cgroup_sock_addr(connect4)]
fn connect4(context: SockAddrContext) -> i32 {
    connect(&SocketAddress::new(&context, Family::V4))
}

#[cgroup_sock_addr(connect6)]
fn connect6(context: SockAddrContext) -> i32 {
    connect(&SocketAddress::new(&context, Family::V6))
}

#[inline(always)]
fn connect(context: &SocketAddress) -> i32 {
    let Some(protocol) = context.protocol() else { return ALLOW };
    let workload = context.workload();
    match outcome::tables(workload) {
        Ok(tables) => {
            outcome::tell(workload, &tables, context, intercept(context, workload, protocol, &tables))
        }
        Err(told) => told,
    }
}

/// Decides, and rewrites the destination as the last step, so that a failure leaves the call as it was.
#[inline(always)]
fn intercept(
    context: &SocketAddress,
    workload: u64,
    protocol: Protocol,
    tables: &KernelTables,
) -> Result<Reason, Failure> {
    let protocol = tables.forget().protocol(protocol);
    let call = Call::of(context, protocol, tables);
    call.trace(workload, protocol);
    let Some(listener) = call.decision.redirect() else {
        return Ok(direct(&call, protocol, tables));
    };
    let target = match protocol {
        Protocol::Tcp => tables.workload().target(&call.original, listener),
        // A datagram is not steered, so it goes to the address the listener is at.
        Protocol::Udp => Target(tables.workload().datagram_target(&call.original)),
    };
    let target = Target(tables.forget().endpoint(&target.0));
    let rewrites = tables.settled_flag(!listener.is_transparent());
    let binds = tables.settled_flag(rewrites && call.bound.is_free());
    let record = SocketRecord {
        listener_port: target.0.port,
        listener,
        original: call.original,
        alias: if rewrites && !binds { call.bound.alias(&call.source) } else { Address::UNSPECIFIED_V6 },
        bound_here: u32::from(binds || call.bound.by_us),
        ..SocketRecord::new(Role::REDIRECTED)
    };
    if !records::put(call.socket, &record) {
        return Err(Failure::Record);
    }
    if binds && !bind(context, &call) {
        records::remove(call.socket);
        return Err(Failure::Source);
    }
    if rewrites {
        context.set_endpoint(&target.0);
    }
    Ok(call.decision.reason)
}

/// Notes that the socket connects by itself. It may have been redirected by an earlier call, and must not keep the
/// names of that one; and over TCP it answers SO_ORIGINAL_DST with its remote address, unlike an accepted socket.
#[inline(always)]
fn direct(call: &Call, protocol: Protocol, tables: &KernelTables) -> Reason {
    if matches!(protocol, Protocol::Udp) {
        records::remove(call.socket);
        return call.decision.reason;
    }
    let bound = call.bound.by_application();
    let is_own = tables.settled_flag(bound.is_unspecified() || tables.is_local(&bound));
    let role = if is_own { Role::DIRECT } else { Role::IMPERSONATING };
    let record = SocketRecord { bound_here: u32::from(call.bound.by_us), ..SocketRecord::new(role) };
    if records::put(call.socket, &record) { call.decision.reason } else { Reason::RecordFailed }
}

/// Binds the address the kernel would have chosen for the original destination, so that the proxy sees its peer as
/// under nat. Port 0 reserves nothing: the kernel still picks the port when it connects.
#[inline(always)]
fn bind(context: &SocketAddress, call: &Call) -> bool {
    /// `sockaddr_in6`, or `sockaddr_in` in its beginning: one, as the stack has no room for both.
    #[repr(C)]
    struct Name {
        family: u16,
        port: u16,
        words: [u32; 6],
    }
    const IPV4_LENGTH: i32 = 16;
    if call.source.is_unspecified() {
        return true;
    }
    // An IPv6 socket is bound as one, also where it was given an IPv4 address.
    let is_v4 = call.socket.is_v4();
    let [a, b, c, d] = call.source.words();
    let mut name = if is_v4 {
        Name { family: 2, port: 0, words: [call.source.v4_word(), 0, 0, 0, 0, 0] }
    } else {
        Name { family: 10, port: 0, words: [0, a, b, c, d, 0] }
    };
    let length = if is_v4 { IPV4_LENGTH } else { size_of::<Name>() as i32 };
    // SAFETY: the helper reads the length given from the name.
    unsafe { bpf_bind(context.as_ptr(), (&raw mut name).cast(), length) == 0 }
}
