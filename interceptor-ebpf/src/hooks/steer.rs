//! sk_lookup: bring arriving connections to the proxy's listeners.

use aya_ebpf::{
    bindings::sk_action::{SK_DROP, SK_PASS},
    macros::sk_lookup,
    programs::SkLookupContext,
};
use interceptor_ebpf::{
    abi::{Flow, LISTENER_SLOTS, Listener, ListenerKey, Marks},
    policy::{Incoming, Reason, Tables as _, incoming},
};

use crate::kernel::{
    context::ListenerLookup,
    count::count,
    maps::{LISTENERS, PENDING, WORKLOAD_COOKIE},
    tables::{Absent, KernelTables},
};

#[sk_lookup]
fn steer(context: SkLookupContext) -> u32 {
    let lookup = ListenerLookup::new(&context);
    if !lookup.is_tcp() {
        return SK_PASS;
    }
    let workload = WORKLOAD_COOKIE.load();
    let tables = match KernelTables::of(workload) {
        Ok(tables) => tables,
        Err(Absent::NotEnrolled) => return SK_PASS,
        Err(Absent::Broken) => return refuse(workload, Reason::TableMissing),
    };
    let (action, reason) = match choose(&lookup, &lookup.flow(workload), &tables) {
        Choice::Pass(reason) => (SK_PASS, reason),
        Choice::Refuse(reason) => (SK_DROP, Some(reason)),
        Choice::Steer(listener, reason) => assign(&context, workload, listener, reason),
    };
    if let Some(reason) = reason {
        count(workload, reason);
    }
    action
}

/// What becomes of an arriving connection, and the reason to count, if it is not counted elsewhere.
enum Choice {
    /// It goes to whoever listens there.
    Pass(Option<Reason>),
    /// It is answered by RST.
    Refuse(Reason),
    /// It goes to the proxy.
    Steer(Listener, Option<Reason>),
}

#[inline(always)]
fn choose(lookup: &ListenerLookup, flow: &Flow, tables: &KernelTables) -> Choice {
    // nat's PREROUTING never sees a packet that began in this namespace; only connections redirected at connect are
    // ours here. The interface does not tell: for the pod's own address it is the pod's.
    if tables.is_local(&flow.client.address) {
        return match PENDING.get_ptr(flow) {
            // SAFETY: reading one word of a map value.
            Some(pending) => Choice::Steer(unsafe { (*pending).listener }, None),
            None if flow.target.0.address.is_spread()
                && tables.workload().is_proxy_port(flow.target.0.port) =>
            {
                Choice::Refuse(Reason::OriginalUnknown)
            }
            None => Choice::Pass(None),
        };
    }
    let destination = tables.address(&flow.target.0.address).map_or(Marks::default(), |entry| entry.marks);
    let facts = Incoming {
        is_v4: flow.target.0.address.is_v4(),
        destination,
        port: flow.target.0.port,
        interface: lookup.interface(),
    };
    let decision = incoming(&facts, tables);
    match decision.redirect() {
        Some(listener) => Choice::Steer(listener, Some(decision.reason)),
        None => Choice::Pass(Some(decision.reason)),
    }
}

/// Gives the connection to a living socket of the listener. None: it is refused by RST, as REDIRECT to a closed port.
///
/// There is one call of this only: the verifier follows the loop at each, and every workload loads this program.
#[inline(always)]
fn assign(
    context: &SkLookupContext,
    workload: u64,
    listener: Listener,
    reason: Option<Reason>,
) -> (u32, Option<Reason>) {
    let mut slot = 0;
    while slot < LISTENER_SLOTS {
        // A socket of the other family is refused by the kernel; a later slot may hold one that fits.
        if LISTENERS.redirect_sk_lookup(context, &ListenerKey { workload, listener, slot }, 0).is_ok() {
            return (SK_PASS, reason);
        }
        slot += 1;
    }
    (SK_DROP, Some(Reason::NoListener))
}

#[inline(always)]
fn refuse(workload: u64, reason: Reason) -> u32 {
    count(workload, reason);
    SK_DROP
}
