//! Service names for ports, as `iptables -L` shows them.

use std::{fs, sync::OnceLock};

/// Names that listings of Istio's rules are known to show, for hosts that have no `/etc/services` (IANA's registry).
const COMMON: &str = "
ftp 21/tcp
ssh 22/tcp
telnet 23/tcp
smtp 25/tcp
domain 53/tcp
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
#[must_use]
pub(super) fn port(name: &str) -> Option<u16> {
    entries().iter().find(|(known, _)| known == name).map(|(_, port)| *port)
}

/// The name that `port` has, if any.
#[must_use]
pub(super) fn name(port: u16) -> Option<&'static str> {
    entries().iter().find(|(_, known)| *known == port).map(|(name, _)| name.as_str())
}

fn entries() -> &'static [(String, u16)] {
    static ENTRIES: OnceLock<Vec<(String, u16)>> = OnceLock::new();
    ENTRIES.get_or_init(|| {
        // Without the file the common names have to do.
        let file = fs::read_to_string("/etc/services").unwrap_or_default();
        [COMMON, &file].into_iter().flat_map(str::lines).filter_map(entry).collect()
    })
}

/// `http-alt  8080/tcp  webcache`: the name, and the number before the slash.
fn entry(line: &str) -> Option<(String, u16)> {
    let mut words = line.split('#').next()?.split_whitespace();
    let name = words.next()?.to_owned();
    let (port, _) = words.next()?.split_once('/')?;
    Some((name, port.parse().ok()?))
}
