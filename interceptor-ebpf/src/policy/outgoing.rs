//! Connections and datagrams the workload sends: nat OUTPUT.

use super::{Decision, Reason, Tables, incoming::by_port, pass, redirect};
use crate::abi::{Address, Entry, Listener, Marks, Switches, Workload};

/// Port of DNS servers (RFC 1035).
pub const DNS_PORT: u16 = 53;

/// The mark Istio gives connections of the proxy to its own workload in TPROXY mode; not configurable there.
const SELF_CALL_MARK: u32 = 1338;

/// Facts about a connection that is about to be made.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// What capture and routes say of the destination address.
    pub destination: &'a Entry,
    /// Whether the destination is an IPv4 address (or an IPv4-mapped one).
    pub is_v4: bool,
    /// Destination port, in host order.
    pub port: u16,
    /// Source address: the bound one, else the one the route gives.
    pub source: Address,
    /// The caller's user id in the initial user namespace.
    pub user: u32,
    /// The caller's group id in the initial user namespace.
    pub group: u32,
    /// The socket's firewall mark (`SO_MARK`).
    pub mark: u32,
}

/// Transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// Decides about a connection or datagram of the workload.
#[inline(always)]
pub fn outgoing(facts: &Outgoing<'_>, tables: &impl Tables) -> Decision {
    let decision = tables.settled(by_nat(facts, tables));
    let tproxy = tables.workload().any(Switches::TPROXY);
    let is_self_call = tproxy && decision.passes() && is_tproxied_self_call(facts, tables);
    if tables.settled_flag(is_self_call) {
        return redirect(Listener::INBOUND, Reason::ProxyToItself);
    }
    decision
}

/// The clauses of nat's OUTPUT.
#[inline(always)]
fn by_nat(facts: &Outgoing<'_>, tables: &impl Tables) -> Decision {
    let workload = tables.workload();
    let (switches, marks) = (workload, facts.destination);
    let tcp = matches!(facts.protocol, Protocol::Tcp);

    if !facts.is_v4 && !switches.any(Switches::IPV6) {
        return pass(Reason::Ipv6Off);
    }
    if marks.has(Marks::NO_ROUTE) {
        return pass(Reason::NoRoute);
    }
    if marks.has(Marks::EXCLUDED_INTERFACE) {
        return pass(Reason::ExcludedInterface);
    }
    let captures_dns = facts.port == DNS_PORT
        && (switches.any(Switches::DNS_ALL) || switches.any(Switches::DNS) && marks.has(Marks::DNS_SERVER));
    if captures_dns && !tcp && switches.any(Switches::UDP_DNS_FIRST) {
        let proxy = is_proxy_user(facts, tables) || is_proxy_group(facts, tables);
        return if proxy { pass(Reason::Proxy) } else { redirect(Listener::DNS, Reason::Dns) };
    }
    let port = if switches.any(Switches::OUTBOUND_PORTS) {
        tables.outbound_port(facts.port)
    } else {
        Marks::default()
    };
    if port.has(Marks::EXCLUDED) {
        return pass(Reason::ExcludedPort);
    }
    let exempts_source = !switches.any(Switches::PASSTHROUGH_SOURCE);
    if exempts_source && marks.has(Marks::LOCAL) && facts.source.is_passthrough() {
        return pass(Reason::PassthroughSource);
    }
    by_owner(facts, tables, tables.settled(by_destination(facts, switches, port, captures_dns)))
}

/// The clauses about where it goes to.
#[inline(always)]
fn by_destination(facts: &Outgoing<'_>, switches: &Workload, port: Marks, captures_dns: bool) -> Decision {
    let marks = facts.destination;
    let tcp = matches!(facts.protocol, Protocol::Tcp);
    if captures_dns {
        return redirect(Listener::DNS, Reason::Dns);
    }
    if marks.has(Marks::LOOPBACK) {
        return pass(Reason::Loopback);
    }
    if marks.has(Marks::EXCLUDED) {
        return pass(Reason::ExcludedAddress);
    }
    if tcp && port.has(Marks::INCLUDED) {
        return redirect(Listener::OUTBOUND, Reason::IncludedPort);
    }
    if !switches.any(Switches::OUTBOUND_ALL) && !marks.has(Marks::INCLUDED) {
        return pass(Reason::NotIncluded);
    }
    if tcp { redirect(Listener::OUTBOUND, Reason::Outbound) } else { pass(Reason::NotTcp) }
}

/// The clauses about who is calling: proxy users, then proxy groups, then owner groups; `otherwise` where none decides.
///
/// Istio writes three rules for each id. The second, "not this id, to a local address: return", is the same for all
/// ids but for the id, so the first id's hides every later id's rules on `lo`.
#[inline(always)]
fn by_owner(facts: &Outgoing<'_>, tables: &impl Tables, otherwise: Decision) -> Decision {
    let tcp = tables.settled_flag(matches!(facts.protocol, Protocol::Tcp));
    let workload = tables.workload();
    let switches = workload;
    let local = tables.settled_flag(facts.destination.has(Marks::LOCAL));
    let dns = tables.settled_flag(switches.any(Switches::DNS));
    let tunnel = facts.port == workload.tunnel_port && !switches.any(Switches::SELF_CALL_TUNNEL);
    let to_itself = tables.settled_flag(local && !facts.destination.has(Marks::LOOPBACK) && tcp && !tunnel);
    if to_itself && switches.any(Switches::SELF_CALLS_INBOUND) {
        return redirect(Listener::INBOUND_LOCAL, Reason::SelfCall);
    }
    if to_itself && switches.any(Switches::SELF_CALLS_OUTBOUND) {
        return redirect(Listener::OUTBOUND, Reason::SelfCall);
    }
    // Where everybody's self calls are redirected there is no rule about the proxy's, nor one that spares others.
    let by_proxy =
        tables.settled_flag(!switches.any(Switches::SELF_CALLS_INBOUND | Switches::SELF_CALLS_OUTBOUND));
    let to_itself = tables.settled_flag(to_itself && by_proxy);
    let others_stop = tables.settled_flag(
        local
            && by_proxy
            && !switches.any(Switches::LOOPBACK_INCLUDED)
            && (!dns || tcp && facts.port != DNS_PORT),
    );

    if switches.any(Switches::PROXY_USERS) {
        let first = facts.user == workload.proxy_user;
        if !first && others_stop {
            return pass(Reason::LocalCall);
        }
        if first || switches.any(Switches::MORE_USERS) && tables.user(facts.user).has(Marks::PROXY) {
            return proxy_call(to_itself && (!dns || facts.port != DNS_PORT));
        }
    }
    if switches.any(Switches::PROXY_GROUPS) {
        let first = facts.group == workload.proxy_group;
        if !first && others_stop {
            return pass(Reason::LocalCall);
        }
        if first || switches.any(Switches::MORE_GROUPS) && tables.group(facts.group).has(Marks::PROXY) {
            return proxy_call(to_itself);
        }
    }
    if switches.any(Switches::OWNER_GROUPS_EXCLUDED) && tables.group(facts.group).has(Marks::EXCLUDED) {
        return pass(Reason::OwnerGroup);
    }
    if switches.any(Switches::OWNER_GROUPS_ONLY) && !tables.group(facts.group).has(Marks::INCLUDED) {
        return pass(Reason::OwnerGroup);
    }
    otherwise
}

#[inline(always)]
const fn proxy_call(to_itself: bool) -> Decision {
    if to_itself { redirect(Listener::INBOUND_LOCAL, Reason::ProxyToItself) } else { pass(Reason::Proxy) }
}

/// Whether the connection is one of the proxy to its own workload, which mangle marks on its way out so that TPROXY
/// takes it when it comes back in through `lo`. Connections with TPROXY's mark are the proxy's to the application.
#[inline(always)]
fn is_tproxied_self_call(facts: &Outgoing<'_>, tables: &impl Tables) -> bool {
    let workload = tables.workload();
    let (switches, marks) = (workload, facts.destination);
    if !(matches!(facts.protocol, Protocol::Tcp) && marks.has(Marks::LOCAL))
        || marks.has(Marks::LOOPBACK)
        || marks.has(Marks::EXCLUDED_INTERFACE)
        || !facts.is_v4 && !switches.any(Switches::IPV6)
        || facts.source.is_passthrough()
        || facts.mark == workload.tproxy_mark
    {
        return false;
    }
    (is_proxy_user(facts, tables) || is_proxy_group(facts, tables) || facts.mark == SELF_CALL_MARK)
        && !by_port(facts.port, tables).passes()
}

#[inline(always)]
fn is_proxy_user(facts: &Outgoing<'_>, tables: &impl Tables) -> bool {
    let workload = tables.workload();
    workload.any(Switches::PROXY_USERS) && facts.user == workload.proxy_user
        || workload.any(Switches::MORE_USERS) && tables.user(facts.user).has(Marks::PROXY)
}

#[inline(always)]
fn is_proxy_group(facts: &Outgoing<'_>, tables: &impl Tables) -> bool {
    let workload = tables.workload();
    workload.any(Switches::PROXY_GROUPS) && facts.group == workload.proxy_group
        || workload.any(Switches::MORE_GROUPS) && tables.group(facts.group).has(Marks::PROXY)
}
