//! Connections that reach the workload from outside: nat (or mangle) PREROUTING.

use super::{Decision, Reason, Tables, pass, redirect};
use crate::abi::{Listener, Marks, Switches};

/// Facts about an arriving connection whose source is not local to the namespace.
#[derive(Clone, Copy, Debug)]
pub struct Incoming {
    /// Whether it is an IPv4 connection.
    pub is_v4: bool,
    /// Destination port, in host order.
    pub port: u16,
    /// Index of the interface it arrived on.
    pub interface: u32,
}

/// Decides about an arriving TCP connection.
#[inline(always)]
pub fn incoming(facts: &Incoming, tables: &impl Tables) -> Decision {
    let workload = tables.workload();
    let switches = workload.switches;

    if !facts.is_v4 && !switches.any(Switches::IPV6) {
        return pass(Reason::Ipv6Off);
    }
    if switches.any(Switches::EXCLUDED_INTERFACES) && tables.interface(facts.interface).has(Marks::EXCLUDED) {
        return pass(Reason::ExcludedInterface);
    }
    // In TPROXY mode Istio's exemption of the tunnel port stands in a chain that nothing jumps to.
    if facts.port == workload.tunnel_port && !switches.any(Switches::TPROXY) {
        return pass(Reason::TunnelPort);
    }
    let port = if switches.any(Switches::INBOUND_PORTS) {
        tables.inbound_port(facts.port)
    } else {
        Marks::default()
    };
    if port.has(Marks::EXCLUDED) {
        return pass(Reason::ExcludedPort);
    }
    if switches.any(Switches::INBOUND_ALL) || port.has(Marks::INCLUDED) {
        return redirect(Listener::INBOUND, Reason::Inbound);
    }
    pass(Reason::NotIncluded)
}
