//! What PREROUTING says: found out by asking the rules about every port, since excluding a port has many forms.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use super::{ImportError, Reader};
use crate::{
    capture::{Capture, InboundPorts, PortRange},
    nat::{
        Chain, Family, Match, Outcome, Packet, Path, Protocol, Rule, Table, Target, Test, classes, evaluate,
    },
};

const PREROUTING: Chain = Chain::PREROUTING;
const OUTPUT: Chain = Chain::OUTPUT;

/// Reads interfaces and inbound ports into `capture`.
pub(super) fn read(reader: &Reader<'_>, capture: &mut Capture) -> Result<(), ImportError> {
    interfaces(reader, capture);
    let Some((family, loaded)) = reader.families.first() else { return Ok(()) };
    let address = match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7)),
        Family::V6 => IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7)),
    };
    let captured = |port: u16| -> Result<bool, ImportError> {
        let packet = Packet {
            protocol: Protocol::Tcp,
            source: address,
            source_port: 40_000,
            destination: address,
            port,
            // A name that no rule can mean.
            path: Path::Incoming { interface: "?".to_owned() },
        };
        Ok(evaluate(loaded, &packet)?.outcome != Outcome::Pass)
    };

    // The verdict can change only where a range of some rule begins, and behind its end.
    let mut starts = BTreeSet::from([0]);
    for range in classes::tests(loaded).flat_map(Test::destination_ports) {
        starts.insert(range.first);
        starts.extend(range.last.checked_add(1));
    }
    let starts: Vec<u16> = starts.into_iter().collect();
    let (mut yes, mut no) = (Vec::new(), Vec::new());
    for (index, first) in starts.iter().enumerate() {
        let last = starts.get(index + 1).map_or(u16::MAX, |next| next - 1);
        let found = if captured(*first)? { &mut yes } else { &mut no };
        extend(found, PortRange { first: *first, last });
    }
    let size = |ranges: &[PortRange]| {
        ranges.iter().map(|range| u32::from(range.last - range.first) + 1).sum::<u32>()
    };
    let tunnel = PortRange::from(capture.tunnel_port);
    capture.quirks.inbound_tunnel_exempt = !captured(capture.tunnel_port)?;
    capture.inbound_ports = if yes.is_empty() {
        InboundPorts::None
    } else if size(&yes) > size(&no) {
        no.retain(|range| *range != tunnel);
        InboundPorts::AllExcept(no)
    } else {
        InboundPorts::Only(yes)
    };
    Ok(())
}

/// A virtual machine's interface is only named in PREROUTING; an excluded one also in OUTPUT.
fn interfaces(reader: &Reader<'_>, capture: &mut Capture) {
    let excluded_outbound: Vec<&String> = reader.chain(&OUTPUT).filter_map(returned_interface).collect();
    for name in reader.chain(&PREROUTING).filter_map(returned_interface) {
        let list = if excluded_outbound.contains(&name) {
            &mut capture.excluded_interfaces
        } else {
            &mut capture.rerouted_interfaces
        };
        if !list.contains(name) {
            list.push(name.clone());
        }
    }
    let in_mangle = reader.rules(Table::Mangle).filter(|(chain, _)| **chain == PREROUTING);
    for name in in_mangle.filter_map(|(_, rule)| returned_interface(rule)) {
        if !capture.excluded_interfaces.contains(name) {
            capture.excluded_interfaces.push(name.clone());
        }
    }
}

/// The interface of a rule that is about it alone and returns.
fn returned_interface(rule: &Rule) -> Option<&String> {
    match (rule.matches.as_slice(), &rule.target) {
        (
            [Match { negated: false, test: Test::InInterface(name) | Test::OutInterface(name) }],
            Target::Return,
        ) => Some(name),
        _ => None,
    }
}

/// Appends a range, joined to the one before if they touch.
fn extend(list: &mut Vec<PortRange>, range: PortRange) {
    match list.last_mut() {
        Some(before) if before.last.checked_add(1) == Some(range.first) => before.last = range.last,
        _ => list.push(range),
    }
}
