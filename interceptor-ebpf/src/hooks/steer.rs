//! sk_lookup: bring arriving connections to the proxy's listeners.

use aya_ebpf::{
    bindings::sk_action::{SK_DROP, SK_PASS},
    macros::sk_lookup,
    programs::SkLookupContext,
};
use interceptor_ebpf::{
    abi::{LISTENER_SLOTS, Listener, ListenerKey, Marks, Point, Switches},
    policy::{Incoming, Reason, Tables as _, incoming},
};

use crate::kernel::{
    context::ListenerLookup,
    count::count,
    maps::{LISTENERS, PENDING, WORKLOAD_COOKIE},
    tables::{Absent, KernelTables},
    trace::{self, Told},
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
    let flow = lookup.flow(workload);
    // nat's PREROUTING never sees a packet that began in this namespace; of those, only connections noted at connect are
    // ours here. The interface does not tell: for the pod's own address it is the pod's.
    if let Some(pending) = PENDING.get_ptr(&flow) {
        // SAFETY: reading one word of a map value.
        let listener = unsafe { (*pending).listener };
        return if listener == Listener::NONE { SK_PASS } else { assign(&context, workload, listener) };
    }
    if tables.is_local(&flow.client.address) {
        let redirected =
            flow.target.0.address.is_spread() && tables.workload().is_proxy_port(flow.target.0.port);
        return if redirected { refuse(workload, Reason::OriginalUnknown) } else { SK_PASS };
    }
    // Only clauses under these switches ask for the destination.
    let asks = tables.workload().any(Switches::TPROXY | Switches::REROUTED_INTERFACES);
    let destination = if asks { tables.address(&flow.target.0.address) } else { None };
    let facts = Incoming {
        is_v4: flow.target.0.address.is_v4(),
        destination: destination.map_or(Marks::default(), |entry| entry.marks),
        port: flow.target.0.port,
        interface: lookup.interface(),
    };
    let decision = tables.forget().decision(&incoming(&facts, &tables));
    let listener = decision.redirect();
    let refused = listener.is_some_and(|listener| assign(&context, workload, listener) == SK_DROP);
    let reason = if refused { Reason::NoListener } else { decision.reason };
    trace::tell(&Told {
        workload,
        source: &flow.client,
        destination: &flow.target.0,
        reason: reason as u32,
        listener: listener.unwrap_or(Listener::NONE),
        point: Point::ARRIVE,
    });
    if refused {
        return SK_DROP;
    }
    count(workload, reason);
    SK_PASS
}

/// Gives the connection to a living socket of the listener. None: it is refused by RST, as REDIRECT to a closed port.
#[inline(always)]
fn assign(context: &SkLookupContext, workload: u64, listener: Listener) -> u32 {
    let mut slot = 0;
    while slot < LISTENER_SLOTS {
        // A socket of the other family is refused by the kernel; a later slot may hold one that fits.
        if LISTENERS.redirect_sk_lookup(context, &ListenerKey { workload, listener, slot }, 0).is_ok() {
            return SK_PASS;
        }
        slot += 1;
    }
    refuse(workload, Reason::NoListener)
}

#[inline(always)]
fn refuse(workload: u64, reason: Reason) -> u32 {
    count(workload, reason);
    SK_DROP
}
