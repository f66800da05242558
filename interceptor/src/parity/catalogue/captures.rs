//! Captures other than the injector's: every flag that decides something, from both sides of its boundary.

use super::{many, tcp};
use crate::parity::{
    actor::Owner,
    plan::{Host, Place},
    scenario::{APP, Client, Connection, PROXY, PROXY_GROUP, REMOTE, ROOT, Scenario, Set},
};

/// A process of a user that some captures name as the proxy, with a group of its own.
const OTHER_USER: Client = Client { place: Place::Pod, owner: Owner { uid: 2000, gid: 2000 } };

pub(super) fn scenarios() -> Vec<Scenario> {
    [destinations(), outbound_ports(), inbound_ports(), owners(), owner_groups(), interfaces()].concat()
}

/// Which destinations are captured: `-i` and `-x`.
fn destinations() -> Vec<Scenario> {
    let both = || vec![to_service(1), to_service(2), tcp(APP, Host::Peer, 80)];
    let loopback =
        || vec![to_self(1), to_self(2), tcp(APP, Host::Pod, 8080), tcp(PROXY, Host::Loopback(2), 8080)];
    vec![
        capture("no destination", &["-i", "", "-b", "*"], both()),
        capture("one address", &["-i", "10.88.0.1/32"], both()),
        capture("the upper half of a pair", &["-i", "10.88.0.2/31"], both()),
        capture("the lower half of a pair", &["-i", "10.88.0.0/31"], both()),
        capture("two ranges, one within the other", &["-i", "10.88.0.0/16,10.88.0.1/32"], both()),
        capture("host bits set in a range", &["-i", "10.88.7.7/16"], both()),
        capture("every destination as a range", &["-i", "0.0.0.0/0"], both()),
        capture("all but one address", &["-i", "*", "-x", "10.88.0.1/32"], both()),
        capture("all but a range", &["-i", "*", "-x", "10.88.0.0/16"], both()),
        capture("an exclusion within an inclusion", &["-i", "10.88.0.0/16", "-x", "10.88.0.2/32"], both()),
        capture("an inclusion within an exclusion", &["-i", "10.88.0.2/32", "-x", "10.88.0.0/16"], both()),
        capture("a loopback range", &["-i", "127.0.0.0/8"], loopback()),
        capture("one loopback address", &["-i", "127.0.0.2/32"], loopback()),
    ]
}

/// Which destination ports are: `-q` and `-o`.
fn outbound_ports() -> Vec<Scenario> {
    let ports = || vec![to_service(1), tcp(APP, Host::Service(1), 81), tcp(APP, Host::Service(2), 80)];
    vec![
        capture("all but one port", &["-i", "*", "-o", "80"], ports()),
        capture("all but another port", &["-i", "*", "-o", "81,82"], ports()),
        capture("all but a range of ports", &["-i", "*", "-o", "70:80"], ports()),
        capture("only one port", &["-q", "80"], ports()),
        capture("only a range of ports", &["-q", "81:90"], ports()),
        capture("a port beside an address", &["-i", "10.88.0.2/32", "-q", "81"], ports()),
        capture("a port included and excluded", &["-q", "80,81", "-o", "80"], ports()),
        capture("a port of an excluded address", &["-q", "80", "-x", "10.88.0.1/32"], ports()),
    ]
}

/// Which ports of the workload are: `-b` and `-d`.
fn inbound_ports() -> Vec<Scenario> {
    let ports = || [8080, 8081, 15008, 15020].map(|port| tcp(REMOTE, Host::Pod, port)).to_vec();
    vec![
        capture("nothing inbound", &["-i", "*"], ports()),
        capture("one inbound port", &["-b", "8080"], ports()),
        capture("a range of inbound ports", &["-b", "8081:15008"], ports()),
        capture("an inbound list, which -d does not touch", &["-b", "8080,8081", "-d", "8080"], ports()),
        capture("all inbound ports but one", &["-b", "*", "-d", "8080"], ports()),
        capture("all inbound ports but a range", &["-b", "*", "-d", "8000:8080"], ports()),
        capture("another tunnel port", &["-b", "*", "-e", "8080"], ports()),
    ]
}

/// Who is the proxy: `-u` and `-g`.
fn owners() -> Vec<Scenario> {
    let clients = || {
        let to_service =
            [APP, OTHER_USER, PROXY, PROXY_GROUP].map(|client| tcp(client, Host::Service(1), 80));
        let to_self = [APP, OTHER_USER, PROXY, PROXY_GROUP].map(|client| tcp(client, Host::Pod, 8080));
        [to_service, to_self].concat()
    };
    vec![
        capture("two proxy users", &["-i", "*", "-b", "*", "-u", "1337,2000"], clients()),
        capture("two proxy users, the other first", &["-i", "*", "-b", "*", "-u", "2000,1337"], clients()),
        capture("another proxy group", &["-i", "*", "-b", "*", "-u", "1337", "-g", "2000"], clients()),
        capture("another proxy user", &["-i", "*", "-b", "*", "-u", "2000", "-g", "1337"], clients()),
        capture(
            "two proxy users and a loopback range",
            &["-i", "127.0.0.2/32,10.88.0.0/16", "-u", "1337,2000"],
            clients(),
        ),
    ]
}

/// Whose connections are captured at all; Istio takes that from the environment alone.
fn owner_groups() -> Vec<Scenario> {
    let groups = |name: &str, variable, groups: &str| {
        let clients = [APP, OTHER_USER, ROOT, PROXY].map(|client| tcp(client, Host::Service(1), 80));
        let mut scenario = capture(name, &["-i", "*", "-b", "*", "-u", "1337"], clients.to_vec());
        scenario.capture.environment.push((variable, groups.to_owned()));
        scenario
    };
    vec![
        groups("one owner group", "ISTIO_OUTBOUND_OWNER_GROUPS", "1000"),
        groups("two owner groups", "ISTIO_OUTBOUND_OWNER_GROUPS", "0,2000"),
        groups("no owner group", "ISTIO_OUTBOUND_OWNER_GROUPS", ""),
        groups("all owner groups but one", "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE", "2000"),
    ]
}

/// Interfaces that are left out: `-c`; and those whose traffic is outbound: `-k`.
fn interfaces() -> Vec<Scenario> {
    let connections = || vec![to_service(1), tcp(REMOTE, Host::Pod, 8080), tcp(PROXY, Host::Pod, 8080)];
    vec![
        capture("without the outer interface", &["-i", "*", "-b", "*", "-c", "eth0"], connections()),
        capture("without the loopback interface", &["-i", "*", "-b", "*", "-c", "lo"], connections()),
        Scenario {
            refused: Some("forward"),
            ..capture("a virtual machine's interface", &["-i", "*", "-b", "*", "-k", "eth0"], connections())
        },
    ]
}

fn capture(name: &str, flags: &[&'static str], connections: Vec<Connection>) -> Scenario {
    Scenario { capture: flags.into(), set: Set::Captures, ..many(name, connections) }
}

fn to_service(service: u8) -> Connection {
    tcp(APP, Host::Service(service), 80)
}

fn to_self(loopback: u8) -> Connection {
    tcp(APP, Host::Loopback(loopback), 8080)
}
