//! Service names for ports, as `iptables -L` shows them.

use std::{fs, sync::OnceLock};

/// Names that listings of Istio's rules are known to show, for hosts that have no `/etc/services` (IANA's registry).
const COMMON: &str = "
ftp 21/tcp
ssh 22/tcp
telnet 23/tcp
smtp 25/tcp
domain 53/tcp
domain 53/udp
http 80/tcp
kerberos 88/tcp
pop3 110/tcp
ntp 123/udp
imap2 143/tcp
snmp 161/udp
ldap 389/tcp
https 443/tcp
ldaps 636/tcp
mysql 3306/tcp
postgresql 5432/tcp
amqp 5672/tcp
redis 6379/tcp
http-alt 8080/tcp
";

/// The port that `name` stands for.
pub(super) fn port(name: &str) -> Option<u16> {
    let known = |service: &&Service| service.name == name;
    // A listing comes from a host that may know more names than this one.
    let found = here().iter().find(known).map(|service| service.port);
    found.or_else(|| services(COMMON).find(|service| service.name == name).map(|service| service.port))
}

/// The name that `port` has for `protocol`, if any.
pub(super) fn name(port: u16, protocol: &str) -> Option<&'static str> {
    let wanted = |service: &&Service| service.port == port && service.protocol == protocol;
    here().iter().find(wanted).map(|service| service.name.as_str())
}

struct Service {
    name: String,
    port: u16,
    protocol: String,
}

/// The services this host knows.
fn here() -> &'static [Service] {
    static HERE: OnceLock<Vec<Service>> = OnceLock::new();
    HERE.get_or_init(|| match fs::read_to_string("/etc/services") {
        Ok(file) => services(&file).collect(),
        // A minimal image has no such file; the common names have to do there.
        Err(_) => services(COMMON).collect(),
    })
}

/// Lines such as `http-alt  8080/tcp  webcache`.
fn services(text: &str) -> impl Iterator<Item = Service> {
    text.lines().filter_map(|line| {
        let mut words = line.split('#').next()?.split_whitespace();
        let name = words.next()?.to_owned();
        let (port, protocol) = words.next()?.split_once('/')?;
        Some(Service { name, port: port.parse().ok()?, protocol: protocol.to_owned() })
    })
}
