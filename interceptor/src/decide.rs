//! The policy, run in userspace on the very table the kernel would ask.

use std::{
    collections::{BTreeSet, HashMap},
    net::{IpAddr, Ipv6Addr},
};

use interceptor_ebpf::{
    abi::{Address, Entry, EntryKey, Listener, Marks, Subject, Workload},
    policy::{Decision, Incoming, Outgoing, Protocol, Tables, Verdict, incoming, outgoing},
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::{
    capture::{Capture, InboundMode},
    datapath::{self, Enforcement, Interfaces, PolicyTable},
    nat::{self, Outcome, Packet, Path},
    routes::{Answer, Route},
};

/// The policy for a capture, in a namespace where every route leads out of the interface a packet names.
#[derive(Debug)]
pub struct Policy {
    /// By interface, in the order of their indices from 1.
    deciders: Vec<(String, Decider)>,
}

impl Policy {
    /// Builds the tables: one for each interface that `capture` or a packet (`others`) may name.
    #[must_use]
    pub fn new(capture: &Capture, others: &[&str]) -> Self {
        let in_capture =
            capture.excluded_interfaces.iter().chain(&capture.rerouted_interfaces).map(String::as_str);
        let mut names = vec!["lo"];
        for name in others.iter().copied().chain(in_capture) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let index =
            |name: &str| (1..).zip(&names).find(|(_, known)| **known == name).map_or(0, |(index, _)| index);
        let indices = |patterns: &[String]| {
            let meant = |name: &str| patterns.iter().any(|pattern| nat::is_interface(pattern, name));
            names.iter().filter(|name| meant(name)).map(|name| index(name)).collect()
        };
        let interfaces = Interfaces {
            excluded: indices(&capture.excluded_interfaces),
            rerouted: indices(&capture.rerouted_interfaces),
        };
        let enforcement =
            Enforcement { spread_v4: true, spread_v6: true, bypass_on_error: false, switched_on: 0 };
        let decider = |name: &str| {
            let everywhere = [IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())];
            let routes = everywhere.map(|prefix| {
                let answer = if name == "lo" {
                    Answer::Local { source: None }
                } else {
                    Answer::Forward { interface: index(name), source: None }
                };
                Route { prefix, answer, primary: None }
            });
            Decider::new(&PolicyTable::build(capture, &routes, &interfaces, enforcement))
        };
        Self { deciders: names.iter().map(|name| ((*name).to_owned(), decider(name))).collect() }
    }

    /// What the policy decides about a packet; nothing if no hook sees it, or if it names an interface unknown here.
    #[must_use]
    pub fn decide(&self, packet: &Packet) -> Option<Decision> {
        let (Path::Outgoing { interface, .. } | Path::Incoming { interface }) = &packet.path;
        let (index, (_, decider)) = (1..).zip(&self.deciders).find(|(_, (name, _))| name == interface)?;
        decider.decide(packet, index)
    }
}

/// A policy table that answers as the kernel's longest-prefix look-up does.
#[derive(Debug)]
pub struct Decider {
    workload: Workload,
    entries: HashMap<(u32, EntryKey), Entry>,
    /// The lengths that prefixes have, longest first.
    lengths: Vec<u32>,
}

impl Decider {
    /// Takes the entries of `table`.
    #[must_use]
    pub fn new(table: &PolicyTable) -> Self {
        let entries: HashMap<_, _> = table.entries().map(|(bits, key, entry)| ((bits, key), entry)).collect();
        let lengths: BTreeSet<u32> = entries.keys().map(|(bits, _)| bits - EntryKey::SUBJECT_BITS).collect();
        Self { workload: *table.workload(), entries, lengths: lengths.into_iter().rev().collect() }
    }

    /// What the policy decides about a packet; nothing for protocols that no hook sees. `interface` is the index of
    /// the one it arrives on.
    #[must_use]
    pub fn decide(&self, packet: &Packet, interface: u32) -> Option<Decision> {
        let protocol = match packet.protocol {
            nat::Protocol::Tcp => Protocol::Tcp,
            nat::Protocol::Udp => Protocol::Udp,
            nat::Protocol::Other(_) => return None,
        };
        let destination = self.address(packet.destination);
        match &packet.path {
            Path::Outgoing { uid, gid, mark, .. } => {
                let facts = Outgoing {
                    protocol,
                    destination: &destination,
                    is_v4: packet.destination.is_ipv4(),
                    port: packet.port,
                    source: packet.source.into(),
                    user: *uid,
                    group: *gid,
                    mark: *mark,
                };
                Some(outgoing(&facts, self))
            }
            Path::Incoming { .. } if protocol == Protocol::Tcp => {
                let facts = Incoming {
                    is_v4: packet.destination.is_ipv4(),
                    destination: destination.marks,
                    port: packet.port,
                    interface,
                };
                Some(incoming(&facts, self))
            }
            Path::Incoming { .. } => None,
        }
    }

    /// What capture and routes say of an address.
    fn address(&self, address: IpAddr) -> Entry {
        let bits_of = Ipv6Addr::from(Address::from(address)).to_bits();
        let found = self.lengths.iter().find_map(|bits| {
            let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
            let network = Address::from(IpAddr::from(Ipv6Addr::from_bits(bits_of & mask)));
            self.entries.get(&(EntryKey::SUBJECT_BITS + bits, EntryKey::address(&network)))
        });
        found.copied().unwrap_or_default()
    }

    fn port(&self, subject: Subject, port: u16) -> Marks {
        let found = self.lengths.iter().filter(|bits| **bits <= 16).find_map(|bits| {
            let mask = u16::MAX.checked_shl(16 - bits).unwrap_or(0);
            self.entries.get(&(EntryKey::SUBJECT_BITS + bits, EntryKey::port(subject, port & mask)))
        });
        found.map_or(Marks::default(), |entry| entry.marks)
    }

    fn id(&self, subject: Subject, id: u32) -> Marks {
        let found = self.entries.get(&(EntryKey::full_bits(subject), EntryKey::id(subject, id)));
        found.map_or(Marks::default(), |entry| entry.marks)
    }
}

impl Tables for Decider {
    fn workload(&self) -> &Workload {
        &self.workload
    }

    fn outbound_port(&self, port: u16) -> Marks {
        self.port(Subject::OutboundPort, port)
    }

    fn inbound_port(&self, port: u16) -> Marks {
        self.port(Subject::InboundPort, port)
    }

    fn user(&self, user: u32) -> Marks {
        self.id(Subject::User, user)
    }

    fn group(&self, group: u32) -> Marks {
        self.id(Subject::Group, group)
    }

    fn interface(&self, interface: u32) -> Marks {
        self.id(Subject::Interface, interface)
    }
}

/// What a decision would be in the rules' words.
#[must_use]
pub fn outcome(decision: Decision, capture: &Capture) -> Outcome {
    let Verdict::Redirect(listener) = decision.verdict() else { return Outcome::Pass };
    match listener {
        Listener::INBOUND if capture.inbound_mode == InboundMode::Tproxy => {
            Outcome::Tproxy(capture.inbound_port)
        }
        Listener::INBOUND | Listener::INBOUND_LOCAL => Outcome::Redirect(capture.inbound_port),
        Listener::DNS => Outcome::Redirect(datapath::DNS_PORT),
        _ => Outcome::Redirect(capture.outbound_port),
    }
}
