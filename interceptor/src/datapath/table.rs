//! A capture and the routes of its namespace, as the entries of one policy table.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
};

use interceptor_ebpf::abi::{Address, Entry, EntryKey, Marks, Subject, Switches, Workload};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::marked::Marked;
use crate::{
    capture::{
        Capture, Dns, InboundMode, InboundPorts, OutboundCidrs, OwnerGroups, PortRange, Quirks, SelfCalls,
    },
    routes::{Answer, Route},
};

/// Port of the proxy's DNS listener (Istio's `IstioAgentDNSListenerPort`).
pub const DNS_PORT: u16 = 15053;

/// Index of `lo`: the first interface of every namespace (`LOOPBACK_IFINDEX` of include/net/flow.h).
const LO: u32 = 1;

/// Every entry of a workload's policy table, by prefix length in bits and key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyTable {
    workload: Workload,
    entries: BTreeMap<(u32, EntryKey), Entry>,
}

/// Indices of the interfaces a capture names, as far as they exist.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interfaces {
    /// Those on which nothing is intercepted.
    pub excluded: Vec<u32>,
    /// Those whose arriving traffic counts as outbound.
    pub rerouted: Vec<u32>,
}

/// How a capture is enforced, beside what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Enforcement {
    /// Spread redirected IPv4 destinations over 127.128.0.0/9.
    pub spread_v4: bool,
    /// Spread redirected IPv6 destinations over a prefix made local for it.
    pub spread_v6: bool,
    /// Let a connection pass that cannot be redirected, instead of refusing it.
    pub bypass_on_error: bool,
    /// What enrolment switched on in the namespace, for `release` to switch off.
    pub switched_on: u32,
}

impl PolicyTable {
    /// Builds the table.
    #[must_use]
    pub fn build(
        capture: &Capture,
        routes: &[Route],
        interfaces: &Interfaces,
        enforcement: Enforcement,
    ) -> Self {
        let mut table = Self { workload: workload(capture, enforcement), entries: BTreeMap::new() };
        table.addresses(capture, routes, &interfaces.excluded);
        table.ports(capture);
        table.owners(capture);
        for interface in &interfaces.excluded {
            table.mark_id(Subject::Interface, *interface, Marks::EXCLUDED);
        }
        for interface in &interfaces.rerouted {
            table.mark_id(Subject::Interface, *interface, Marks::REROUTED);
        }
        table.seal();
        table
    }

    /// The table that has these entries; none if the workload's own is not among them.
    pub(super) fn of_entries(entries: impl IntoIterator<Item = (u32, EntryKey, Entry)>) -> Option<Self> {
        let entries: BTreeMap<_, _> =
            entries.into_iter().map(|(bits, key, entry)| ((bits, key), entry)).collect();
        let own = entries.get(&(EntryKey::full_bits(Subject::Workload), EntryKey::WORKLOAD))?;
        Some(Self { workload: *Workload::of_entry(own), entries })
    }

    /// The workload's own numbers, as they stand in the table.
    #[must_use]
    pub fn workload(&self) -> &Workload {
        &self.workload
    }

    /// All entries: prefix length in bits, key, value.
    pub fn entries(&self) -> impl Iterator<Item = (u32, EntryKey, Entry)> {
        self.entries.iter().map(|((bits, key), entry)| (*bits, *key, *entry))
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none; never so, because the workload itself is one.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// One entry for each prefix at which routes, exclusions or inclusions can change, with all that holds there.
    fn addresses(&mut self, capture: &Capture, routes: &[Route], interfaces: &[u32]) {
        let everything = [IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())];
        let loopback = [IpNet::V4(capture.loopback), Ipv6Net::from(std::net::Ipv6Addr::LOCALHOST).into()];
        let included: &[IpNet] = match &capture.outbound_cidrs {
            OutboundCidrs::Only(cidrs) => cidrs,
            OutboundCidrs::None | OutboundCidrs::All => &[],
        };
        let servers: Vec<IpNet> = match &capture.dns {
            Dns::Servers(servers) => servers.iter().map(|server| IpNet::from(*server)).collect(),
            Dns::Off | Dns::All => Vec::new(),
        };
        let marked = [
            (Marks::LOOPBACK, loopback.as_slice()),
            (Marks::EXCLUDED, &capture.excluded_cidrs),
            (Marks::INCLUDED, included),
            (Marks::DNS_SERVER, &servers),
        ];
        let mut prefixes: BTreeMap<IpNet, (Marks, Option<&Route>)> = BTreeMap::new();
        for prefix in everything {
            prefixes.entry(prefix).or_default();
        }
        for route in routes {
            prefixes.entry(route.prefix.trunc()).or_default().1 = Some(route);
        }
        for (mark, nets) in marked {
            for net in nets {
                prefixes.entry(net.trunc()).or_default().0 |= mark;
            }
        }
        // In this order a prefix follows those that contain it, so the ones that do are a stack.
        let mut around: Vec<(IpNet, Marks, Option<&Route>)> = Vec::new();
        for (prefix, (own_marks, own_route)) in prefixes {
            while around.last().is_some_and(|(outer, ..)| !outer.contains(&prefix)) {
                around.pop();
            }
            let (outer_marks, outer_route) =
                around.last().map_or((Marks::default(), None), |(_, marks, route)| (*marks, *route));
            let (marks, route) = (outer_marks | own_marks, own_route.or(outer_route));
            around.push((prefix, marks, route));
            let entry = address_entry(marks, route, interfaces);
            self.entries.insert((prefix_bits(&prefix), EntryKey::address(&prefix.network().into())), entry);
        }
    }

    fn ports(&mut self, capture: &Capture) {
        let outbound =
            [(&capture.included_ports, Marks::INCLUDED), (&capture.excluded_ports, Marks::EXCLUDED)];
        self.mark_ports(Subject::OutboundPort, &outbound);
        match &capture.inbound_ports {
            InboundPorts::None => {}
            InboundPorts::AllExcept(ports) => {
                self.mark_ports(Subject::InboundPort, &[(ports, Marks::EXCLUDED)]);
            }
            InboundPorts::Only(ports) => self.mark_ports(Subject::InboundPort, &[(ports, Marks::INCLUDED)]),
        }
    }

    fn mark_ports(&mut self, subject: Subject, marked: &[(&Vec<PortRange>, Marks)]) {
        if marked.iter().all(|(ranges, _)| ranges.is_empty()) {
            return;
        }
        let mut marks = vec![Marks::default(); 1 << 16];
        for (ranges, mark) in marked {
            for range in *ranges {
                for port in range.first..=range.last {
                    marks[usize::from(port)] |= *mark;
                }
            }
        }
        self.mark_block(subject, &marks, 0);
    }

    /// Enters a block of ports that is a power of two long: as one prefix if its ports are alike, else by halves.
    fn mark_block(&mut self, subject: Subject, marks: &[Marks], first: u16) {
        if marks.iter().all(|mark| *mark == marks[0]) {
            if marks[0] != Marks::default() {
                let bits = EntryKey::full_bits(subject) - marks.len().ilog2();
                let entry = Entry { marks: marks[0], ..Entry::default() };
                self.entries.insert((bits, EntryKey::port(subject, first)), entry);
            }
            return;
        }
        let (low, high) = marks.split_at(marks.len() / 2);
        self.mark_block(subject, low, first);
        // A block starts at a multiple of its length, so its second half differs from the first in one bit.
        let half = u16::try_from(low.len()).unwrap_or_default();
        self.mark_block(subject, high, first | half);
    }

    fn owners(&mut self, capture: &Capture) {
        for user in capture.proxy_uids.iter().skip(1) {
            self.mark_id(Subject::User, *user, Marks::PROXY);
        }
        for group in capture.proxy_gids.iter().skip(1) {
            self.mark_id(Subject::Group, *group, Marks::PROXY);
        }
        let (groups, mark) = match &capture.owner_groups {
            OwnerGroups::AllExcept(groups) => (groups, Marks::EXCLUDED),
            OwnerGroups::Only(groups) => (groups, Marks::INCLUDED),
        };
        for group in groups {
            self.mark_id(Subject::Group, *group, mark);
        }
    }

    fn mark_id(&mut self, subject: Subject, id: u32, mark: Marks) {
        let key = (EntryKey::full_bits(subject), EntryKey::id(subject, id));
        self.entries.entry(key).or_default().marks |= mark;
    }

    /// Puts the workload itself into the table, with a digest of everything.
    fn seal(&mut self) {
        let mut hasher = DefaultHasher::new();
        self.workload.to_entry().hash(&mut hasher);
        self.entries.hash(&mut hasher);
        let digest = hasher.finish();
        let halves = [digest & 0xffff_ffff, digest >> 32];
        self.workload.digest = halves.map(|half| u32::try_from(half).unwrap_or_default());
        let key = (EntryKey::full_bits(Subject::Workload), EntryKey::WORKLOAD);
        self.entries.insert(key, self.workload.to_entry());
    }
}

fn workload(capture: &Capture, enforcement: Enforcement) -> Workload {
    let mut switches = Switches::default();
    let mut switch = |condition: bool, on: Switches| {
        if condition {
            switches |= on;
        }
    };
    match &capture.inbound_ports {
        InboundPorts::None => {}
        InboundPorts::AllExcept(ports) => {
            switch(true, Switches::INBOUND_ALL);
            switch(!ports.is_empty(), Switches::INBOUND_PORTS);
        }
        InboundPorts::Only(_) => switch(true, Switches::INBOUND_PORTS),
    }
    switch(matches!(capture.outbound_cidrs, OutboundCidrs::All), Switches::OUTBOUND_ALL);
    switch(
        !capture.included_ports.is_empty() || !capture.excluded_ports.is_empty(),
        Switches::OUTBOUND_PORTS,
    );
    switch(!capture.proxy_uids.is_empty(), Switches::PROXY_USERS);
    switch(capture.proxy_uids.len() > 1, Switches::MORE_USERS);
    switch(!capture.proxy_gids.is_empty(), Switches::PROXY_GROUPS);
    switch(capture.proxy_gids.len() > 1, Switches::MORE_GROUPS);
    match &capture.owner_groups {
        OwnerGroups::AllExcept(groups) => switch(!groups.is_empty(), Switches::OWNER_GROUPS_EXCLUDED),
        OwnerGroups::Only(_) => switch(true, Switches::OWNER_GROUPS_ONLY),
    }
    switch(!matches!(capture.dns, Dns::Off), Switches::DNS);
    switch(matches!(capture.dns, Dns::All), Switches::DNS_ALL);
    switch(capture.includes_loopback(), Switches::LOOPBACK_INCLUDED);
    switch(capture.ipv6, Switches::IPV6);
    switch(!capture.excluded_interfaces.is_empty(), Switches::EXCLUDED_INTERFACES);
    switch(!capture.rerouted_interfaces.is_empty(), Switches::REROUTED_INTERFACES);
    switch(capture.inbound_mode == InboundMode::Tproxy, Switches::TPROXY);
    switch(enforcement.spread_v4, Switches::SPREAD);
    switch(enforcement.spread_v6, Switches::SPREAD_V6);
    let Quirks {
        self_calls,
        inbound_tunnel_exempt,
        self_call_tunnel_exempt,
        passthrough_source_exempt,
        udp_dns_first,
    } = capture.quirks;
    switch(self_calls == SelfCalls::EveryoneToInbound, Switches::SELF_CALLS_INBOUND);
    switch(self_calls == SelfCalls::EveryoneToOutbound, Switches::SELF_CALLS_OUTBOUND);
    switch(!inbound_tunnel_exempt, Switches::INBOUND_TUNNEL);
    switch(!self_call_tunnel_exempt, Switches::SELF_CALL_TUNNEL);
    switch(!passthrough_source_exempt, Switches::PASSTHROUGH_SOURCE);
    switch(udp_dns_first, Switches::UDP_DNS_FIRST);
    switch(enforcement.bypass_on_error, Switches::BYPASS_ON_ERROR);
    Workload {
        digest: [0; 2],
        switches,
        proxy_user: capture.proxy_uids.first().copied().unwrap_or_default(),
        proxy_group: capture.proxy_gids.first().copied().unwrap_or_default(),
        outbound_port: capture.outbound_port,
        inbound_port: capture.inbound_port,
        tunnel_port: capture.tunnel_port,
        dns_port: DNS_PORT,
        tproxy_mark: capture.tproxy_mark,
        tproxy_table: Marked::of(capture).map_or(0, Marked::table),
        switched_on: enforcement.switched_on,
    }
}

fn address_entry(mut marks: Marks, route: Option<&Route>, excluded_interfaces: &[u32]) -> Entry {
    let mut entry = Entry::default();
    match route.map(|route| &route.answer) {
        Some(Answer::Local { source }) => {
            marks |= Marks::LOCAL;
            if excluded_interfaces.contains(&LO) {
                marks |= Marks::EXCLUDED_INTERFACE;
            }
            entry.source = source.map_or(Address::UNSPECIFIED_V6, Address::from);
        }
        Some(Answer::Forward { interface, source }) => {
            entry.interface = *interface;
            entry.source = source.map_or(Address::UNSPECIFIED_V6, Address::from);
            if excluded_interfaces.contains(interface) {
                marks |= Marks::EXCLUDED_INTERFACE;
            }
        }
        Some(Answer::Unreachable) | None => marks |= Marks::NO_ROUTE,
    }
    entry.marks = marks;
    entry.primary = route.and_then(|route| route.primary).map_or(Address::UNSPECIFIED_V6, Address::from);
    entry
}

/// Prefix length of a net as its key counts it: IPv4 addresses are mapped into IPv6.
fn prefix_bits(net: &IpNet) -> u32 {
    let mapped = if matches!(net, IpNet::V4(_)) { 96 } else { 0 };
    EntryKey::SUBJECT_BITS + mapped + u32::from(net.prefix_len())
}
