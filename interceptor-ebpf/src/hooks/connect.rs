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
    context::{Family, Socket, SocketAddress},
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
    let bound = Bound::of(socket);
    let original = destination(context.endpoint(), &bound.by_application);
    let Some(entry) = tables.address(&original.0.address) else {
        return Ok(direct(socket, &bound, Reason::NoRoute));
    };
    let source = if bound.by_application.is_unspecified() { entry.source } else { bound.by_application };
    let ids = bpf_get_current_uid_gid();
    let facts = Outgoing {
        protocol: Protocol::Tcp,
        destination: *entry,
        is_v4: original.0.address.is_v4(),
        port: original.0.port,
        source,
        user: ids as u32,
        group: (ids >> 32) as u32,
        mark: socket.mark(),
    };
    let decision = outgoing(&facts, tables);
    let Verdict::Redirect(listener) = decision.verdict else {
        return Ok(direct(socket, &bound, decision.reason));
    };

    let binds = bound.is_free();
    let record = SocketRecord {
        listener,
        original,
        alias: if binds { Address::UNSPECIFIED_V6 } else { bound.alias(&source) },
        bound_here: u32::from(binds || bound.by_us),
        ..SocketRecord::new(Role::REDIRECTED)
    };
    if !records::put(socket, &record) {
        return Err(Failure::Record);
    }
    if binds && !bind(context, entry) {
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

/// What a socket is bound to when it connects, and by whom.
struct Bound {
    /// The address in force; unspecified if the kernel may still choose.
    address: Address,
    /// The port in force; 0 if the kernel may still choose.
    port: u16,
    /// The address the application bound; unspecified if it did not.
    by_application: Address,
    /// Whether the address in force is from an earlier connect of this socket, and ours.
    by_us: bool,
}

impl Bound {
    #[inline(always)]
    fn of(socket: Socket) -> Self {
        let local = socket.local();
        let by_us = !local.address.is_unspecified()
            && records::get(socket).is_some_and(|record| record.bound_here == 1);
        let by_application = if by_us { Address::UNSPECIFIED_V6 } else { local.address };
        Self { address: local.address, port: local.port, by_application, by_us }
    }

    /// Whether an address can still be bound: not once the socket has one, or a port.
    #[inline(always)]
    fn is_free(&self) -> bool {
        self.address.is_unspecified() && self.port == 0
    }

    /// The address to show in place of the one in force, where that is not the one the route gives: on a port bound
    /// to the wildcard address the kernel chooses 127.0.0.1 for the target, and a binding of ours outlives its
    /// connection.
    #[inline(always)]
    fn alias(&self, source: &Address) -> Address {
        if self.address == *source { Address::UNSPECIFIED_V6 } else { *source }
    }
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
fn direct(socket: Socket, bound: &Bound, reason: Reason) -> Reason {
    let record = SocketRecord { bound_here: u32::from(bound.by_us), ..SocketRecord::new(Role::DIRECT) };
    if records::put(socket, &record) { reason } else { Reason::RecordFailed }
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
