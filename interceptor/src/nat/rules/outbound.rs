//! Rules for connections made here.

use super::{Emission, TCP, UDP, dns, on_lo};
use crate::{
    capture::{Dns, OutboundCidrs, OwnerGroups, PortRange, SelfCalls},
    nat::model::{Chain, Match, Table, Target, Test},
};

/// All of `ISTIO_OUTPUT`, and what virtual machines send.
pub(super) fn emit(rules: &mut Emission<'_>) {
    if rules.capture.quirks.udp_dns_first {
        dns::udp_first(rules);
    }
    rules.nat(&Chain::OUTPUT, [], Target::Jump(Chain::ISTIO_OUTPUT));
    for ports in &rules.capture.excluded_ports {
        for protocol in [TCP, UDP] {
            let to_port = Test::DestinationPorts(*ports).is();
            rules.nat(&Chain::ISTIO_OUTPUT, [protocol, to_port], Target::Return);
        }
    }
    if rules.capture.quirks.passthrough_source_exempt {
        rules.nat(&Chain::ISTIO_OUTPUT, [on_lo(), rules.passthrough_source()], Target::Return);
    }
    self_calls_of_everyone(rules);
    for uid in &rules.capture.proxy_uids {
        owner(rules, &Test::Uid(*uid));
    }
    for gid in &rules.capture.proxy_gids {
        owner(rules, &Test::Gid(*gid));
    }
    owner_groups(rules);
    dns::emit(rules);
    rules.nat(&Chain::ISTIO_OUTPUT, [rules.to_loopback().is()], Target::Return);
    for cidr in rules.cidrs(&rules.capture.excluded_cidrs) {
        rules.nat(&Chain::ISTIO_OUTPUT, [Test::Destination(cidr).is()], Target::Return);
    }
    for ports in &rules.capture.included_ports {
        let to_port = Test::DestinationPorts(*ports).is();
        rules.nat(&Chain::ISTIO_OUTPUT, [TCP, to_port], Target::Jump(Chain::REDIRECT));
    }
    included(rules);
}

fn self_calls_of_everyone(rules: &mut Emission<'_>) {
    let target = match rules.capture.quirks.self_calls {
        SelfCalls::ProxyToInbound => return,
        SelfCalls::EveryoneToInbound => Chain::IN_REDIRECT,
        SelfCalls::EveryoneToOutbound => Chain::REDIRECT,
    };
    let mut matches = vec![on_lo(), rules.to_loopback().is_not()];
    if rules.capture.quirks.self_call_tunnel_exempt {
        matches.extend([TCP, rules.to_tunnel().is_not()]);
    }
    rules.nat(&Chain::ISTIO_OUTPUT, matches, Target::Jump(target));
}

/// The rules that know the proxy by one of its ids.
fn owner(rules: &mut Emission<'_>, owner: &Test) {
    if rules.capture.quirks.self_calls == SelfCalls::ProxyToInbound {
        let mut looped = vec![on_lo(), rules.to_loopback().is_not()];
        looped.extend(looped_ports(rules, owner));
        looped.push(owner.clone().is());
        rules.nat(&Chain::ISTIO_OUTPUT, looped, Target::Jump(Chain::IN_REDIRECT));
        if !rules.capture.includes_loopback() {
            let mut others = vec![on_lo()];
            if rules.capture.dns != Dns::Off {
                others.extend([TCP, Test::DestinationPorts(DNS_PORT).is_not()]);
            }
            others.push(owner.clone().is_not());
            rules.nat(&Chain::ISTIO_OUTPUT, others, Target::Return);
        }
    }
    rules.nat(&Chain::ISTIO_OUTPUT, [owner.clone().is()], Target::Return);
}

/// The ports of the proxy's calls to itself. With DNS capture, port 53 is spared for its users only, not its groups.
fn looped_ports(rules: &Emission<'_>, owner: &Test) -> Vec<Match> {
    let spares_dns = rules.capture.dns != Dns::Off && matches!(owner, Test::Uid(_));
    let tunnel = PortRange::from(rules.capture.tunnel_port);
    match (spares_dns, rules.capture.quirks.self_call_tunnel_exempt) {
        (true, true) => vec![TCP, Test::AnyDestinationPorts(vec![DNS_PORT, tunnel]).is_not()],
        (true, false) => vec![TCP, Test::DestinationPorts(DNS_PORT).is_not()],
        (false, true) => vec![TCP, Test::DestinationPorts(tunnel).is_not()],
        (false, false) => Vec::new(),
    }
}

fn owner_groups(rules: &mut Emission<'_>) {
    match &rules.capture.owner_groups {
        OwnerGroups::AllExcept(excluded) => {
            for group in excluded {
                rules.nat(&Chain::ISTIO_OUTPUT, [Test::Gid(*group).is()], Target::Return);
            }
        }
        OwnerGroups::Only(included) => {
            let none_of_them = included.iter().map(|group| Test::Gid(*group).is_not());
            rules.nat(&Chain::ISTIO_OUTPUT, none_of_them.collect::<Vec<_>>(), Target::Return);
        }
    }
}

/// Destinations to intercept, for connections made here and, inserted in front, for those of virtual machines.
fn included(rules: &mut Emission<'_>) {
    let redirect = Target::Jump(Chain::REDIRECT);
    match &rules.capture.outbound_cidrs {
        OutboundCidrs::None => {}
        OutboundCidrs::All => {
            rules.nat(&Chain::ISTIO_OUTPUT, [], redirect.clone());
            for name in &rules.capture.rerouted_interfaces {
                let arriving = Test::InInterface(name.clone()).is();
                rules.insert(Table::Nat, &Chain::PREROUTING, 1, [arriving], redirect.clone());
            }
        }
        OutboundCidrs::Only(cidrs) => {
            for cidr in rules.cidrs(cidrs) {
                for name in &rules.capture.rerouted_interfaces {
                    let matches = [Test::InInterface(name.clone()).is(), Test::Destination(cidr).is()];
                    rules.insert(Table::Nat, &Chain::PREROUTING, 1, matches, redirect.clone());
                }
                rules.nat(&Chain::ISTIO_OUTPUT, [Test::Destination(cidr).is()], redirect.clone());
            }
        }
    }
}

const DNS_PORT: PortRange = PortRange { first: 53, last: 53 };
