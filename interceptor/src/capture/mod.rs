//! The configuration of one workload: what `istio-iptables`' flags say, validated.

mod args;
mod detect;
mod environment;
mod error;
mod file;
mod flags;
mod lists;
mod pod;
mod quirks;
mod settle;

use std::{fmt, net::IpAddr};

use ipnet::{IpNet, Ipv4Net};

pub use self::{
    args::{CaptureArgs, Ipv6, go_bool},
    detect::Detected,
    error::CaptureError,
    flags::CommandLine,
    pod::{Pod, PodError, Reader as PodReader},
    quirks::{Quirks, SelfCalls},
};

/// What to intercept of one workload, and where to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capture {
    /// Port of the proxy's listener for outbound connections (`-p`).
    pub outbound_port: u16,
    /// Port of the proxy's listener for inbound connections (`-z`).
    pub inbound_port: u16,
    /// Port that is never redirected inbound nor looped outbound (`-e`, HBONE).
    pub tunnel_port: u16,
    /// User ids the proxy runs as (`-u`), in the order given: the first one's rules hide the others' on `lo`.
    pub proxy_uids: Vec<u32>,
    /// Group ids the proxy runs as (`-g`), in the order given.
    pub proxy_gids: Vec<u32>,
    /// How inbound connections reach the proxy (`-m`).
    pub inbound_mode: InboundMode,
    /// Inbound ports to intercept (`-b`, `-d`).
    pub inbound_ports: InboundPorts,
    /// Outbound destinations to intercept (`-i`).
    pub outbound_cidrs: OutboundCidrs,
    /// Outbound destinations never intercepted (`-x`), except by DNS capture.
    pub excluded_cidrs: Vec<IpNet>,
    /// Outbound TCP ports intercepted whatever `outbound_cidrs` says (`-q`).
    pub included_ports: Vec<PortRange>,
    /// Outbound TCP and UDP ports never intercepted (`-o`).
    pub excluded_ports: Vec<PortRange>,
    /// Interfaces whose arriving traffic counts as outbound (`-k`).
    pub rerouted_interfaces: Vec<String>,
    /// Interfaces on which nothing is intercepted in either direction (`-c`).
    pub excluded_interfaces: Vec<String>,
    /// Firewall mark for TPROXY (`-t`).
    pub tproxy_mark: u32,
    /// Routing table for TPROXY (`-r`).
    pub tproxy_table: u32,
    /// Whose DNS queries go to the proxy (`--redirect-dns`, `--capture-all-dns`).
    pub dns: Dns,
    /// Drop packets that conntrack calls INVALID (`--drop-invalid`).
    pub drop_invalid: bool,
    /// Groups whose outbound traffic is intercepted (`ISTIO_OUTBOUND_OWNER_GROUPS`, `..._EXCLUDE`).
    pub owner_groups: OwnerGroups,
    /// What counts as the IPv4 loopback address (`ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR`); IPv6 is always `::1/128`.
    pub loopback: Ipv4Net,
    /// Whether IPv6 traffic is intercepted too.
    pub ipv6: bool,
    /// What an older Istio release did differently; today's behaviour by default.
    pub quirks: Quirks,
}

impl Capture {
    /// Whether a loopback address is among the destinations to intercept.
    ///
    /// Istio then lets calls on `lo` by others than the proxy go on to the later rules, in both families.
    #[must_use]
    pub fn includes_loopback(&self) -> bool {
        match &self.outbound_cidrs {
            OutboundCidrs::None | OutboundCidrs::All => false,
            OutboundCidrs::Only(cidrs) => cidrs.iter().any(|cidr| cidr.addr().is_loopback()),
        }
    }

    /// Whether no connection at all would be intercepted, in either direction.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.inbound_ports == InboundPorts::None
            && self.outbound_cidrs == OutboundCidrs::None
            && self.included_ports.is_empty()
            && self.dns == Dns::Off
    }
}

/// How inbound connections reach the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InboundMode {
    /// The destination becomes the proxy's port; the proxy asks for the original one.
    Redirect,
    /// The proxy's socket is given the connection with its addresses unchanged.
    Tproxy,
}

/// Which inbound ports are intercepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InboundPorts {
    /// None at all (`-b ""`).
    None,
    /// Every port but these (`-b '*' -d ...`).
    AllExcept(Vec<PortRange>),
    /// These only (`-b 80,443`).
    Only(Vec<PortRange>),
}

/// Which outbound destinations are intercepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutboundCidrs {
    /// None at all (`-i ""`).
    None,
    /// Every destination (`-i '*'`).
    All,
    /// These only, host bits kept as given.
    Only(Vec<IpNet>),
}

/// Which DNS queries are intercepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dns {
    /// None.
    Off,
    /// Those to these servers.
    Servers(Vec<IpAddr>),
    /// All.
    All,
}

/// Which groups' outbound traffic is intercepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnerGroups {
    /// Every group's but these.
    AllExcept(Vec<u32>),
    /// These groups' only.
    Only(Vec<u32>),
}

/// Ports from `first` to `last`, both included: iptables' `8000:9000`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    /// Lowest port of the range.
    pub first: u16,
    /// Highest port of the range.
    pub last: u16,
}

impl PortRange {
    /// Every port there is.
    pub const ALL: Self = Self { first: 0, last: u16::MAX };

    /// Whether `port` lies in the range.
    #[must_use]
    pub fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }
}

impl From<u16> for PortRange {
    fn from(port: u16) -> Self {
        Self { first: port, last: port }
    }
}

/// As iptables writes it: `80`, or `8000:9000`.
impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}:{}", self.first, self.last)
        }
    }
}
