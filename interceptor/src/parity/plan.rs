//! The address plan: every world has the same hosts at the same private addresses, so observations compare as they are.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use interceptor_ebpf::abi::Address;
use serde::Serialize;

/// Address family of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
    /// IPv4 spoken by an IPv6 socket: `::ffff:a.b.c.d`.
    Mapped,
}

impl Family {
    /// The wildcard address.
    #[must_use]
    pub fn unspecified(self) -> IpAddr {
        match self {
            Self::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            Self::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            Self::Mapped => IpAddr::V6(Ipv4Addr::UNSPECIFIED.to_ipv6_mapped()),
        }
    }
}

/// A network namespace of a world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// The workload that is intercepted.
    Pod,
    /// Another intercepted workload on the same node.
    SecondPod,
    /// Everything else: gateway of both pods, remote services, remote clients.
    Peer,
}

impl Place {
    /// The address by which others reach this place.
    #[must_use]
    pub fn host(self) -> Host {
        match self {
            Self::Pod => Host::Pod,
            Self::SecondPod => Host::SecondPod,
            Self::Peer => Host::Peer,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pod => "pod",
            Self::SecondPod => "pod2",
            Self::Peer => "peer",
        })
    }
}

/// An address of the plan by its role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// The pod's own address.
    Pod,
    /// The second pod's own address.
    SecondPod,
    /// The peer's address on the pod's link.
    Peer,
    /// A remote service, numbered from 1, which the peer serves.
    Service(u8),
    /// `127.0.0.n`, or `::n`.
    Loopback(u8),
    /// An address that no host of the world has.
    Nowhere,
    /// Any address; the peer has it, where the world's peer is everywhere.
    At(IpAddr),
}

impl Host {
    /// The address in the given family.
    #[must_use]
    pub const fn address(self, family: Family) -> IpAddr {
        match (self, family) {
            (Self::At(IpAddr::V4(v4)), Family::Mapped) => IpAddr::V6(v4.to_ipv6_mapped()),
            (Self::At(address), _) => address,
            (_, Family::V4) => IpAddr::V4(self.v4()),
            (_, Family::V6) => IpAddr::V6(self.v6()),
            (_, Family::Mapped) => IpAddr::V6(self.v4().to_ipv6_mapped()),
        }
    }

    /// Whether packets to it never leave the pod.
    #[must_use]
    pub fn is_local_to_pod(self, family: Family) -> bool {
        let address = self.address(family).to_canonical();
        address.is_loopback()
            || address == Self::Loopback(6).address(Family::V6)
            || [Family::V4, Family::V6].iter().any(|family| address == Self::Pod.address(*family))
    }

    const fn v4(self) -> Ipv4Addr {
        match self {
            Self::Pod => Ipv4Addr::new(10, 77, 1, 2),
            Self::SecondPod => Ipv4Addr::new(10, 77, 2, 2),
            Self::Peer => Ipv4Addr::new(10, 77, 1, 1),
            Self::Service(n) => Ipv4Addr::new(10, 88, 0, n),
            Self::Loopback(n) => Ipv4Addr::new(127, 0, 0, n),
            Self::Nowhere | Self::At(_) => Ipv4Addr::new(192, 0, 2, 1),
        }
    }

    const fn v6(self) -> Ipv6Addr {
        match self {
            Self::Pod => Ipv6Addr::new(0xfd77, 1, 0, 0, 0, 0, 0, 2),
            Self::SecondPod => Ipv6Addr::new(0xfd77, 2, 0, 0, 0, 0, 0, 2),
            Self::Peer => Ipv6Addr::new(0xfd77, 1, 0, 0, 0, 0, 0, 1),
            Self::Service(n) => Ipv6Addr::new(0xfd88, 0, 0, 0, 0, 0, 0, n as u16),
            Self::Loopback(n) => Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, n as u16),
            Self::Nowhere | Self::At(_) => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1),
        }
    }
}

/// Remote services that the peer has addresses for: `Service(1)` to this.
pub const SERVICES: u8 = 4;

/// The plan's name for an address, or the address itself where the plan has none.
#[must_use]
pub fn name(address: IpAddr) -> String {
    let canonical = address.to_canonical();
    if canonical != address {
        return format!("::ffff:{}", name(canonical));
    }
    let family = if address.is_ipv4() { Family::V4 } else { Family::V6 };
    let named =
        [("pod", Host::Pod), ("pod2", Host::SecondPod), ("peer", Host::Peer), ("nowhere", Host::Nowhere)];
    if let Some((name, _)) = named.iter().find(|(_, host)| host.address(family) == address) {
        return (*name).to_owned();
    }
    if is_spread(address) {
        return "spread".to_owned();
    }
    (1..=SERVICES)
        .find(|n| Host::Service(*n).address(family) == address)
        .map_or_else(|| address.to_string(), |n| format!("service{n}"))
}

/// Whether eBPF makes the address stand for another one, as the README says: 127.128.0.0/9 and an IPv6 prefix.
pub(super) fn is_spread(address: IpAddr) -> bool {
    Address::from(address).is_spread()
}

/// A host and a port in one, with brackets where the host has colons itself.
pub(super) fn join(host: &str, port: &str) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// One veth link of a world, between a pod and the peer.
pub(super) struct Link {
    /// The link's name in the peer; in the pod it is always `eth0`.
    pub(super) peer_name: String,
    /// The pod's addresses with their prefix lengths.
    pub(super) pod: [(IpAddr, u8); 2],
    /// The peer's addresses with their prefix lengths: the pod's gateways.
    pub(super) peer: [(IpAddr, u8); 2],
}

impl Link {
    /// The link of a pod; `None` for the peer, which has none of its own.
    pub(super) fn of(place: Place) -> Option<Self> {
        let (subnet, peer_name) = match place {
            Place::Pod => (1, "pod"),
            Place::SecondPod => (2, "pod2"),
            Place::Peer => return None,
        };
        Some(Self::numbered(subnet, peer_name.to_owned()))
    }

    /// The link of the network with this number, which no other pod may have.
    pub(super) fn numbered(subnet: u8, peer_name: String) -> Self {
        let v4 = |host| IpAddr::V4(Ipv4Addr::new(10, 77, subnet, host));
        let v6 = |host| IpAddr::V6(Ipv6Addr::new(0xfd77, subnet.into(), 0, 0, 0, 0, 0, host));
        Self { peer_name, pod: [(v4(2), 24), (v6(2), 64)], peer: [(v4(1), 24), (v6(1), 64)] }
    }
}
