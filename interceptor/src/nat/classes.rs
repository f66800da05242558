//! Every class of connection that a set of tests can tell apart.

use std::{
    collections::{BTreeSet, HashSet},
    net::IpAddr,
    ops::ControlFlow,
};

use ipnet::IpNet;

use super::{
    loaded::Loaded,
    model::{Protocol, Test},
    packet::{Packet, Path},
};
use crate::capture::PortRange;

/// Values that stand for all others, one dimension each; their combinations are the classes.
#[derive(Clone, Debug, Default)]
pub struct Classes {
    destinations: BTreeSet<IpAddr>,
    sources: BTreeSet<IpAddr>,
    ports: BTreeSet<u16>,
    source_ports: BTreeSet<u16>,
    uids: BTreeSet<u32>,
    gids: BTreeSet<u32>,
    marks: BTreeSet<u32>,
    interfaces: BTreeSet<String>,
}

impl Classes {
    /// All boundaries: for each value or range the first, the last and the neighbours of both, and a few of no meaning.
    pub fn boundaries<'a>(tests: impl IntoIterator<Item = &'a Test>) -> Self {
        let mut classes = Self::default();
        for address in
            ["10.1.0.5", "198.51.100.7", "127.0.0.1", "2001:db8:ffff::5", "2001:db8:fffe::7", "::1"]
        {
            classes.destinations.extend(address.parse::<IpAddr>());
        }
        classes
            .sources
            .extend(["10.1.0.5".parse::<IpAddr>(), "2001:db8:ffff::5".parse()].into_iter().flatten());
        classes.ports.extend([1, 53, 9999]);
        classes.source_ports.insert(40000);
        classes.uids.insert(0);
        classes.gids.insert(0);
        classes.marks.insert(0);
        classes.interfaces.extend(["lo", "eth0"].map(str::to_owned));
        for test in tests {
            classes.add(test);
        }
        classes
    }

    /// Of the boundaries, those that some test tells apart: one for each set of tests that hold.
    pub fn distinct<'a>(tests: impl IntoIterator<Item = &'a Test>) -> Self {
        let tests: Vec<&Test> = tests.into_iter().collect();
        let mut classes = Self::boundaries(tests.iter().copied());
        let in_range = |range: &PortRange, port: u16| range.contains(port);
        keep_distinct(
            &mut classes.destinations,
            &tests,
            |test, address| matches!(test, Test::Destination(cidr) if cidr.contains(address)),
        );
        keep_distinct(
            &mut classes.sources,
            &tests,
            |test, address| matches!(test, Test::Source(cidr) if cidr.contains(address)),
        );
        keep_distinct(&mut classes.ports, &tests, |test, port| {
            matches!(test, Test::DestinationPorts(range) if in_range(range, *port))
                || matches!(test, Test::AnyDestinationPorts(ranges) if ranges.iter().any(|range| in_range(range, *port)))
        });
        keep_distinct(
            &mut classes.source_ports,
            &tests,
            |test, port| matches!(test, Test::SourcePorts(range) if in_range(range, *port)),
        );
        keep_distinct(&mut classes.uids, &tests, |test, uid| *test == Test::Uid(*uid));
        keep_distinct(&mut classes.gids, &tests, |test, gid| *test == Test::Gid(*gid));
        keep_distinct(
            &mut classes.marks,
            &tests,
            |test, mark| matches!(test, Test::Mark(wanted) if mark & wanted.mask == wanted.value),
        );
        classes
    }

    /// How many packets [`Self::each`] makes.
    #[must_use]
    pub fn count(&self) -> usize {
        let mut count = 0;
        let _all = self.each(|_| {
            count += 1;
            ControlFlow::<()>::Continue(())
        });
        count
    }

    /// Shows one packet of every class to `visit`, until it breaks.
    pub fn each<B>(&self, mut visit: impl FnMut(&Packet) -> ControlFlow<B>) -> ControlFlow<B> {
        for interface in &self.interfaces {
            for uid in &self.uids {
                for gid in &self.gids {
                    for mark in &self.marks {
                        let interface = interface.clone();
                        self.each_on(
                            Path::Outgoing { interface, uid: *uid, gid: *gid, mark: *mark },
                            &mut visit,
                        )?;
                    }
                }
            }
            // What arrives on lo was sent here, and is covered by the way it was sent.
            if interface != "lo" {
                self.each_on(Path::Incoming { interface: interface.clone() }, &mut visit)?;
            }
        }
        ControlFlow::Continue(())
    }

    fn each_on<B>(&self, path: Path, visit: &mut impl FnMut(&Packet) -> ControlFlow<B>) -> ControlFlow<B> {
        let Some(any) = self.destinations.first() else { return ControlFlow::Continue(()) };
        let mut packet = Packet {
            protocol: Protocol::Tcp,
            source: *any,
            source_port: 0,
            destination: *any,
            port: 0,
            path,
        };
        for destination in &self.destinations {
            packet.destination = *destination;
            for source in self.sources.iter().filter(|source| source.is_ipv4() == destination.is_ipv4()) {
                packet.source = *source;
                for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Other(132)] {
                    packet.protocol = protocol;
                    for port in &self.ports {
                        packet.port = *port;
                        for source_port in &self.source_ports {
                            packet.source_port = *source_port;
                            visit(&packet)?;
                        }
                    }
                }
            }
        }
        ControlFlow::Continue(())
    }

    fn add(&mut self, test: &Test) {
        match test {
            Test::Source(cidr) => self.sources.extend(around_cidr(cidr)),
            Test::Destination(cidr) => self.destinations.extend(around_cidr(cidr)),
            Test::InInterface(name) | Test::OutInterface(name) => {
                self.interfaces.insert(name.replace('+', "9"));
            }
            Test::SourcePorts(range) => self.source_ports.extend(around_ports(*range)),
            Test::DestinationPorts(range) => self.ports.extend(around_ports(*range)),
            Test::AnyDestinationPorts(ranges) => {
                self.ports.extend(ranges.iter().flat_map(|range| around_ports(*range)));
            }
            Test::Uid(uid) => self.uids.extend(around(*uid)),
            Test::Gid(gid) => self.gids.extend(around(*gid)),
            Test::Mark(mark) => self.marks.extend(around(mark.value)),
            Test::ConnectionMark(_)
            | Test::Protocol(_)
            | Test::ConntrackState(_)
            | Test::Comment(_)
            | Test::Other(_) => {}
        }
    }
}

/// The tests of those rules that can decide about a connection's first packet.
pub fn tests(loaded: &Loaded) -> impl Iterator<Item = &Test> {
    let deciding = loaded.all().filter(|(table, ..)| *table != super::Table::Raw);
    deciding.flat_map(|(_, _, _, rule)| rule.matches.iter().map(|part| &part.test))
}

/// Keeps one value for each set of tests that hold for it.
fn keep_distinct<T: Ord>(values: &mut BTreeSet<T>, tests: &[&Test], holds: impl Fn(&Test, &T) -> bool) {
    let mut seen: HashSet<Vec<bool>> = HashSet::new();
    values.retain(|value| seen.insert(tests.iter().map(|test| holds(test, value)).collect()));
}

fn around(value: u32) -> impl Iterator<Item = u32> {
    value
        .checked_sub(1)
        .into_iter()
        .chain([value])
        .chain(value.checked_add(1).filter(|next| *next != u32::MAX))
}

fn around_ports(range: PortRange) -> impl Iterator<Item = u16> {
    let before = range.first.checked_sub(1);
    before.into_iter().chain([range.first, range.last]).chain(range.last.checked_add(1))
}

fn around_cidr(cidr: &IpNet) -> Vec<IpAddr> {
    let (first, last) = (cidr.network(), cidr.broadcast());
    let neighbour = |address: IpAddr, up: bool| match address {
        IpAddr::V4(v4) => {
            let bits = u32::from(v4);
            let next = if up { bits.checked_add(1) } else { bits.checked_sub(1) };
            next.map(|bits| IpAddr::V4(bits.into()))
        }
        IpAddr::V6(v6) => {
            let bits = u128::from(v6);
            let next = if up { bits.checked_add(1) } else { bits.checked_sub(1) };
            next.map(|bits| IpAddr::V6(bits.into()))
        }
    };
    [neighbour(first, false), Some(first), Some(last), neighbour(last, true)].into_iter().flatten().collect()
}
