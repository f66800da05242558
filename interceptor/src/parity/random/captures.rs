//! Random captures, drawn from values that meet each other often.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use proptest::{collection::vec, prelude::*};

use crate::capture::{
    Capture, Dns, InboundMode, InboundPorts, OutboundCidrs, OwnerGroups, PortRange, Quirks, SelfCalls,
};

/// Any capture.
pub fn capture() -> impl Strategy<Value = Capture> {
    let proxy = (ports_of_proxy(), ids(), ids(), quirks());
    let inbound = (inbound_mode(), inbound_ports(), interfaces(), interfaces());
    let outbound = (outbound_cidrs(), vec(cidr(), 0..3), vec(range(), 0..3), vec(range(), 0..3));
    let rest = (dns(), owner_groups(), loopback(), any::<(bool, bool)>(), 1..100_u32);
    (proxy, inbound, outbound, rest).prop_map(
        |(
            ([outbound_port, inbound_port, tunnel_port], proxy_uids, proxy_gids, quirks),
            (inbound_mode, inbound_ports, rerouted_interfaces, excluded_interfaces),
            (outbound_cidrs, excluded_cidrs, included_ports, excluded_ports),
            (dns, owner_groups, loopback, (drop_invalid, ipv6), tproxy_mark),
        )| Capture {
            outbound_port,
            inbound_port,
            tunnel_port,
            proxy_uids,
            proxy_gids,
            inbound_mode,
            inbound_ports,
            outbound_cidrs,
            excluded_cidrs,
            included_ports,
            excluded_ports,
            rerouted_interfaces,
            excluded_interfaces,
            tproxy_mark,
            tproxy_table: 133,
            dns,
            drop_invalid,
            owner_groups,
            loopback: loopback_for(inbound_mode, loopback),
            ipv6,
            quirks,
        },
    )
}

fn ports_of_proxy() -> impl Strategy<Value = [u16; 3]> {
    prop_oneof![Just([15001, 15006, 15008]), Just([15001, 15001, 15008]), Just([80, 443, 53])]
}

fn ids() -> impl Strategy<Value = Vec<u32>> {
    vec(prop_oneof![Just(0), Just(1337), Just(1338), 1000..1003_u32], 0..3)
}

fn quirks() -> impl Strategy<Value = Quirks> {
    let self_calls = prop_oneof![
        4 => Just(SelfCalls::ProxyToInbound),
        1 => Just(SelfCalls::EveryoneToInbound),
        1 => Just(SelfCalls::EveryoneToOutbound),
    ];
    let mostly = || prop::bool::weighted(0.8);
    (self_calls, mostly(), mostly(), mostly(), mostly()).prop_map(
        |(self_calls, inbound_tunnel_exempt, self_call_tunnel_exempt, passthrough_source_exempt, last)| {
            Quirks {
                self_calls,
                inbound_tunnel_exempt,
                self_call_tunnel_exempt,
                passthrough_source_exempt,
                udp_dns_first: !last,
            }
        },
    )
}

fn inbound_mode() -> impl Strategy<Value = InboundMode> {
    prop_oneof![2 => Just(InboundMode::Redirect), 1 => Just(InboundMode::Tproxy)]
}

fn inbound_ports() -> impl Strategy<Value = InboundPorts> {
    prop_oneof![
        1 => Just(InboundPorts::None),
        2 => vec(range(), 0..4).prop_map(InboundPorts::AllExcept),
        2 => vec(range(), 0..4).prop_map(InboundPorts::Only),
    ]
}

fn outbound_cidrs() -> impl Strategy<Value = OutboundCidrs> {
    prop_oneof![
        1 => Just(OutboundCidrs::None),
        2 => Just(OutboundCidrs::All),
        3 => vec(cidr(), 0..4).prop_map(OutboundCidrs::Only),
    ]
}

fn interfaces() -> impl Strategy<Value = Vec<String>> {
    let name = prop_oneof![Just("net1"), Just("vm0"), Just("eth0"), Just("lo")].prop_map(str::to_owned);
    prop_oneof![2 => Just(Vec::new()), 1 => vec(name, 1..3)]
}

fn port() -> impl Strategy<Value = u16> {
    prop_oneof![
        4 => prop::sample::select(vec![0, 1, 53, 80, 443, 15001, 15006, 15008, 15020, 15053, u16::MAX]),
        1 => any::<u16>(),
    ]
}

fn range() -> impl Strategy<Value = PortRange> {
    let ordered = |(a, b): (u16, u16)| PortRange { first: a.min(b), last: a.max(b) };
    prop_oneof![3 => port().prop_map(PortRange::from), 1 => (port(), port()).prop_map(ordered)]
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        2 => any::<u8>().prop_map(|last| Ipv4Addr::new(10, 1, 0, last).into()),
        1 => (0..9_u8).prop_map(|last| Ipv4Addr::new(127, 0, 0, last).into()),
        1 => any::<Ipv4Addr>().prop_map(IpAddr::V4),
        2 => any::<u16>().prop_map(|last| Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last).into()),
        1 => (0..9_u16).prop_map(|last| Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, last).into()),
    ]
}

fn cidr() -> impl Strategy<Value = IpNet> {
    let with_length = |(address, length): (IpAddr, u8)| match address {
        IpAddr::V4(v4) => IpNet::V4(Ipv4Net::new_assert(v4, length.min(32))),
        IpAddr::V6(v6) => IpNet::V6(Ipv6Net::new_assert(v6, length)),
    };
    (address(), prop_oneof![Just(0), Just(8), Just(24), Just(32), Just(128), 0..=128_u8])
        .prop_map(with_length)
}

fn dns() -> impl Strategy<Value = Dns> {
    prop_oneof![2 => Just(Dns::Off), 1 => Just(Dns::All), 2 => vec(address(), 1..3).prop_map(Dns::Servers)]
}

fn owner_groups() -> impl Strategy<Value = OwnerGroups> {
    prop_oneof![2 => ids().prop_map(OwnerGroups::AllExcept), 1 => ids().prop_map(OwnerGroups::Only)]
}

/// With TPROXY and a loopback range that lacks 127.0.0.1, an application that sets Istio's own mark 1338 on a socket
/// (which takes `CAP_NET_ADMIN`) gets its DNS queries into the inbound listener. The policy does not go so far.
fn loopback_for(mode: InboundMode, loopback: Ipv4Net) -> Ipv4Net {
    match mode {
        InboundMode::Tproxy if !loopback.contains(&Ipv4Addr::LOCALHOST) => {
            Ipv4Net::new_assert(Ipv4Addr::LOCALHOST, loopback.prefix_len())
        }
        InboundMode::Redirect | InboundMode::Tproxy => loopback,
    }
}

fn loopback() -> impl Strategy<Value = Ipv4Net> {
    let other = (any::<[u8; 3]>(), 8..=32_u8)
        .prop_map(|([a, b, c], length)| Ipv4Net::new_assert(Ipv4Addr::new(127, a, b, c), length));
    prop_oneof![3 => Just(Ipv4Net::new_assert(Ipv4Addr::LOCALHOST, 32)), 1 => other]
}
