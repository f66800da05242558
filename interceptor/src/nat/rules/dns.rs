//! Rules for DNS queries, and the conntrack zones that keep the proxy's own queries apart from the application's.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Emission, TCP, UDP};
use crate::{
    capture::{Dns, PortRange},
    nat::model::{Chain, Family, Match, Target, Test},
};

/// The port of the proxy's DNS server.
pub(in crate::nat) const PROXY_PORT: u16 = 15053;

const PROXY_ZONE: Target = Target::Zone(1);
const WORKLOAD_ZONE: Target = Target::Zone(2);

/// The rules, if any query is intercepted.
pub(super) fn emit(rules: &mut Emission<'_>) {
    if rules.capture.dns == Dns::Off {
        return;
    }
    let servers = servers(rules);
    rules.raw(&Chain::OUTPUT, [], Target::Jump(Chain::DNS));
    if !servers.is_empty() {
        rules.nat(&Chain::ISTIO_OUTPUT, [], Target::Jump(Chain::DNS));
    }
    for protocol in [TCP, UDP] {
        for server in &servers {
            let matches = with(vec![protocol.clone(), to_port_53()], server.map(Test::Destination));
            rules.nat(&Chain::DNS, matches, Target::Redirect(PROXY_PORT));
        }
    }
    for owner in owners(rules) {
        rules.raw(&Chain::DNS, [UDP, to_port_53(), owner.clone().is()], PROXY_ZONE);
        let answer = Test::SourcePorts(PROXY_PORT.into()).is();
        rules.raw(&Chain::DNS, [UDP, answer, owner.is()], WORKLOAD_ZONE);
    }
    if !servers.is_empty() {
        rules.raw(&Chain::PREROUTING, [], Target::Jump(Chain::INBOUND));
    }
    for server in servers {
        let query = with(vec![UDP, to_port_53()], server.map(Test::Destination));
        rules.raw(&Chain::DNS, query, WORKLOAD_ZONE);
        let answer = with(vec![UDP, Test::SourcePorts(DNS_PORT).is()], server.map(Test::Source));
        rules.raw(&Chain::INBOUND, answer, PROXY_ZONE);
    }
}

/// The rules of releases before 1.23, where queries over UDP did not come into `ISTIO_OUTPUT`.
pub(super) fn udp_first(rules: &mut Emission<'_>) {
    let servers = servers(rules);
    if servers.is_empty() {
        return;
    }
    for owner in owners(rules) {
        rules.nat(&Chain::OUTPUT, [UDP, to_port_53(), owner.is()], Target::Return);
    }
    for server in servers {
        let query = with(vec![UDP, to_port_53()], server.map(Test::Destination));
        rules.nat(&Chain::OUTPUT, query, Target::Redirect(PROXY_PORT));
    }
}

/// The servers of this family; one `None` for any server at all.
fn servers(rules: &Emission<'_>) -> Vec<Option<IpNet>> {
    match &rules.capture.dns {
        Dns::Off => Vec::new(),
        Dns::All => vec![None],
        Dns::Servers(servers) => {
            let ours = |server: &IpAddr| server.is_ipv4() == (rules.family == Family::V4);
            servers.iter().filter(|server| ours(server)).map(|server| Some(IpNet::from(*server))).collect()
        }
    }
}

/// The proxy's users, then its groups.
fn owners(rules: &Emission<'_>) -> Vec<Test> {
    let users = rules.capture.proxy_uids.iter().map(|uid| Test::Uid(*uid));
    users.chain(rules.capture.proxy_gids.iter().map(|gid| Test::Gid(*gid))).collect()
}

fn with(mut matches: Vec<Match>, test: Option<Test>) -> Vec<Match> {
    matches.extend(test.map(Test::is));
    matches
}

fn to_port_53() -> Match {
    Test::DestinationPorts(DNS_PORT).is()
}

const DNS_PORT: PortRange = PortRange { first: 53, last: 53 };
