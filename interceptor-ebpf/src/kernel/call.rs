//! A connect or send call: where it goes, from where, and what the policy says of it.
//!
//! What is found out about a call is kept in one piece of memory, and found out by functions of external linkage. The
//! verifier follows each of those once, by itself, and takes what it wrote for any number: so the many ways through
//! one part of a hook do not multiply with those through the next.

use core::ptr;

use aya_ebpf::helpers::bpf_get_current_uid_gid;
use interceptor_ebpf::{
    abi::{
        Address, Endpoint, Entry, Listener, Marks, OriginalDestination, Role, SocketRecord, Subject,
        Switches, Target,
    },
    policy::{Reason, Tables as _},
};

use super::{
    context::{IPPROTO_UDP, SocketAddress},
    plan::{aim_call, let_pass, redirect_call},
    records,
    tables::KernelTables,
    trace::trace_call,
    verdict::{decide_call, understand_call},
};

/// A call, and what was decided about it.
#[repr(C)]
pub(crate) struct Call {
    /// Where it goes, as the kernel will understand it.
    pub(crate) original: OriginalDestination,
    /// The address and port in force; unspecified and 0 where the kernel may still choose.
    pub(crate) bound: Endpoint,
    /// The address the application bound; unspecified if it did not.
    pub(crate) own: Address,
    /// Source address the kernel would choose without us; unspecified if it has none.
    pub(crate) source: Address,
    /// Where it is to go instead, if it is redirected; until that is known, the loopback address of its family.
    pub(crate) target: Target,
    /// The listener it is redirected to; none if it passes.
    pub(crate) listener: Listener,
    /// The clause that decided, as a number.
    pub(crate) reason: u32,
    /// 1 if the address in force is from an earlier connect of this socket, and ours.
    pub(crate) bound_by_us: u32,
    /// The number of TCP or UDP.
    pub(super) protocol: u32,
    /// The socket's family.
    pub(super) family: u32,
    /// The address in force, if that is `AF_INET`.
    pub(super) bound_v4: u32,
    /// 1 for an IPv4 destination.
    pub(super) v4: u32,
    pub(super) user: u32,
    pub(super) group: u32,
    pub(super) mark: u32,
    pub(super) outbound_port: Marks,
    pub(super) inbound_port: Marks,
    pub(super) user_marks: Marks,
    pub(super) group_marks: Marks,
    /// Where an answer is written down to be forgotten.
    pub(super) flag: u32,
    /// 1 if the application bound an address that is not the workload's.
    pub(crate) foreign: u32,
    /// 1 if the destination is to be rewritten.
    pub(crate) rewrites: u32,
    /// 1 if the socket is to be bound to `binding` first.
    pub(crate) binds: u32,
    /// The address to bind.
    pub(crate) binding: Address,
    /// What is to be kept with the socket.
    pub(crate) record: SocketRecord,
}

impl Call {
    /// What the call itself tells. What is found out later has any value meanwhile: a function that is given memory
    /// must be given all of it written.
    #[inline(always)]
    pub(crate) fn of(context: &SocketAddress, protocol: u32) -> Self {
        let socket = context.socket();
        let ids = bpf_get_current_uid_gid();
        let (bound, bound_v4, family) = socket.local_parts();
        let mark = socket.mark();
        Self {
            original: OriginalDestination(context.endpoint()),
            bound,
            own: bound.address,
            source: bound.address,
            target: Target(bound),
            listener: Listener(mark),
            reason: mark,
            bound_by_us: records::get(socket).map_or(0, |record| record.bound_here),
            protocol,
            family,
            bound_v4,
            v4: mark,
            user: ids as u32,
            group: (ids >> 32) as u32,
            mark,
            outbound_port: Marks(mark),
            inbound_port: Marks(mark),
            user_marks: Marks(mark),
            group_marks: Marks(mark),
            flag: mark,
            foreign: 0,
            rewrites: mark,
            binds: mark,
            binding: bound.address,
            record: SocketRecord {
                role: Role::DIRECT,
                listener_port: bound.port,
                listener: Listener(mark),
                original: OriginalDestination(bound),
                alias: bound.address,
                bound_here: mark,
            },
        }
    }

    /// Decides about it.
    #[inline(always)]
    pub(crate) fn decide(&mut self, tables: &KernelTables) {
        understand_call(self);
        self.look_up(tables);
        let entry = tables.address(&self.original.0.address);
        decide_call(self, tables.workload(), entry.map_or(ptr::null(), ptr::from_ref));
    }

    /// Finds out what is to be done about it.
    #[inline(always)]
    pub(crate) fn plan(&mut self, tables: &KernelTables) {
        if self.passes() {
            let_pass(self);
        } else {
            aim_call(self, tables.workload());
            redirect_call(self);
        }
    }

    /// Whether it goes where it wanted to.
    #[inline(always)]
    pub(crate) fn passes(&self) -> bool {
        self.listener == Listener::NONE
    }

    #[inline(always)]
    pub(crate) fn is_udp(&self) -> bool {
        self.protocol == IPPROTO_UDP
    }

    /// The clause that decided.
    #[inline(always)]
    pub(crate) fn reason(&self) -> Reason {
        // SAFETY: `decide_call` writes a reason, and whoever uses its number compares it with their count.
        unsafe { core::mem::transmute::<u32, Reason>(self.reason) }
    }

    /// Tells what came of it.
    #[inline(always)]
    pub(crate) fn trace(&self, workload: u64, reason: Reason) {
        trace_call(self, workload, reason as u32);
    }

    /// Looks up the marks that the capture has any of.
    #[inline(always)]
    fn look_up(&mut self, tables: &KernelTables) {
        let has = |switches| tables.workload().any(switches);
        let (port, user, group) = (self.original.0.port, self.user, self.group);
        if has(Switches::OUTBOUND_PORTS) {
            note(&mut self.outbound_port, tables.port(Subject::OutboundPort, port));
        }
        if has(Switches::MORE_USERS) {
            note(&mut self.user_marks, tables.id(Subject::User, user));
        }
        if has(Switches::MORE_GROUPS | Switches::OWNER_GROUPS_EXCLUDED | Switches::OWNER_GROUPS_ONLY) {
            note(&mut self.group_marks, tables.id(Subject::Group, group));
        }
        // Only TPROXY asks about the inbound port of a connection that goes out.
        if has(Switches::TPROXY) {
            note(&mut self.inbound_port, tables.port(Subject::InboundPort, port));
        }
    }
}

#[inline(always)]
fn note(marks: &mut Marks, found: Option<&Entry>) {
    if let Some(entry) = found {
        *marks = entry.marks;
    }
}
