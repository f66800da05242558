//! What the policy says of a call: functions that the verifier follows by themselves.

use core::mem;

use interceptor_ebpf::{
    abi::{Address, Entry, Listener, Marks, Workload},
    policy::{Decision, Outgoing, Protocol, Reason, Tables, outgoing},
};

use super::{
    call::Call,
    context::{AF_INET, IPPROTO_TCP},
    plan::blank,
};

/// Finds out the destination as the kernel will understand it: it takes an unspecified one for the socket's own
/// address, or for the loopback address (net/ipv4/route.c, net/ipv6/tcp_ipv6.c).
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn understand_call(call: *mut Call) -> u32 {
    // SAFETY: the verifier holds callers to memory of this size, or null.
    let Some(call) = (unsafe { call.as_mut() }) else { return 0 };
    blank(&mut call.outbound_port);
    blank(&mut call.inbound_port);
    blank(&mut call.user_marks);
    blank(&mut call.group_marks);
    call.listener = Listener::NONE;
    if call.family == AF_INET {
        call.bound.address = Address::from_v4(call.bound_v4);
    }
    call.own = if call.bound_by_us == 0 { call.bound.address } else { Address::UNSPECIFIED_V6 };
    call.source = call.own;
    if call.original.0.address.is_unspecified() {
        call.original.0.address =
            if call.own.is_unspecified() { call.original.0.address.loopback_of_family() } else { call.own };
    }
    call.target.0.address = call.original.0.address.loopback_of_family();
    call.v4 = u32::from(call.original.0.address.is_v4());
    0
}

/// Asks the policy about a call to a destination that the tables know, or that no route leads to (null).
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn decide_call(
    call: *mut Call,
    workload: *const Workload,
    destination: *const Entry,
) -> u32 {
    // SAFETY: as above.
    let Some(call) = (unsafe { call.as_mut() }) else { return 0 };
    // SAFETY: as above.
    let Some(workload) = (unsafe { workload.as_ref() }) else { return 0 };
    // SAFETY: as above.
    let Some(destination) = (unsafe { destination.as_ref() }) else {
        call.reason = Reason::NoRoute as u32;
        return 0;
    };
    if call.own.is_unspecified() {
        let [a, b, c, d] = destination.source.words();
        call.source = Address::from_v6([a, b, c, d]);
    }
    let noted = Noted { call: &raw mut *call, workload };
    let decision = outgoing(&noted.facts(destination), &noted);
    call.reason = decision.reason as u32;
    call.listener = decision.redirect().unwrap_or(Listener::NONE);
    0
}

/// The policy's tables, as far as they were looked up for a call.
struct Noted<'a> {
    call: *mut Call,
    workload: &'a Workload,
}

/// Reads a number of a call anew.
macro_rules! noted {
    ($noted:expr, $($field:tt)+) => {
        // SAFETY: the call outlives what asks about it, and is written by nobody else meanwhile.
        unsafe { (&raw const (*$noted.call).$($field)+).read_volatile() }
    };
}

impl Noted<'_> {
    #[inline(always)]
    fn facts<'d>(&self, destination: &'d Entry) -> Outgoing<'d> {
        Outgoing {
            protocol: if noted!(self, protocol) == IPPROTO_TCP { Protocol::Tcp } else { Protocol::Udp },
            destination,
            is_v4: noted!(self, v4) != 0,
            port: noted!(self, original.0.port),
            source: noted!(self, source),
            user: noted!(self, user),
            group: noted!(self, group),
            mark: noted!(self, mark),
        }
    }
}

impl Tables for Noted<'_> {
    #[inline(always)]
    fn workload(&self) -> &Workload {
        self.workload
    }

    #[inline(always)]
    fn outbound_port(&self, _: u16) -> Marks {
        noted!(self, outbound_port)
    }

    #[inline(always)]
    fn inbound_port(&self, _: u16) -> Marks {
        noted!(self, inbound_port)
    }

    #[inline(always)]
    fn user(&self, _: u32) -> Marks {
        noted!(self, user_marks)
    }

    #[inline(always)]
    fn group(&self, _: u32) -> Marks {
        noted!(self, group_marks)
    }

    #[inline(always)]
    fn interface(&self, _: u32) -> Marks {
        Marks::default()
    }

    #[inline(always)]
    fn afresh<'f>(&self, facts: &Outgoing<'f>) -> Outgoing<'f> {
        self.facts(facts.destination)
    }

    #[inline(always)]
    fn settled(&self, decision: Decision) -> Decision {
        let listener = decision.redirect().unwrap_or(Listener::NONE);
        // SAFETY: as above.
        unsafe {
            (&raw mut (*self.call).listener).write_volatile(listener);
            (&raw mut (*self.call).reason).write_volatile(decision.reason as u32);
            let reason: Reason =
                mem::transmute::<u32, Reason>((&raw const (*self.call).reason).read_volatile());
            Decision::of((&raw const (*self.call).listener).read_volatile(), reason)
        }
    }

    #[inline(always)]
    fn settled_flag(&self, flag: bool) -> bool {
        // SAFETY: as above.
        unsafe { (&raw mut (*self.call).flag).write_volatile(u32::from(flag)) };
        noted!(self, flag) != 0
    }
}
