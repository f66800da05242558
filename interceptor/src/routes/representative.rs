//! Which address of a prefix to ask the kernel about.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// An address of `prefix` that lies in none of the longer `prefixes`, so that its route is the prefix's own.
/// None if they cover it whole.
///
/// A default route is not asked about addresses with a meaning of their own (unspecified, loopback, multicast).
pub(super) fn representative(prefix: &IpNet, prefixes: &[IpNet]) -> Option<IpAddr> {
    let inner: Vec<IpNet> = prefixes
        .iter()
        .chain(&special())
        .filter(|other| prefix != *other && prefix.contains(*other))
        .copied()
        .collect();
    let mut candidate = prefix.network();
    loop {
        let Some(covering) =
            inner.iter().filter(|net| net.contains(&candidate)).min_by_key(|net| net.prefix_len())
        else {
            return Some(candidate);
        };
        candidate = next(covering.broadcast())?;
        if !prefix.contains(&candidate) {
            return None;
        }
    }
}

fn next(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(address) => u32::from(address).checked_add(1).map(|next| Ipv4Addr::from(next).into()),
        IpAddr::V6(address) => u128::from(address).checked_add(1).map(|next| Ipv6Addr::from(next).into()),
    }
}

/// 0.0.0.0/8, 127.0.0.0/8, 224.0.0.0/3; `::/8`, `fe80::/10`, `ff00::/8`.
fn special() -> [IpNet; 6] {
    let v4 = |octet, bits| IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(octet, 0, 0, 0), bits));
    let v6 = |word, bits| IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(word, 0, 0, 0, 0, 0, 0, 0), bits));
    [v4(0, 8), v4(127, 8), v4(224, 3), v6(0, 8), v6(0xfe80, 10), v6(0xff00, 8)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(text: &[&str]) -> Vec<IpNet> {
        text.iter().map(|net| net.parse().unwrap()).collect()
    }

    #[test]
    fn an_address_outside_every_longer_prefix_is_chosen() {
        let routes = nets(&["0.0.0.0/0", "10.1.0.0/24", "10.1.0.0/32", "10.1.0.1/32", "1.0.0.0/8"]);
        let chosen = |text: &str| representative(&text.parse().unwrap(), &routes);
        assert_eq!(chosen("10.1.0.0/24"), Some("10.1.0.2".parse().unwrap()));
        assert_eq!(chosen("0.0.0.0/0"), Some("2.0.0.0".parse().unwrap()));
        assert_eq!(chosen("10.1.0.1/32"), Some("10.1.0.1".parse().unwrap()));
    }

    #[test]
    fn a_prefix_covered_by_its_halves_has_none() {
        let routes = nets(&["10.0.0.0/8", "10.0.0.0/9", "10.128.0.0/9"]);
        assert_eq!(representative(&routes[0], &routes), None);
    }
}
