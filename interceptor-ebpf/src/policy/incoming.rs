//! Connections that reach the workload from outside: nat (or mangle) PREROUTING.

use super::{Decision, Reason, Tables, pass, redirect};
use crate::abi::{Listener, Marks, Switches, Workload};

/// Facts about an arriving connection whose source is not local to the namespace.
#[derive(Clone, Copy, Debug)]
pub struct Incoming {
    /// Whether it is an IPv4 connection.
    pub is_v4: bool,
    /// What the capture says of the destination address.
    pub destination: Marks,
    /// Destination port, in host order.
    pub port: u16,
    /// Index of the interface it arrived on.
    pub interface: u32,
}

/// Decides about an arriving TCP connection.
#[inline(always)]
pub fn incoming(facts: &Incoming, tables: &impl Tables) -> Decision {
    let switches = tables.workload();
    if !facts.is_v4 && !switches.any(Switches::IPV6) {
        return pass(Reason::Ipv6Off);
    }
    let interface = if switches.any(Switches::EXCLUDED_INTERFACES | Switches::REROUTED_INTERFACES) {
        tables.interface(facts.interface)
    } else {
        Marks::default()
    };
    // Rerouting stands in nat: it hides nat's other rules, but TPROXY's stand before it, in mangle.
    if interface.has(Marks::REROUTED) && !switches.any(Switches::TPROXY) {
        return rerouted(facts, switches);
    }
    let decision = if interface.has(Marks::EXCLUDED) {
        pass(Reason::ExcludedInterface)
    } else if switches.any(Switches::TPROXY) && facts.destination.has(Marks::LOOPBACK) {
        pass(Reason::Loopback)
    } else {
        by_port(facts.port, tables)
    };
    if interface.has(Marks::REROUTED) && decision.passes() {
        return rerouted(facts, switches);
    }
    decision
}

/// The clauses about the port of an inbound connection.
#[inline(always)]
pub(super) fn by_port(port: u16, tables: &impl Tables) -> Decision {
    let workload = tables.workload();
    let switches = workload;
    // In TPROXY mode Istio's exemption of the tunnel port stands in a chain that nothing jumps to.
    if port == workload.tunnel_port && !switches.any(Switches::TPROXY | Switches::INBOUND_TUNNEL) {
        return pass(Reason::TunnelPort);
    }
    let marks =
        if switches.any(Switches::INBOUND_PORTS) { tables.inbound_port(port) } else { Marks::default() };
    if marks.has(Marks::EXCLUDED) {
        return pass(Reason::ExcludedPort);
    }
    if switches.any(Switches::INBOUND_ALL) || marks.has(Marks::INCLUDED) {
        return redirect(Listener::INBOUND, Reason::Inbound);
    }
    pass(Reason::NotIncluded)
}

/// What a virtual machine sends is outbound, to destinations that are included.
#[inline(always)]
fn rerouted(facts: &Incoming, switches: &Workload) -> Decision {
    if switches.any(Switches::OUTBOUND_ALL) || facts.destination.has(Marks::INCLUDED) {
        redirect(Listener::OUTBOUND, Reason::Rerouted)
    } else {
        pass(Reason::ReroutedInterface)
    }
}
