//! Where canaries fly to: connections the policy in force would redirect.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use interceptor_ebpf::{
    abi::{EntryKey, Listener, Marks, Subject, Switches},
    policy::Decision,
};

use super::Patient;
use crate::{
    nat::{Packet, Path, Protocol},
    parity::actor::Owner,
};

/// A connection that is to be redirected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// Where to.
    pub(super) address: SocketAddr,
    /// Who makes it.
    pub(super) owner: Owner,
    /// Name of the reason that it must be counted under.
    pub(super) reason: &'static str,
}

/// The discard port (RFC 863): what the proxy tries to pass on there hurts nobody.
const DISCARD: u16 = 9;
/// Who runs nothing, or hardly anything.
const NOBODY: [u32; 2] = [65_534, 65_533];
/// Addresses of no host (RFC 5737, RFC 3849).
const DOCUMENTATION: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1))];

/// A connection the workload's applications could make; none if the capture leaves all of the family alone.
pub(super) fn outgoing(patient: &Patient<'_>, is_v4: bool) -> Option<Target> {
    let beyond = addresses(patient).filter(|(_, _, marks)| !marks.has(Marks::LOCAL));
    let firsts = beyond.filter_map(|(bits, network, _)| first_host(bits, network));
    let addresses = DOCUMENTATION.into_iter().chain(firsts).filter(|address| address.is_ipv4() == is_v4);
    let ports = ports(patient, Subject::OutboundPort);
    let groups: Vec<u32> = NOBODY.into_iter().chain(groups(patient)).collect();
    for destination in addresses {
        for port in &ports {
            for (uid, gid) in NOBODY.into_iter().flat_map(|uid| groups.iter().map(move |gid| (uid, *gid))) {
                let path = Path::Outgoing { interface: String::new(), uid, gid, mark: 0 };
                let packet = packet(destination, *port, path);
                let decision = patient.decider.decide(&packet, 0);
                if let Some(reason) = redirected(decision, Listener::OUTBOUND) {
                    let (address, owner) = (SocketAddr::new(destination, *port), Owner { uid, gid });
                    return Some(Target { address, owner, reason });
                }
            }
        }
    }
    None
}

/// A connection to the workload from outside; none if the capture leaves all of the family alone.
pub(super) fn incoming(patient: &Patient<'_>, is_v4: bool) -> Option<Target> {
    let own = addresses(patient)
        .filter(|(bits, address, marks)| is_host(*bits) && marks.has(Marks::LOCAL) && is_outside(*address));
    for address in own.map(|(_, address, _)| address).filter(|address| address.is_ipv4() == is_v4) {
        for port in ports(patient, Subject::InboundPort) {
            let packet = packet(address, port, Path::Incoming { interface: String::new() });
            let decision = patient.decider.decide(&packet, 0);
            if let Some(reason) = redirected(decision, Listener::INBOUND) {
                let owner = Owner { uid: 0, gid: 0 };
                return Some(Target { address: SocketAddr::new(address, port), owner, reason });
            }
        }
    }
    None
}

/// Whether what becomes of an arriving connection depends on the interface, which cannot be foretold.
pub(super) fn depends_on_interface(patient: &Patient<'_>) -> bool {
    patient.table.workload().any(Switches::EXCLUDED_INTERFACES | Switches::REROUTED_INTERFACES)
}

fn packet(destination: IpAddr, port: u16, path: Path) -> Packet {
    let source = if destination.is_ipv4() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED)
    } else {
        IpAddr::V6(Ipv6Addr::UNSPECIFIED)
    };
    Packet { protocol: Protocol::Tcp, source, source_port: 0, destination, port, path }
}

fn redirected(decision: Option<Decision>, listener: Listener) -> Option<&'static str> {
    decision.filter(|decision| decision.redirect() == Some(listener)).map(|decision| decision.reason.name())
}

/// Prefixes of the table: length in bits, counted as for IPv6, and first address.
fn addresses(patient: &Patient<'_>) -> impl Iterator<Item = (u32, IpAddr, Marks)> {
    patient.table.entries().filter_map(|(bits, key, entry)| {
        let address = Ipv6Addr::from(key.as_address()?).to_canonical();
        Some((bits - EntryKey::SUBJECT_BITS, address, entry.marks))
    })
}

fn is_host(bits: u32) -> bool {
    bits == Ipv6Addr::BITS
}

/// The first address of a prefix that a host may have; none for a whole family.
fn first_host(bits: u32, network: IpAddr) -> Option<IpAddr> {
    const MAPPED_BITS: u32 = Ipv6Addr::BITS - Ipv4Addr::BITS;
    let next = u8::from(!is_host(bits));
    match network {
        IpAddr::V4(network) if bits > MAPPED_BITS => {
            Some(IpAddr::V4(Ipv4Addr::from_bits(network.to_bits() | u32::from(next))))
        }
        IpAddr::V6(network) if bits > 0 => {
            Some(IpAddr::V6(Ipv6Addr::from_bits(network.to_bits() | u128::from(next))))
        }
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    }
}

/// Whether others may know an address of the workload.
fn is_outside(address: IpAddr) -> bool {
    let is_link_local = match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local() || address.to_bits() >> 32 == 0,
    };
    !(is_link_local || address.is_loopback() || address.is_multicast() || address.is_unspecified())
}

/// Ports to try: one that nobody minds, then those the capture names.
fn ports(patient: &Patient<'_>, subject: Subject) -> Vec<u16> {
    let named = patient.table.entries().filter(|(_, _, entry)| entry.marks.has(Marks::INCLUDED));
    [DISCARD].into_iter().chain(named.filter_map(|(_, key, _)| key.as_port(subject))).collect()
}

/// Groups whose processes alone are intercepted, if there are such.
fn groups(patient: &Patient<'_>) -> Vec<u32> {
    let named = patient.table.entries().filter(|(_, _, entry)| entry.marks.has(Marks::INCLUDED));
    named.filter_map(|(_, key, _)| key.as_id(Subject::Group)).collect()
}
