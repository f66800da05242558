//! Sockets that are bound before they connect.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use interceptor::parity::plan::{Family, Host};
use nix::libc;
use socket2::Socket;

use crate::{
    account::Account,
    client::{connect, service, service_in, set, tcp},
    stage::ORDINARY,
};

/// Ports below those that the kernel chooses, so that they are told as they are.
const OWN_PORT: u16 = 20_001;
/// Time after which nobody answers any more.
const HANGS: Duration = Duration::from_millis(500);

#[test]
fn bound_to_an_address() -> anyhow::Result<()> {
    ORDINARY.holds(|account| {
        for family in [Family::V4, Family::V6] {
            bound(account, family, Host::Pod.address(family), 0, |_| Ok(()))?;
        }
        Ok(())
    })
}

#[test]
fn bound_to_an_address_and_a_port() -> anyhow::Result<()> {
    ORDINARY.holds(|account| {
        for family in [Family::V4, Family::V6] {
            bound(account, family, Host::Pod.address(family), OWN_PORT, |_| Ok(()))?;
        }
        Ok(())
    })
}

#[test]
fn bound_to_any_address_and_a_port() -> anyhow::Result<()> {
    ORDINARY.holds(|account| {
        for family in [Family::V4, Family::V6] {
            // An IPv6 socket on any address has the port in both families.
            let port = if family == Family::V4 { OWN_PORT } else { OWN_PORT + 1 };
            bound(account, family, family.unspecified(), port, |_| Ok(()))?;
        }
        Ok(())
    })
}

#[test]
fn bound_to_an_address_without_a_port() -> anyhow::Result<()> {
    ORDINARY.holds(|account| {
        for family in [Family::V4, Family::V6] {
            bound(account, family, Host::Pod.address(family), 0, |socket| {
                set(socket, libc::SOL_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1)
            })?;
        }
        Ok(())
    })
}

#[test]
fn bound_to_a_device() -> anyhow::Result<()> {
    ORDINARY.holds(|account| {
        // The proxy is at an address that no device but `lo` leads to, and the way through `lo` leads to no service.
        for device in ["eth0", "lo"] {
            let socket = tcp(service(1, 80))?;
            socket.set_write_timeout(Some(HANGS))?;
            socket.bind_device(Some(device.as_bytes()))?;
            connect(account, device, &socket, service(1, 80));
        }
        Ok(())
    })
}

fn bound(
    account: &mut Account,
    family: Family,
    address: IpAddr,
    port: u16,
    prepare: fn(&Socket) -> io::Result<()>,
) -> anyhow::Result<()> {
    let (name, to) = (format!("{family:?}"), service_in(family, 1, 80));
    let socket = tcp(to)?;
    prepare(&socket)?;
    socket.bind(&SocketAddr::new(address, port).into())?;
    account.names(&format!("{name} bound"), &socket);
    connect(account, &name, &socket, to);
    Ok(())
}
