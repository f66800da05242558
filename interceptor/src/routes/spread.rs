//! The prefix that redirected IPv6 connections are spread over: one `local` route on `lo`.
//!
//! All of 127.0.0.0/8 is local by itself; IPv6 has but one loopback address.

use std::net::Ipv6Addr;

use interceptor_ebpf::abi::SPREAD_V6;
use netlink_packet_route::route::{RouteMessage, RouteScope, RouteType};
use rtnetlink::RouteMessageBuilder;

use super::{RoutesError, with_netlink};

/// Index of `lo` in every namespace (net/core/dev.c keeps it at 1).
const LOOPBACK_INTERFACE: u32 = 1;
/// `RT_TABLE_LOCAL` of linux/rtnetlink.h.
const LOCAL_TABLE: u32 = 255;

/// Makes the prefix local to the calling thread's namespace. Returns false where IPv6 is switched off.
pub fn add_spread_prefix() -> Result<bool, RoutesError> {
    with_netlink(|handle| async move {
        match handle.route().add(route()).replace().execute().await {
            Ok(()) => Ok(true),
            Err(rtnetlink::Error::NetlinkError(error)) if is_ipv6_off(error.raw_code()) => Ok(false),
            Err(source) => Err(RoutesError::Request { what: "make the spread prefix local", source }),
        }
    })
}

/// Takes the prefix out of the calling thread's namespace again; does nothing where it is not.
pub fn remove_spread_prefix() -> Result<(), RoutesError> {
    with_netlink(|handle| async move {
        match handle.route().del(route()).execute().await {
            Ok(()) => Ok(()),
            Err(rtnetlink::Error::NetlinkError(error))
                if error.raw_code() == -nix::libc::ESRCH || is_ipv6_off(error.raw_code()) =>
            {
                Ok(())
            }
            Err(source) => Err(RoutesError::Request { what: "remove the spread prefix", source }),
        }
    })
}

fn route() -> RouteMessage {
    let [a, b] = SPREAD_V6.map(u32::from_be);
    let network = Ipv6Addr::from(u128::from(a) << 96 | u128::from(b) << 64);
    RouteMessageBuilder::<Ipv6Addr>::new()
        .destination_prefix(network, 64)
        .output_interface(LOOPBACK_INTERFACE)
        .table_id(LOCAL_TABLE)
        .kind(RouteType::Local)
        .scope(RouteScope::Host)
        .build()
}

/// What the kernel answers to an IPv6 route where IPv6 is disabled on `lo`, not compiled in, or not loaded.
fn is_ipv6_off(code: i32) -> bool {
    [nix::libc::EACCES, nix::libc::EOPNOTSUPP, nix::libc::EAFNOSUPPORT, nix::libc::ENODEV, nix::libc::EINVAL]
        .contains(&-code)
}
