//! What IPv6 lacks on `lo` that all of 127.0.0.0/8 gives IPv4: the prefix that redirected connections are spread over,
//! and `::6`, the source address of what the proxy hands on to the application.

use std::net::Ipv6Addr;

use futures_util::TryStreamExt as _;
use interceptor_ebpf::abi::{Address, SPREAD_V6};
use netlink_packet_route::{
    address::AddressHeaderFlags,
    route::{RouteMessage, RouteScope, RouteType},
};
use nix::libc;
use rtnetlink::{Handle, RouteMessageBuilder};

use super::{RoutesError, with_netlink};

/// Index of `lo` in every namespace (net/core/dev.c keeps it at 1).
pub(super) const LOOPBACK_INTERFACE: u32 = 1;
/// `RT_TABLE_LOCAL` of linux/rtnetlink.h.
const LOCAL_TABLE: u32 = 255;

/// Makes both local to the calling thread's namespace. Returns false where IPv6 is switched off.
pub fn add_local_ipv6() -> Result<bool, RoutesError> {
    with_netlink(|handle| async move {
        let passthrough = Ipv6Addr::from(Address::PASSTHROUGH_V6).into();
        let mut address = handle.address().add(LOOPBACK_INTERFACE, passthrough, 128).replace();
        // Nobody else can have it on `lo`, and until the kernel has made sure of that, the proxy could not bind to it.
        address.message_mut().header.flags |= AddressHeaderFlags::Nodad;
        let address = address.execute().await;
        let [passthrough, spread] = local_routes();
        // The kernel adds an address's own route some time later. The mirror must not be read before: a connection
        // from an address it does not know as local would be taken for one from outside, and sent to the proxy again.
        let passthrough = handle.route().add(passthrough).replace().execute().await;
        let spread = handle.route().add(spread).replace().execute().await;
        for result in [address, passthrough, spread] {
            match result {
                Ok(()) => {}
                Err(rtnetlink::Error::NetlinkError(error)) if is_ipv6_off(error.raw_code()) => {
                    return Ok(false);
                }
                Err(source) => return Err(RoutesError::Request { what: "make addresses local", source }),
            }
        }
        Ok(true)
    })
}

/// Takes both out of the calling thread's namespace again; does nothing where they are not.
pub fn remove_local_ipv6() -> Result<(), RoutesError> {
    with_netlink(|handle| async move {
        remove_passthrough(&handle).await?;
        for route in local_routes() {
            forgive_missing(handle.route().del(route).execute().await)?;
        }
        Ok(())
    })
}

async fn remove_passthrough(handle: &Handle) -> Result<(), RoutesError> {
    let passthrough = Ipv6Addr::from(Address::PASSTHROUGH_V6).into();
    let found =
        handle.address().get().set_link_index_filter(LOOPBACK_INTERFACE).set_address_filter(passthrough);
    let found: Vec<_> = found
        .execute()
        .try_collect()
        .await
        .map_err(|source| RoutesError::Request { what: "read the addresses", source })?;
    for message in found {
        forgive_missing(handle.address().del(message).execute().await)?;
    }
    Ok(())
}

fn forgive_missing(result: Result<(), rtnetlink::Error>) -> Result<(), RoutesError> {
    match result {
        Err(rtnetlink::Error::NetlinkError(error))
            if [-libc::ESRCH, -libc::EADDRNOTAVAIL].contains(&error.raw_code())
                || is_ipv6_off(error.raw_code()) =>
        {
            Ok(())
        }
        result => result.map_err(|source| RoutesError::Request { what: "take local addresses out", source }),
    }
}

/// The routes that make `::6` and the spread prefix local.
fn local_routes() -> [RouteMessage; 2] {
    let [a, b] = SPREAD_V6;
    [(Address::PASSTHROUGH_V6, 128), (Address::from_v6([a, b, 0, 0]), 64)].map(|(network, length)| {
        RouteMessageBuilder::<Ipv6Addr>::new()
            .destination_prefix(network.into(), length)
            .output_interface(LOOPBACK_INTERFACE)
            .table_id(LOCAL_TABLE)
            .kind(RouteType::Local)
            .scope(RouteScope::Host)
            .build()
    })
}

/// What the kernel answers about IPv6 where it is disabled on `lo`, not compiled in, or not loaded.
fn is_ipv6_off(code: i32) -> bool {
    [libc::EACCES, libc::EOPNOTSUPP, libc::EAFNOSUPPORT, libc::ENODEV, libc::EINVAL].contains(&-code)
}
