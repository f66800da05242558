//! What OUTPUT and `ISTIO_OUTPUT` say.

use ipnet::{IpNet, Ipv4Net};

use super::Reader;
use crate::{
    capture::{
        Capture, Dns, InboundMode, InboundPorts, OutboundCidrs, OwnerGroups, PortRange, Quirks, SelfCalls,
    },
    nat::{Chain, Match, Protocol, Rule, Target, Test},
};

const REDIRECT: Chain = Chain::REDIRECT;
const IN_REDIRECT: Chain = Chain::IN_REDIRECT;
const OUTPUT: Chain = Chain::ISTIO_OUTPUT;
const TUNNEL_PORT: u16 = 15008;

/// Reads everything outbound; the rest of the capture is left at what the caller fills in.
pub(super) fn read(reader: &Reader<'_>, outbound_port: u16) -> Capture {
    let mut capture = Capture {
        outbound_port,
        inbound_port: reader.redirect_port(&IN_REDIRECT).unwrap_or(outbound_port),
        tunnel_port: TUNNEL_PORT,
        proxy_uids: Vec::new(),
        proxy_gids: Vec::new(),
        inbound_mode: InboundMode::Redirect,
        inbound_ports: InboundPorts::None,
        outbound_cidrs: OutboundCidrs::None,
        excluded_cidrs: Vec::new(),
        included_ports: Vec::new(),
        excluded_ports: Vec::new(),
        rerouted_interfaces: Vec::new(),
        excluded_interfaces: Vec::new(),
        tproxy_mark: 1337,
        tproxy_table: 133,
        dns: Dns::Off,
        drop_invalid: false,
        owner_groups: OwnerGroups::AllExcept(Vec::new()),
        loopback: Ipv4Net::new_assert(std::net::Ipv4Addr::LOCALHOST, 32),
        ipv6: false,
        quirks: Quirks {
            self_calls: SelfCalls::ProxyToInbound,
            inbound_tunnel_exempt: true,
            self_call_tunnel_exempt: false,
            passthrough_source_exempt: false,
            udp_dns_first: reader.chain(&Chain::OUTPUT).any(|rule| {
                matches!(rule.target, Target::Redirect(_))
                    && has(rule, |part| part.test == Test::Protocol(Protocol::Udp))
            }),
        },
    };
    for rule in reader.chain(&OUTPUT) {
        self_calls(&mut capture, rule);
    }
    let loops =
        |test: &Test| reader.chain(&OUTPUT).any(|rule| is_loop(rule) && has(rule, |part| part.test == *test));
    for rule in reader.chain(&OUTPUT) {
        returns(&mut capture, rule, &loops);
        redirects(&mut capture, rule);
    }
    capture
}

/// `-o lo ! -d 127.0.0.1/32 ... -j ISTIO_REDIRECT` or `ISTIO_IN_REDIRECT`, with the proxy's id or without.
fn self_calls(capture: &mut Capture, rule: &Rule) {
    if !is_loop(rule) {
        return;
    }
    let by_owner = has(rule, |part| matches!(part.test, Test::Uid(_) | Test::Gid(_)));
    capture.quirks.self_calls = match (by_owner, rule.target.jump()) {
        (false, Some(chain)) if *chain == REDIRECT => SelfCalls::EveryoneToOutbound,
        (false, _) => SelfCalls::EveryoneToInbound,
        (true, _) => SelfCalls::ProxyToInbound,
    };
    for part in rule.matches.iter().filter(|part| part.negated) {
        if let Test::Destination(IpNet::V4(loopback)) = &part.test {
            capture.loopback = *loopback;
        }
        for port in part.test.destination_ports().iter().filter(|port| port.first != 53) {
            tunnel(capture, port.first);
        }
    }
}

fn tunnel(capture: &mut Capture, port: u16) {
    capture.tunnel_port = port;
    capture.quirks.self_call_tunnel_exempt = true;
}

fn is_loop(rule: &Rule) -> bool {
    let on_lo = has(rule, |part| !part.negated && part.test == Test::OutInterface("lo".to_owned()));
    let not_loopback = has(rule, |part| part.negated && matches!(part.test, Test::Destination(_)));
    on_lo && not_loopback && rule.target.jump().is_some()
}

/// The rules that let connections pass. `loops` knows the ids whose self calls are redirected.
fn returns(capture: &mut Capture, rule: &Rule, loops: &dyn Fn(&Test) -> bool) {
    if rule.target != Target::Return {
        return;
    }
    let parts = significant(rule);
    if !parts.is_empty() && parts.iter().all(|part| part.negated && matches!(part.test, Test::Gid(_))) {
        let groups =
            parts.iter().filter_map(|part| if let Test::Gid(gid) = part.test { Some(gid) } else { None });
        capture.owner_groups = OwnerGroups::Only(groups.collect());
        return;
    }
    match parts.as_slice() {
        [] if capture.outbound_cidrs == OutboundCidrs::None => {
            capture.owner_groups = OwnerGroups::Only(Vec::new());
        }
        [Match { negated: false, test }] => {
            // A group is the proxy's if its self calls are redirected, or if nobody's ids tell those.
            let is_proxy = loops(test) || capture.quirks.self_calls != SelfCalls::ProxyToInbound;
            if let Test::Uid(uid) = test {
                push(&mut capture.proxy_uids, *uid);
            } else if let Test::Gid(gid) = test {
                match &mut capture.owner_groups {
                    OwnerGroups::AllExcept(groups) if !is_proxy => push(groups, *gid),
                    OwnerGroups::AllExcept(_) | OwnerGroups::Only(_) => push(&mut capture.proxy_gids, *gid),
                }
            } else if let Test::Destination(cidr) = test
                && !is_loopback(capture, cidr)
            {
                push(&mut capture.excluded_cidrs, *cidr);
            }
        }
        parts => {
            if parts.iter().any(|part| matches!(part.test, Test::Source(_))) {
                capture.quirks.passthrough_source_exempt = true;
            } else if let Some(ports) = tcp_ports(parts) {
                push(&mut capture.excluded_ports, ports);
            }
        }
    }
}

/// The rules that redirect.
fn redirects(capture: &mut Capture, rule: &Rule) {
    if rule.target.jump() != Some(&REDIRECT) || is_loop(rule) {
        return;
    }
    match significant(rule).as_slice() {
        [] => capture.outbound_cidrs = OutboundCidrs::All,
        [Match { negated: false, test: Test::Destination(cidr) }] => match &mut capture.outbound_cidrs {
            OutboundCidrs::Only(cidrs) => push(cidrs, *cidr),
            OutboundCidrs::None => capture.outbound_cidrs = OutboundCidrs::Only(vec![*cidr]),
            OutboundCidrs::All => {}
        },
        parts => {
            if let Some(ports) = tcp_ports(parts) {
                push(&mut capture.included_ports, ports);
            }
        }
    }
}

fn tcp_ports(matches: &[&Match]) -> Option<PortRange> {
    match matches {
        [
            Match { negated: false, test: Test::Protocol(Protocol::Tcp) },
            Match { negated: false, test: Test::DestinationPorts(ports) },
        ] => Some(*ports),
        _ => None,
    }
}

fn is_loopback(capture: &Capture, cidr: &IpNet) -> bool {
    *cidr == IpNet::V4(capture.loopback).trunc() || cidr.to_string() == "::1/128"
}

/// The matches of a rule without its comments.
fn significant(rule: &Rule) -> Vec<&Match> {
    rule.matches.iter().filter(|part| !matches!(part.test, Test::Comment(_))).collect()
}

fn has(rule: &Rule, wanted: impl Fn(&Match) -> bool) -> bool {
    rule.matches.iter().any(wanted)
}

fn push<T: PartialEq>(list: &mut Vec<T>, value: T) {
    if !list.contains(&value) {
        list.push(value);
    }
}
