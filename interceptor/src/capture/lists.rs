//! Comma-separated lists as `istio-iptables` reads them, and the items in them.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{CaptureError, PortRange};

/// Splits at commas and drops empty items; blanks inside an item are kept.
pub(super) fn items(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').filter(|item| !item.is_empty())
}

/// One port that a listener can have.
pub(super) fn port(option: &'static str, value: &str) -> Result<u16, CaptureError> {
    let expected = "a port; give a number from 1 to 65535";
    match value.trim().parse() {
        Ok(0) | Err(_) => Err(CaptureError::Value { option, value: value.to_owned(), expected }),
        Ok(port) => Ok(port),
    }
}

/// Ports and port ranges, in iptables' syntax (`80,8000:9000`, `:1024`, `60000:`).
pub(super) fn ports(option: &'static str, list: &str) -> Result<Vec<PortRange>, CaptureError> {
    let expected = "a port; give numbers from 0 to 65535, or ranges such as 8000:9000, separated by commas";
    let wrong = |item: &str| CaptureError::Value { option, value: item.to_owned(), expected };
    items(list).map(|item| port_range(item.trim()).ok_or_else(|| wrong(item))).collect()
}

/// Address ranges of both families. As in Istio, no blank is allowed around them and the length is required.
pub(super) fn cidrs(option: &'static str, list: &str) -> Result<Vec<IpNet>, CaptureError> {
    items(list)
        .map(|item| item.parse().map_err(|_| CaptureError::Cidr { option, value: item.to_owned() }))
        .collect()
}

/// Addresses of both families.
pub(super) fn addresses(option: &'static str, list: &str) -> Result<Vec<IpAddr>, CaptureError> {
    let expected = "an address; give addresses such as 10.96.0.10, separated by commas";
    let wrong = |item: &str| CaptureError::Value { option, value: item.to_owned(), expected };
    items(list).map(|item| item.trim().parse().map_err(|_| wrong(item))).collect()
}

/// Numeric ids, or names that `find` knows.
pub(super) fn ids(
    option: &'static str,
    list: &str,
    find: fn(&str) -> Option<u32>,
) -> Result<Vec<u32>, CaptureError> {
    let expected = "a numeric id, nor a name known here; give numbers such as 1337, separated by commas";
    // The kernel reserves the highest id for "no change".
    let number = |item: &str| item.parse().ok().filter(|id| *id != u32::MAX);
    items(list)
        .map(|item| {
            let known = number(item.trim()).or_else(|| find(item.trim()));
            known.ok_or_else(|| CaptureError::Value { option, value: item.to_owned(), expected })
        })
        .collect()
}

/// Interface names, with iptables' trailing `+` for "any that begins so".
pub(super) fn interfaces(option: &'static str, list: &str) -> Result<Vec<String>, CaptureError> {
    let expected = "an interface name; give at most 15 characters without blanks, `/` or `!`";
    let legal = |name: &str| {
        (1..=15).contains(&name.len())
            && name.chars().all(|c| c.is_ascii_graphic() && !"/!\"'\\".contains(c))
            && !name.starts_with('-')
    };
    items(list)
        .map(|item| {
            let name = item.trim();
            let owned = legal(name).then(|| name.to_owned());
            owned.ok_or_else(|| CaptureError::Value { option, value: item.to_owned(), expected })
        })
        .collect()
}

fn port_range(text: &str) -> Option<PortRange> {
    let Some((first, last)) = text.split_once(':') else {
        return Some(text.parse::<u16>().ok()?.into());
    };
    let bound = |text: &str, open: u16| if text.is_empty() { Some(open) } else { text.parse().ok() };
    let range = PortRange { first: bound(first, 0)?, last: bound(last, u16::MAX)? };
    (range.first <= range.last).then_some(range)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trailing_comma_is_no_item_and_a_blank_is_no_fault_in_a_port() {
        assert_eq!(ports("-d", "80,, 443,").unwrap(), [80.into(), 443.into()]);
    }

    #[test]
    fn ranges_may_be_open_but_not_reversed() {
        assert_eq!(
            ports("-o", ":9,7:").unwrap(),
            [PortRange { first: 0, last: 9 }, PortRange { first: 7, last: u16::MAX }]
        );
        assert!(ports("-o", "9:7").is_err());
    }

    #[test]
    fn a_cidr_needs_its_length_and_bears_no_blank() {
        assert!(cidrs("-i", "10.0.0.1").is_err());
        assert!(cidrs("-i", "10.0.0.0/8, 10.1.0.0/16").is_err());
        assert_eq!(cidrs("-i", "10.1.2.3/8").unwrap()[0].to_string(), "10.1.2.3/8");
    }

    #[test]
    fn the_item_at_fault_is_named() {
        let error = ids("-u", "1337,nobody-here", |_| None).unwrap_err().to_string();
        assert!(error.starts_with("-u: `nobody-here` is not"), "{error}");
    }
}
