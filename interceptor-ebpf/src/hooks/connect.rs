//! cgroup/connect4 and connect6: decide, and rewrite the destination.

use aya_ebpf::{
    helpers::{
        bpf_get_current_uid_gid,
        generated::{bpf_bind, bpf_set_retval},
    },
    macros::cgroup_sock_addr,
    programs::SockAddrContext,
};
use interceptor_ebpf::{
    abi::{Address, Endpoint, Entry, Listener, OriginalDestination, Role, SocketRecord, Switches},
    policy::{Outgoing, Protocol, Reason, Tables as _, Verdict, outgoing},
};

use super::{ALLOW, DENY};
use crate::kernel::{
    context::{Family, SocketAddress},
    count::count,
    maps::HAS_SET_RETVAL,
    records,
    tables::{Absent, KernelTables},
};

const ENOMEM: i32 = 12;
const EADDRNOTAVAIL: i32 = 99;
const EHOSTDOWN: i32 = 112;

#[cgroup_sock_addr(connect4)]
fn connect4(context: SockAddrContext) -> i32 {
    connect(&SocketAddress::new(&context, Family::V4))
}

#[cgroup_sock_addr(connect6)]
fn connect6(context: SockAddrContext) -> i32 {
    connect(&SocketAddress::new(&context, Family::V6))
}

/// Why a connection that should have been redirected could not be.
enum Failure {
    /// The socket's record could not be stored.
    Record,
    /// The source address could not be bound.
    Source,
}

#[inline(always)]
fn connect(context: &SocketAddress) -> i32 {
    let workload = context.workload();
    let tables = match KernelTables::of(workload) {
        Ok(tables) => tables,
        Err(Absent::NotEnrolled) => return ALLOW,
        Err(Absent::Broken) => return deny(workload, Reason::TableMissing, EHOSTDOWN),
    };
    if !context.is_tcp() {
        return ALLOW;
    }
    let bypass = tables.workload().switches.any(Switches::BYPASS_ON_ERROR);
    match intercept(context, &tables) {
        Ok(reason) => {
            count(workload, reason);
            ALLOW
        }
        Err(failure) => {
            let (reason, errno) = match failure {
                Failure::Record => (Reason::RecordFailed, ENOMEM),
                Failure::Source => (Reason::SourceFailed, EADDRNOTAVAIL),
            };
            if bypass {
                count(workload, reason);
                return ALLOW;
            }
            deny(workload, reason, errno)
        }
    }
}

/// Decides, and rewrites the destination as the last step, so that a failure leaves the call as it was.
#[inline(always)]
fn intercept(context: &SocketAddress, tables: &KernelTables) -> Result<Reason, Failure> {
    let socket = context.socket();
    let bound = socket.local();
    let original = destination(context.endpoint(), &bound.address);
    let Some(entry) = tables.address(&original.0.address) else {
        return Ok(direct(context, Reason::NoRoute));
    };
    let is_bound = !bound.address.is_unspecified();
    let ids = bpf_get_current_uid_gid();
    let facts = Outgoing {
        protocol: Protocol::Tcp,
        destination: *entry,
        is_v4: original.0.address.is_v4(),
        port: original.0.port,
        source: if is_bound { bound.address } else { entry.source },
        user: ids as u32,
        group: (ids >> 32) as u32,
    };
    let decision = outgoing(&facts, tables);
    let Verdict::Redirect(listener) = decision.verdict else {
        return Ok(direct(context, decision.reason));
    };

    // A port bound to the wildcard address fixes the port but leaves the address to the kernel, which would choose
    // 127.0.0.1 for the target, and it can no longer be bound. Names are shown with the address it would have had.
    let has_port = bound.port != 0;
    let alias = if !is_bound && has_port { entry.source } else { Address::UNSPECIFIED_V6 };
    let record = SocketRecord { role: Role::REDIRECTED, listener_port: 0, listener, original, alias };
    if !records::put(socket, &record) {
        return Err(Failure::Record);
    }
    if !is_bound && !has_port && !bind(context, entry) {
        records::remove(socket);
        return Err(Failure::Source);
    }
    let workload = tables.workload();
    let port = match listener {
        Listener::INBOUND_LOCAL => workload.inbound_port,
        Listener::DNS => workload.dns_port,
        _ => workload.outbound_port,
    };
    context.set_endpoint(&original.target(port, workload.switches.any(Switches::SPREAD)).0);
    Ok(decision.reason)
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

/// Notes that the socket connects by itself. It may have been redirected by an earlier call, and must not keep the
/// names of that one; and it answers SO_ORIGINAL_DST with its remote address, unlike an accepted socket.
#[inline(always)]
fn direct(context: &SocketAddress, reason: Reason) -> Reason {
    let record = SocketRecord {
        role: Role::DIRECT,
        listener_port: 0,
        listener: Listener::NONE,
        original: OriginalDestination::default(),
        alias: Address::UNSPECIFIED_V6,
    };
    if records::put(context.socket(), &record) { reason } else { Reason::RecordFailed }
}

/// Binds the address the kernel would have chosen for the original destination, so that the proxy sees its peer as
/// under nat. Port 0 reserves nothing: the kernel still picks the port when it connects.
#[inline(always)]
fn bind(context: &SocketAddress, entry: &Entry) -> bool {
    #[repr(C)]
    struct SockaddrIn {
        family: u16,
        port: u16,
        address: u32,
        zero: [u32; 2],
    }
    #[repr(C)]
    struct SockaddrIn6 {
        family: u16,
        port: u16,
        flow: u32,
        address: [u32; 4],
        scope: u32,
    }
    if entry.source.is_unspecified() {
        return true;
    }
    let result = match context.family() {
        Family::V4 => {
            let mut name = SockaddrIn { family: 2, port: 0, address: entry.source.v4_word(), zero: [0; 2] };
            // SAFETY: the helper reads the length given from the name.
            unsafe { bpf_bind(context.as_ptr(), (&raw mut name).cast(), size_of::<SockaddrIn>() as i32) }
        }
        Family::V6 => {
            let mut name =
                SockaddrIn6 { family: 10, port: 0, flow: 0, address: entry.source.words(), scope: 0 };
            // SAFETY: the helper reads the length given from the name.
            unsafe { bpf_bind(context.as_ptr(), (&raw mut name).cast(), size_of::<SockaddrIn6>() as i32) }
        }
    };
    result == 0
}

#[inline(always)]
fn deny(workload: u64, reason: Reason, errno: i32) -> i32 {
    count(workload, reason);
    if HAS_SET_RETVAL.load() != 0 {
        // SAFETY: the helper takes a number. Where it is missing, the verifier removes this call as dead code.
        unsafe { bpf_set_retval(-errno) };
    }
    DENY
}
