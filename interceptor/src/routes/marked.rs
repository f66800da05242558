//! The way back of connections the proxy makes with its client's address (TPROXY): packets with the mark are local.
//!
//! The application answers to an address of another host. conntrack's CONNMARK gives those answers the mark in Istio's
//! rules; here the socket itself has it from the packet that made it (`tcp_fwmark_accept`, `inet_request_mark` of
//! `include/net/inet_sock.h`), and an answer that belongs to no socket from the packet it answers (`fwmark_reflect`).

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use futures_util::TryStreamExt as _;
use netlink_packet_route::{
    route::{RouteMessage, RouteScope, RouteType},
    rule::{RuleAction, RuleMessage},
};
use nix::libc;
use rtnetlink::{Handle, IpVersion, RouteMessageBuilder};

use super::{
    RoutesError,
    local::LOOPBACK_INTERFACE,
    rules::{mark, table},
    with_netlink,
};

/// Switches of a namespace that give answers the mark of what they answer. Each is a bit of what [`add_marked`] says.
const SWITCHES: [&str; 3] = [
    "/proc/sys/net/ipv4/tcp_fwmark_accept",
    "/proc/sys/net/ipv4/fwmark_reflect",
    "/proc/sys/net/ipv6/fwmark_reflect",
];

/// Makes every destination local to packets with the mark, by a routing rule and a table, and gives answers the mark
/// of what they answer. Does nothing where it is so already. Returns the switches that were off, as bits.
pub fn add_marked(mark: u32, table: u32, ipv6: bool) -> Result<u32, RoutesError> {
    with_netlink(|handle| async move {
        for version in versions(ipv6) {
            if !rules(&handle, version.clone(), mark).await?.iter().any(|rule| self::table(rule) == table) {
                add_rule(&handle, version.clone(), mark, table).await?;
            }
            let route = handle.route().add(route(&version, table)).replace().execute().await;
            route.map_err(|source| RoutesError::Request { what: "add TPROXY's route", source })?;
        }
        Ok(())
    })?;
    let mut switched_on = 0;
    for (bit, switch) in switches(ipv6) {
        let before = fs::read_to_string(switch).map_err(failed(switch))?;
        if before.trim() == "0" {
            fs::write(switch, "1").map_err(failed(switch))?;
            switched_on |= bit;
        }
    }
    Ok(switched_on)
}

/// Removes the rule and the route again, and switches off what is in `switched_on`. Does nothing where they are not.
pub fn remove_marked(mark: u32, table: u32, switched_on: u32) -> Result<(), RoutesError> {
    with_netlink(|handle| async move {
        for version in versions(true) {
            for rule in rules(&handle, version.clone(), mark).await? {
                if self::table(&rule) == table {
                    forgive_missing(handle.rule().del(rule).execute().await)?;
                }
            }
            forgive_missing(handle.route().del(route(&version, table)).execute().await)?;
        }
        Ok(())
    })?;
    for (_, switch) in switches(true).filter(|(bit, _)| switched_on & bit != 0) {
        fs::write(switch, "0").map_err(failed(switch))?;
    }
    Ok(())
}

fn versions(ipv6: bool) -> impl Iterator<Item = IpVersion> {
    [IpVersion::V4, IpVersion::V6].into_iter().take(if ipv6 { 2 } else { 1 })
}

fn switches(ipv6: bool) -> impl Iterator<Item = (u32, &'static str)> {
    [1, 2, 4].into_iter().zip(SWITCHES).take(if ipv6 { 3 } else { 2 })
}

fn failed(path: &'static str) -> impl FnOnce(io::Error) -> RoutesError {
    move |source| RoutesError::Switch { path, source }
}

/// The rules for a mark.
async fn rules(handle: &Handle, version: IpVersion, mark: u32) -> Result<Vec<RuleMessage>, RoutesError> {
    let rules: Result<Vec<RuleMessage>, _> = handle.rule().get(version).execute().try_collect().await;
    match rules {
        Ok(rules) => Ok(rules.into_iter().filter(|rule| self::mark(rule) == Some(mark)).collect()),
        Err(rtnetlink::Error::NetlinkError(error)) if is_absent(error.raw_code()) => Ok(Vec::new()),
        Err(source) => Err(RoutesError::Request { what: "read the routing rules", source }),
    }
}

async fn add_rule(handle: &Handle, version: IpVersion, mark: u32, table: u32) -> Result<(), RoutesError> {
    let request = handle.rule().add().fw_mark(mark).table_id(table).action(RuleAction::ToTable);
    let added = match version {
        IpVersion::V4 => request.v4().execute().await,
        IpVersion::V6 => request.v6().execute().await,
    };
    added.map_err(|source| RoutesError::Request { what: "add TPROXY's routing rule", source })
}

/// `local default dev lo table T`.
fn route(version: &IpVersion, table: u32) -> RouteMessage {
    let any: IpAddr = match version {
        IpVersion::V4 => Ipv4Addr::UNSPECIFIED.into(),
        IpVersion::V6 => Ipv6Addr::UNSPECIFIED.into(),
    };
    let route = RouteMessageBuilder::<IpAddr>::new().destination_prefix(any, 0);
    let route = route.map(|route| route.output_interface(LOOPBACK_INTERFACE).table_id(table));
    let route = route.unwrap_or_default().kind(RouteType::Local).scope(RouteScope::Host);
    route.build()
}

fn forgive_missing(result: Result<(), rtnetlink::Error>) -> Result<(), RoutesError> {
    match result {
        Err(rtnetlink::Error::NetlinkError(error)) if is_absent(error.raw_code()) => Ok(()),
        result => result.map_err(|source| RoutesError::Request { what: "remove TPROXY's route", source }),
    }
}

/// What the kernel answers about what is not there, IPv6 as a whole included.
fn is_absent(code: i32) -> bool {
    [libc::ESRCH, libc::ENOENT, libc::EOPNOTSUPP, libc::EAFNOSUPPORT, libc::EACCES].contains(&-code)
}
