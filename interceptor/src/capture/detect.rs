//! What the surroundings say: environment, addresses, resolv.conf, users.

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, Ipv6Addr},
};

use nix::{
    ifaddrs::getifaddrs,
    unistd::{Group, User},
};

use super::environment;

/// Facts about where the capture will apply, as far as no flag states them.
#[derive(Clone, Debug)]
pub struct Detected {
    /// Environment variables, by name.
    pub environment: BTreeMap<String, String>,
    /// Addresses of all interfaces in the kernel's order, without loopback and link-local ones.
    pub addresses: Vec<IpAddr>,
    /// The text of `/etc/resolv.conf`, or why it cannot be read.
    pub resolv_conf: Result<String, String>,
    /// Finds a user's id by name.
    pub user_id: fn(&str) -> Option<u32>,
    /// Finds a group's id by name.
    pub group_id: fn(&str) -> Option<u32>,
}

impl Detected {
    /// Reads the facts of this process: its environment, mount namespace and the calling thread's network namespace.
    pub fn here() -> std::io::Result<Self> {
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        let addresses = getifaddrs()?
            .filter_map(|interface| {
                let address = interface.address?;
                let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
                v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
            })
            .collect::<Vec<_>>();
        Ok(Self {
            environment,
            addresses: routable(&addresses),
            resolv_conf: fs::read_to_string("/etc/resolv.conf").map_err(|error| error.to_string()),
            user_id: |name| User::from_name(name).ok().flatten().map(|user| user.uid.as_raw()),
            group_id: |name| Group::from_name(name).ok().flatten().map(|group| group.gid.as_raw()),
        })
    }

    /// A boolean from the environment, or a sentence about why it is ignored.
    #[must_use]
    pub fn switch(&self, name: &str) -> (Option<bool>, Option<String>) {
        environment::read_switch(&self.environment, name)
    }

    /// Whether IPv6 is to be intercepted: with one stack the first address decides, with two any IPv6 address does.
    #[must_use]
    pub fn ipv6(&self, dual_stack: bool) -> Option<bool> {
        let first = self.addresses.first()?;
        Some(if dual_stack { self.addresses.iter().any(IpAddr::is_ipv6) } else { first.is_ipv6() })
    }

    /// The servers named in resolv.conf; lines that name no address are passed over, as resolvers do.
    pub fn dns_servers(&self) -> Result<Vec<IpAddr>, String> {
        let text = self.resolv_conf.as_ref().map_err(Clone::clone)?;
        let servers = text.lines().filter_map(|line| {
            let mut words = line.split_whitespace();
            (words.next()? == "nameserver").then_some(words.next()?.parse().ok()?)
        });
        Ok(servers.collect())
    }
}

fn routable(addresses: &[IpAddr]) -> Vec<IpAddr> {
    let passed_over = |address: &IpAddr| match address {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_link_local() || v4.octets()[..3] == [224, 0, 0],
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unicast_link_local() || is_link_local_multicast(*v6),
    };
    addresses.iter().map(IpAddr::to_canonical).filter(|address| !passed_over(address)).collect()
}

fn is_link_local_multicast(address: Ipv6Addr) -> bool {
    address.segments()[0] & 0xff0f == 0xff02
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_and_link_local_addresses_say_nothing_about_the_family() {
        let all = ["127.0.0.1", "169.254.7.7", "::1", "fe80::1", "ff02::1", "::ffff:10.1.0.5", "2001:db8::5"];
        let all = all.map(|text| text.parse().unwrap());
        let kept: Vec<IpAddr> = vec!["10.1.0.5".parse().unwrap(), "2001:db8::5".parse().unwrap()];
        assert_eq!(routable(&all), kept);
    }
}
