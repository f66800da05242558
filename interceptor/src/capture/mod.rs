//! The configuration of one workload: what `istio-iptables`' flags say, validated.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

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
