//! Wiring of a world: loopbacks, veth links, addresses and routes, by rtnetlink.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use anyhow::Context as _;
use futures_util::TryStreamExt as _;
use netlink_packet_route::{address::AddressHeaderFlags, route::RouteMessage};
use rtnetlink::{Handle, LinkUnspec, LinkVeth, RouteMessageBuilder, new_connection};
use tokio::runtime;

use super::Namespace;
use crate::parity::plan::{Family, Host, Link, SERVICES};

/// Brings a fresh namespace up: loopback, and ports below 1024 for everybody, so that servers need no privilege.
pub(super) fn prepare(namespace: &Namespace) -> anyhow::Result<()> {
    namespace.enter(|| {
        fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0")
            .context("cannot open the low ports to ordinary users")?;
        // Without link-local addresses (IN6_ADDR_GEN_MODE_NONE), which a link gets some time after it is up, the
        // addresses and routes of a world are those of the plan from the start.
        fs::write("/proc/sys/net/ipv6/conf/default/addr_gen_mode", "1")
            .context("cannot keep link-local addresses away")?;
        netlink(async |handle| {
            let lo = index(&handle, "lo").await?;
            set_up(&handle, lo).await
        })
    })
}

/// Gives the peer the addresses of the remote services.
pub(super) fn add_services(peer: &Namespace) -> anyhow::Result<()> {
    peer.enter(|| {
        netlink(async |handle| {
            let lo = index(&handle, "lo").await?;
            for n in 1..=SERVICES {
                for family in [Family::V4, Family::V6] {
                    let address = Host::Service(n).address(family);
                    add_address(&handle, lo, address, if address.is_ipv4() { 32 } else { 128 }).await?;
                }
            }
            Ok(())
        })
    })
}

/// Joins a pod and the peer by a veth pair, and routes the pod through the peer if `default_route` says so.
pub(super) fn join(
    pod: &Namespace,
    peer: &Namespace,
    link: &Link,
    default_route: bool,
) -> anyhow::Result<()> {
    pod.enter(|| {
        netlink(async |handle| {
            handle.link().add(LinkVeth::new("eth0", link.peer_name).build()).execute().await?;
            let far = index(&handle, link.peer_name).await?;
            let moved = LinkUnspec::new_with_index(far).setns_by_fd(peer.raw_fd()).build();
            handle.link().set(moved).execute().await?;
            Ok(())
        })
    })?;
    peer.enter(|| netlink(async |handle| bring_up(&handle, link.peer_name, &link.peer).await))?;
    pod.enter(|| {
        netlink(async |handle| {
            bring_up(&handle, "eth0", &link.pod).await?;
            if default_route {
                for (gateway, _) in link.peer {
                    handle.route().add(default_via(gateway)).execute().await?;
                }
            }
            Ok(())
        })
    })
}

async fn bring_up(handle: &Handle, name: &str, addresses: &[(IpAddr, u8)]) -> anyhow::Result<()> {
    let link = index(handle, name).await?;
    for (address, prefix) in addresses {
        add_address(handle, link, *address, *prefix).await?;
    }
    set_up(handle, link).await
}

async fn add_address(handle: &Handle, link: u32, address: IpAddr, prefix: u8) -> anyhow::Result<()> {
    let mut request = handle.address().add(link, address, prefix);
    if address.is_ipv6() {
        // Without duplicate detection the address is usable at once.
        request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
    }
    request.execute().await.with_context(|| format!("cannot add the address {address}/{prefix}"))
}

async fn set_up(handle: &Handle, link: u32) -> anyhow::Result<()> {
    handle.link().set(LinkUnspec::new_with_index(link).up().build()).execute().await?;
    Ok(())
}

async fn index(handle: &Handle, name: &str) -> anyhow::Result<u32> {
    let mut links = handle.link().get().match_name(name.to_owned()).execute();
    let link = links.try_next().await?.with_context(|| format!("there is no link {name}"))?;
    Ok(link.header.index)
}

fn default_via(gateway: IpAddr) -> RouteMessage {
    match gateway {
        IpAddr::V4(gateway) => RouteMessageBuilder::<Ipv4Addr>::new().gateway(gateway).build(),
        IpAddr::V6(gateway) => RouteMessageBuilder::<Ipv6Addr>::new().gateway(gateway).build(),
    }
}

/// Runs `work` with a netlink connection of the calling thread's namespace.
fn netlink<T>(work: impl AsyncFnOnce(Handle) -> anyhow::Result<T>) -> anyhow::Result<T> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (connection, handle, _) = new_connection().context("cannot open a netlink socket")?;
        let connection = tokio::spawn(connection);
        let outcome = work(handle).await;
        connection.abort();
        outcome
    })
}
