//! Reading the routes of the calling thread's namespace.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "of netlink's dozens of attributes each function wants one"
)]

use std::{
    collections::{BTreeSet, HashMap},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use futures_util::TryStreamExt as _;
use ipnet::IpNet;
use netlink_packet_route::{
    AddressFamily,
    address::AddressAttribute,
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteType},
};
use rtnetlink::{Handle, RouteMessageBuilder};

use super::{Answer, Route, RoutesError, representative::representative, with_netlink};

/// `rt_table` of linux/rtnetlink.h: the tables the kernel's default rules look in.
const MIRRORED_TABLES: [u32; 3] = [255, 254, 253];

/// Reads the routes of the calling thread's namespace, both families, one for each prefix of the tables `local`,
/// `main` and `default`.
pub fn read() -> Result<Vec<Route>, RoutesError> {
    with_netlink(|handle| async move { collect(&handle).await })
}

async fn collect(handle: &Handle) -> Result<Vec<Route>, RoutesError> {
    let mut prefixes = BTreeSet::new();
    prefixes.extend(dump(handle, RouteMessageBuilder::<Ipv4Addr>::new().build()).await?);
    prefixes.extend(dump(handle, RouteMessageBuilder::<Ipv6Addr>::new().build()).await?);
    let prefixes: Vec<IpNet> = prefixes.into_iter().collect();
    let primaries = primaries(handle).await?;
    let mut routes = Vec::with_capacity(prefixes.len());
    for prefix in &prefixes {
        let Some(address) = representative(prefix, &prefixes) else { continue };
        let answer = ask(handle, address).await?;
        let primary = match (&answer, prefix.prefix_len() == prefix.max_prefix_len()) {
            (Answer::Local { .. }, true) => primaries.get(&address).copied(),
            _ => None,
        };
        routes.push(Route { prefix: *prefix, answer, primary });
    }
    Ok(routes)
}

/// The prefixes of one family's tables.
async fn dump(handle: &Handle, request: RouteMessage) -> Result<Vec<IpNet>, RoutesError> {
    let mut found = Vec::new();
    let mut stream = handle.route().get(request).execute();
    while let Some(route) = next(&mut stream, "read the routes").await? {
        if MIRRORED_TABLES.contains(&table(&route)) {
            found.extend(prefix(&route));
        }
    }
    Ok(found)
}

fn table(route: &RouteMessage) -> u32 {
    let attribute = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    attribute.unwrap_or_else(|| u32::from(route.header.table))
}

fn prefix(route: &RouteMessage) -> Option<IpNet> {
    let network = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(destination) => address(destination),
        _ => None,
    });
    let network = network.or(match route.header.address_family {
        AddressFamily::Inet => Some(Ipv4Addr::UNSPECIFIED.into()),
        AddressFamily::Inet6 => Some(Ipv6Addr::UNSPECIFIED.into()),
        _ => None,
    })?;
    IpNet::new(network, route.header.destination_prefix_length).ok()
}

fn address(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

/// Whether an address is another host's on a link of the calling thread's namespace: no router between.
pub fn is_neighbour(address: IpAddr) -> Result<bool, RoutesError> {
    with_netlink(|handle| async move {
        let through_router = |attribute: &RouteAttribute| {
            matches!(attribute, RouteAttribute::Gateway(_) | RouteAttribute::Via(_))
        };
        let route = lookup(&handle, address).await?;
        Ok(route.is_some_and(|route| {
            route.header.kind == RouteType::Unicast && !route.attributes.iter().any(through_router)
        }))
    })
}

/// Asks the kernel what it does with one address.
async fn ask(handle: &Handle, destination: IpAddr) -> Result<Answer, RoutesError> {
    let Some(reply) = lookup(handle, destination).await? else { return Ok(Answer::Unreachable) };
    let source = reply.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::PrefSource(source) => address(source),
        _ => None,
    });
    let interface = reply.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(interface) => Some(*interface),
        _ => None,
    });
    Ok(match (reply.header.kind, interface) {
        (RouteType::Local, _) => Answer::Local { source },
        (RouteType::Unicast, Some(interface)) => Answer::Forward { interface, source },
        _ => Answer::Unreachable,
    })
}

/// Asks the kernel for the route to one address.
async fn lookup(handle: &Handle, destination: IpAddr) -> Result<Option<RouteMessage>, RoutesError> {
    let request = match destination {
        IpAddr::V4(address) => RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(address, 32).build(),
        IpAddr::V6(address) => {
            RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(address, 128).build()
        }
    };
    match handle.route().get(request).execute().try_next().await {
        Ok(reply) => Ok(reply),
        // The kernel refuses in its own way for each kind of unreachable destination.
        Err(rtnetlink::Error::NetlinkError(_)) => Ok(None),
        Err(source) => Err(RoutesError::Request { what: "ask for a route", source }),
    }
}

/// For each address of the namespace, the address REDIRECT would use for packets to it: its interface's first one,
/// for IPv6 the first of the same scope (`net/netfilter/nf_nat_redirect.c`).
async fn primaries(handle: &Handle) -> Result<HashMap<IpAddr, IpAddr>, RoutesError> {
    let mut first = HashMap::new();
    let mut primaries = HashMap::new();
    let mut stream = handle.address().get().execute();
    while let Some(message) = next(&mut stream, "read the addresses").await? {
        // IFA_LOCAL is the interface's own address; on a point-to-point link IFA_ADDRESS is the other end's.
        let own = message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Local(address) => Some(*address),
            _ => None,
        });
        let own = own.or_else(|| {
            message.attributes.iter().find_map(|attribute| match attribute {
                AddressAttribute::Address(address) => Some(*address),
                _ => None,
            })
        });
        let Some(own) = own else { continue };
        let scope = if own.is_ipv4() { 0 } else { u8::from(message.header.scope) };
        let group = (message.header.index, own.is_ipv4(), scope);
        primaries.insert(own, *first.entry(group).or_insert(own));
    }
    Ok(primaries)
}

async fn next<T>(
    stream: &mut (impl futures_util::Stream<Item = Result<T, rtnetlink::Error>> + Unpin),
    what: &'static str,
) -> Result<Option<T>, RoutesError> {
    match stream.try_next().await {
        Ok(item) => Ok(item),
        // A family the kernel was built or booted without has nothing to list.
        Err(rtnetlink::Error::NetlinkError(error)) if error.raw_code() == -nix::libc::EOPNOTSUPP => Ok(None),
        Err(source) => Err(RoutesError::Request { what, source }),
    }
}
