//! Compares the policy with rules about every class of connection.

use std::ops::ControlFlow;

use interceptor::{
    capture::{Capture, Dns, InboundPorts, OutboundCidrs, OwnerGroups, PortRange},
    decide::{Policy, outcome},
    nat::{
        Family, Loaded, Outcome, Path, Test,
        classes::{Classes, tests},
        evaluate, generate,
    },
};
use ipnet::IpNet;

/// The loaded rules of both families.
pub(crate) type Rules = [Loaded; 2];

/// The rules that [`generate`] makes.
pub(crate) fn rules_of(capture: &Capture) -> Rules {
    let rules = generate(capture);
    Family::ALL.map(|family| Loaded::of(rules.family(family)))
}

/// The first packet, if any, about which policy and rules differ, as a sentence with both reasons.
pub(crate) fn difference(capture: &Capture, rules: &Rules, classes: &Classes) -> Option<String> {
    let policy = Policy::new(capture, &["eth0"]);
    let found = classes.each(|packet| {
        let by_policy = policy.decide(packet).map_or((Outcome::Pass, "no hook sees it"), |decision| {
            (outcome(decision, capture), decision.reason.name())
        });
        let evaluation = evaluate(&rules[usize::from(packet.destination.is_ipv6())], packet).unwrap();
        let (ours, theirs) = (by_policy.0, evaluation.outcome);
        // Whether a connection of the proxy to its own workload keeps its addresses hangs on which of its ids the
        // rules know first; it comes to the same listener.
        let alike = match packet.path {
            Path::Outgoing { .. } => landing(ours) == landing(theirs),
            Path::Incoming { .. } => ours == theirs,
        };
        if alike {
            return ControlFlow::Continue(());
        }
        let rule = evaluation.path.last().map_or_else(|| "no rule".to_owned(), ToString::to_string);
        ControlFlow::Break(format!(
            "{packet}\n  policy: {ours:?} ({})\n  rules: {theirs:?} ({rule})",
            by_policy.1
        ))
    });
    match found {
        ControlFlow::Break(difference) => Some(difference),
        ControlFlow::Continue(()) => None,
    }
}

/// Every test that either side can make.
pub(crate) fn tests_of(capture: &Capture, rules: &Rules) -> Vec<Test> {
    rules.iter().flat_map(tests).cloned().chain(values(capture)).collect()
}

fn landing(outcome: Outcome) -> (bool, Option<u16>) {
    match outcome {
        Outcome::Pass => (true, None),
        Outcome::Redirect(port) | Outcome::Tproxy(port) => (true, Some(port)),
        Outcome::Drop => (false, None),
    }
}

/// Every value in a capture, as a test for it.
fn values(capture: &Capture) -> Vec<Test> {
    let ranges =
        |ports: &[PortRange]| ports.iter().map(|ports| Test::DestinationPorts(*ports)).collect::<Vec<_>>();
    let mut tests = vec![
        Test::DestinationPorts(PortRange::from(53)),
        Test::DestinationPorts(capture.tunnel_port.into()),
        Test::DestinationPorts(capture.outbound_port.into()),
        Test::DestinationPorts(capture.inbound_port.into()),
        Test::Destination(capture.loopback.into()),
        Test::Destination("::1/128".parse().unwrap()),
        Test::Source("127.0.0.6/32".parse().unwrap()),
        Test::Source("::6/128".parse().unwrap()),
    ];
    tests.extend(capture.proxy_uids.iter().map(|uid| Test::Uid(*uid)));
    tests.extend(capture.proxy_gids.iter().map(|gid| Test::Gid(*gid)));
    let (OwnerGroups::AllExcept(groups) | OwnerGroups::Only(groups)) = &capture.owner_groups;
    tests.extend(groups.iter().map(|gid| Test::Gid(*gid)));
    if let InboundPorts::AllExcept(ports) | InboundPorts::Only(ports) = &capture.inbound_ports {
        tests.extend(ranges(ports));
    }
    tests.extend(ranges(&capture.included_ports));
    tests.extend(ranges(&capture.excluded_ports));
    if let OutboundCidrs::Only(cidrs) = &capture.outbound_cidrs {
        tests.extend(cidrs.iter().map(|cidr| Test::Destination(*cidr)));
    }
    tests.extend(capture.excluded_cidrs.iter().map(|cidr| Test::Destination(*cidr)));
    if let Dns::Servers(servers) = &capture.dns {
        tests.extend(servers.iter().map(|server| Test::Destination(IpNet::from(*server))));
    }
    let interfaces = capture.excluded_interfaces.iter().chain(&capture.rerouted_interfaces);
    tests.extend(interfaces.map(|name| Test::OutInterface(name.clone())));
    tests
}
