//! cgroup/connect4 and connect6: decide, and rewrite the destination.

use aya_ebpf::{helpers::generated::bpf_bind, macros::cgroup_sock_addr, programs::SockAddrContext};
use interceptor_ebpf::{
    abi::{Address, Listener, Switches},
    policy::{Reason, Tables as _},
};

use crate::kernel::{
    call::Call,
    context::{Family, Socket, SocketAddress},
    outcome::{self, ALLOW, Failure},
    pending, records,
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
            let mut call = Call::of(context, protocol);
            let outcome = intercept(context, &mut call, &tables);
            outcome::tell(workload, &tables, &mut call, outcome)
        }
        Err(told) => told,
    }
}

/// Decides, and rewrites the destination as the last step, so that a failure leaves the call as it was.
#[inline(always)]
fn intercept(context: &SocketAddress, call: &mut Call, tables: &KernelTables) -> Result<Reason, Failure> {
    let socket = context.socket();
    call.decide(tables);
    // A redirected connection without an entry in PENDING is refused, and that entry is made after the last chance to let
    // it pass. Datagrams need none.
    let bypasses = !call.passes()
        && !call.is_udp()
        && tables.workload().any(Switches::BYPASS_ON_ERROR)
        && !pending::has_room();
    if bypasses {
        call.listener = Listener::NONE;
    }
    if call.passes() {
        if call.is_udp() {
            // It may have been redirected by an earlier call, and must not keep the names of that one.
            records::remove(socket);
            return Ok(call.reason());
        }
        // It is noted at its SYN, for which a bypassing one has no more room than before.
        if !bypasses && !call.own.is_unspecified() && !tables.is_local(&call.own) {
            call.foreign = 1;
        }
    }
    call.plan(tables);
    // A socket that connects by itself has a record, too: over TCP it answers SO_ORIGINAL_DST with its remote address,
    // unlike an accepted one.
    if !records::put(socket, &call.record) {
        return if call.passes() { Ok(Reason::RecordFailed) } else { Err(Failure::Record) };
    }
    if call.binds != 0 && !bind(context, socket, &call.binding) && !call.passes() {
        records::remove(socket);
        return Err(Failure::Source);
    }
    if call.rewrites != 0 {
        context.set_endpoint(&call.target.0);
    }
    if bypasses { Err(Failure::Pending) } else { Ok(call.reason()) }
}

/// Binds the address the kernel would have chosen for the original destination, so that the proxy sees its peer as
/// under nat. Port 0 reserves nothing: the kernel still picks the port when it connects.
#[inline(always)]
fn bind(context: &SocketAddress, socket: Socket, address: &Address) -> bool {
    /// `sockaddr_in6`, or `sockaddr_in` in its beginning: one, as the stack has no room for both.
    #[repr(C)]
    struct Name {
        family: u16,
        port: u16,
        words: [u32; 6],
    }
    const IPV4_LENGTH: i32 = 16;
    // An IPv6 socket is bound as one, also where it was given an IPv4 address.
    let is_v4 = socket.is_v4();
    let [a, b, c, d] = address.words();
    let mut name = if is_v4 {
        Name { family: 2, port: 0, words: [d, 0, 0, 0, 0, 0] }
    } else {
        Name { family: 10, port: 0, words: [0, a, b, c, d, 0] }
    };
    let length = if is_v4 { IPV4_LENGTH } else { size_of::<Name>() as i32 };
    // SAFETY: the helper reads the length given from the name.
    unsafe { bpf_bind(context.as_ptr(), (&raw mut name).cast(), length) == 0 }
}
