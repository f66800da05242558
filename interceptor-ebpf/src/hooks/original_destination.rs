//! cgroup/getsockopt: SO_ORIGINAL_DST at SOL_IP and IP6T_SO_ORIGINAL_DST at SOL_IPV6, answered as conntrack would.

use aya_ebpf::{
    bindings::{bpf_sock, bpf_sockopt},
    helpers::generated::bpf_get_netns_cookie,
    macros::cgroup_sockopt,
    programs::SockoptContext,
};
use interceptor_ebpf::{
    abi::{Endpoint, Role, Switches},
    policy::Tables as _,
};

use crate::kernel::{
    context::{Socket, read, write},
    outcome::ALLOW,
    records,
    tables::KernelTables,
};

const SOL_IP: i32 = 0;
const SOL_IPV6: i32 = 41;
const SO_ORIGINAL_DST: i32 = 80;
const ENOENT: i32 = 2;
const EINVAL: i32 = 22;
const TCP_CLOSE: u32 = 7;
const TCP_LISTEN: u32 = 10;
/// The hook is given at most a page of the caller's buffer.
const PAGE: i32 = 4096;

#[cgroup_sockopt(getsockopt)]
fn original_dst(context: SockoptContext) -> i32 {
    let context = context.sockopt;
    let level = read!(context, level);
    if read!(context, optname) == SO_ORIGINAL_DST && (level == SOL_IP || level == SOL_IPV6) {
        answer(context, level);
    }
    // The kernel fails a call whose length is above a page unless the hook says it left the buffer alone.
    if read!(context, optlen) > PAGE {
        write!(context, optlen = 0);
    }
    ALLOW
}

/// Answers if the socket belongs to a workload; else the kernel's own answer stands.
#[inline(always)]
fn answer(context: *mut bpf_sockopt, level: i32) {
    let pointer: *mut bpf_sock = read!(context, __bindgen_anon_1.sk);
    let socket = Socket(pointer);
    // An IPv4 socket knows no options of the other level; the kernel says so.
    if !socket.is_tcp() || level == SOL_IPV6 && socket.is_v4() {
        return;
    }
    let record = records::get(socket);
    if record.is_none() || level == SOL_IPV6 {
        // SAFETY: the helper only reads its context.
        let workload = unsafe { bpf_get_netns_cookie(context.cast()) };
        let Ok(tables) = KernelTables::of(workload) else { return };
        // Without rules for IPv6, conntrack follows none of its connections and has no answer either.
        if level == SOL_IPV6 && !tables.workload().any(Switches::IPV6) {
            return;
        }
    }
    let state = socket.state();
    if state == TCP_LISTEN || state == TCP_CLOSE {
        return fail(context, ENOENT);
    }
    let original = match record {
        Some(record) if record.original.is_known() => record.original.0,
        Some(record) if record.role == Role::DIRECT || record.role == Role::IMPERSONATING => socket.remote(),
        _ => socket.local(),
    };
    // A redirected connection whose own destination was lost has none to tell, and the target is nobody's business.
    if original.address.is_spread() {
        return fail(context, ENOENT);
    }
    let needed = if level == SOL_IP { size_of::<SockaddrIn>() } else { size_of::<SockaddrIn6>() };
    if read!(context, optlen) < needed as i32 {
        fail(context, EINVAL);
    } else if original.address.is_v4() != (level == SOL_IP) {
        fail(context, ENOENT);
    } else if level == SOL_IP {
        write_v4(context, &original);
    } else {
        write_v6(context, &original);
    }
}

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

#[inline(always)]
fn write_v4(context: *mut bpf_sockopt, original: &Endpoint) {
    let name = SockaddrIn {
        family: 2,
        port: original.port.to_be(),
        address: original.address.v4_word(),
        zero: [0; 2],
    };
    write_name(context, &name);
}

#[inline(always)]
fn write_v6(context: *mut bpf_sockopt, original: &Endpoint) {
    let name = SockaddrIn6 {
        family: 10,
        port: original.port.to_be(),
        flow: 0,
        address: original.address.words(),
        scope: 0,
    };
    write_name(context, &name);
}

#[inline(always)]
fn write_name<T>(context: *mut bpf_sockopt, name: &T) {
    let buffer = read!(context, __bindgen_anon_2.optval).cast::<T>();
    let end = read!(context, __bindgen_anon_3.optval_end).cast::<T>();
    // SAFETY: the comparison is the bound the verifier asks for, and both names are plain integers.
    unsafe {
        if buffer.add(1) > end {
            return;
        }
        core::ptr::copy_nonoverlapping(name, buffer, 1);
    }
    write!(context, optlen = size_of::<T>() as i32);
    write!(context, retval = 0);
}

/// Makes the call fail as conntrack's handler would.
#[inline(always)]
fn fail(context: *mut bpf_sockopt, errno: i32) {
    write!(context, retval = -errno);
}
