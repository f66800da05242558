//! Wiring of a world: loopbacks, veth links, addresses and routes, by rtnetlink.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use anyhow::{Context as _, bail};
use futures_util::{Stream, StreamExt as _, TryStreamExt as _};
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    RouteNetlinkMessage,
    address::AddressHeaderFlags,
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteScope, RouteType},
};
use rtnetlink::{
    Handle, LinkUnspec, LinkVeth, MulticastGroup, RouteMessageBuilder, new_multicast_connection,
    sys::SocketAddr,
};
use tokio::{runtime, time::timeout};

use super::Namespace;
use crate::parity::plan::Link;

/// How long the kernel may take to make a new address one that it answers to.
const USABLE_WITHIN: Duration = Duration::from_secs(30);

/// Brings a fresh namespace up: loopback, and ports below 1024 for everybody, so that servers need no privilege.
pub(super) fn prepare(namespace: &Namespace) -> anyhow::Result<()> {
    namespace.enter(|| {
        fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0")
            .context("cannot open the low ports to ordinary users")?;
        // Without link-local addresses (IN6_ADDR_GEN_MODE_NONE), which a link gets some time after it is up, the
        // addresses and routes of a world are those of the plan from the start.
        fs::write("/proc/sys/net/ipv6/conf/default/addr_gen_mode", "1")
            .context("cannot keep link-local addresses away")?;
        netlink(async |netlink| netlink.set_up("lo").await)
    })
}

/// Gives a namespace more addresses of its own.
pub(super) fn add_to_loopback(namespace: &Namespace, addresses: &[IpAddr]) -> anyhow::Result<()> {
    let addresses: Vec<_> =
        addresses.iter().map(|address| (*address, if address.is_ipv4() { 32 } else { 128 })).collect();
    namespace.enter(|| netlink(async |netlink| netlink.add_addresses("lo", &addresses).await))
}

/// Joins a pod and the peer by a veth pair, and routes the pod through the peer if `default_route` says so.
pub(super) fn join(
    pod: &Namespace,
    peer: &Namespace,
    link: &Link,
    default_route: bool,
) -> anyhow::Result<()> {
    pod.enter(|| {
        netlink(async |netlink| {
            let links = netlink.handle.link();
            links.add(LinkVeth::new("eth0", &link.peer_name).build()).execute().await?;
            let far = netlink.index(&link.peer_name).await?;
            links.set(LinkUnspec::new_with_index(far).setns_by_fd(peer.raw_fd()).build()).execute().await?;
            netlink.set_up("eth0").await
        })
    })?;
    peer.enter(|| {
        netlink(async |netlink| {
            netlink.set_up(&link.peer_name).await?;
            netlink.add_addresses(&link.peer_name, &link.peer).await
        })
    })?;
    pod.enter(|| {
        netlink(async |netlink| {
            netlink.add_addresses("eth0", &link.pod).await?;
            if default_route {
                for (gateway, _) in link.peer {
                    netlink.handle.route().add(default_via(gateway)).execute().await?;
                }
            }
            Ok(())
        })
    })
}

/// Makes every address local for which there is no other route.
pub(super) fn be_everywhere(namespace: &Namespace) -> anyhow::Result<()> {
    namespace
        .enter(|| {
            netlink(async |netlink| {
                let lo = netlink.index("lo").await?;
                let v4 = RouteMessageBuilder::<Ipv4Addr>::new().output_interface(lo);
                let v6 = RouteMessageBuilder::<Ipv6Addr>::new().output_interface(lo);
                let v4 = v4.kind(RouteType::Local).scope(RouteScope::Host).build();
                let v6 = v6.kind(RouteType::Local).build();
                for route in [v4, v6] {
                    netlink.handle.route().add(route).execute().await?;
                }
                Ok(())
            })
        })
        .context("cannot make every address local")
}

/// A netlink connection of the calling thread's namespace.
struct Netlink {
    handle: Handle,
    /// What the kernel tells of IPv6 routes from now on.
    changes: Box<dyn Stream<Item = (NetlinkMessage<RouteNetlinkMessage>, SocketAddr)> + Unpin>,
}

impl Netlink {
    async fn set_up(&self, link: &str) -> anyhow::Result<()> {
        let link = LinkUnspec::new_with_index(self.index(link).await?).up().build();
        Ok(self.handle.link().set(link).execute().await?)
    }

    async fn index(&self, name: &str) -> anyhow::Result<u32> {
        let mut links = self.handle.link().get().match_name(name.to_owned()).execute();
        let link = links.try_next().await?.with_context(|| format!("there is no link {name}"))?;
        Ok(link.header.index)
    }

    /// Adds addresses to a link that is up, and returns when they can be used.
    async fn add_addresses(&mut self, link: &str, addresses: &[(IpAddr, u8)]) -> anyhow::Result<()> {
        let link = self.index(link).await?;
        for (address, prefix) in addresses {
            let mut request = self.handle.address().add(link, *address, *prefix);
            if address.is_ipv6() {
                // Nobody else can have it, so duplicates need not be looked for.
                request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
            }
            request.execute().await.with_context(|| format!("cannot add the address {address}/{prefix}"))?;
            if let IpAddr::V6(address) = address {
                let local = self.local_route(*address);
                timeout(USABLE_WITHIN, local)
                    .await
                    .with_context(|| format!("{address} does not come up"))??;
            }
        }
        Ok(())
    }

    /// Waits for an address's route: the kernel adds it on a queue of its own, after the address.
    async fn local_route(&mut self, address: Ipv6Addr) -> anyhow::Result<()> {
        let destination = RouteAttribute::Destination(RouteAddress::Inet6(address));
        while let Some((message, _)) = self.changes.next().await {
            if let NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRoute(route)) = message.payload
                && route.header.kind == RouteType::Local
                && route.attributes.contains(&destination)
            {
                return Ok(());
            }
        }
        bail!("the netlink connection ended")
    }
}

fn default_via(gateway: IpAddr) -> RouteMessage {
    match gateway {
        IpAddr::V4(gateway) => RouteMessageBuilder::<Ipv4Addr>::new().gateway(gateway).build(),
        IpAddr::V6(gateway) => RouteMessageBuilder::<Ipv6Addr>::new().gateway(gateway).build(),
    }
}

/// Runs `work` with a netlink connection of the calling thread's namespace.
fn netlink<T>(work: impl AsyncFnOnce(&mut Netlink) -> anyhow::Result<T>) -> anyhow::Result<T> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (connection, handle, changes) =
            new_multicast_connection(&[MulticastGroup::Ipv6Route]).context("cannot open a netlink socket")?;
        let connection = tokio::spawn(connection);
        let outcome = work(&mut Netlink { handle, changes: Box::new(changes) }).await;
        connection.abort();
        outcome
    })
}
