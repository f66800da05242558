//! Multipath TCP (RFC 8684): clients that ask for it, and proxies that listen for it, as Go's do.

use std::{io, net::SocketAddr};

use interceptor::parity::{plan::Family, proxy::OUTBOUND_PORT};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    account::Account,
    client::{connect, patient, service, service_in, tcp},
    stage::{Corner, NO_PROXY, ORDINARY},
};

#[test]
fn a_client_that_asks_for_many_paths() -> anyhow::Result<()> {
    Corner {
        differs: &[
            ("V4.peer", "service1 80", "spread 15001"),
            ("V4.original_v4", "service1 80", "ENOENT"),
            ("V6.peer", "service1 80", "spread 15001"),
            ("V6.original_v6", "service1 80", "ENOENT"),
        ],
        ..ORDINARY
    }
    .holds(|account| {
        for family in [Family::V4, Family::V6] {
            let to = service_in(family, 1, 80);
            let Some(socket) = many_paths(account, Domain::for_address(to))? else { return Ok(()) };
            connect(account, &format!("{family:?}"), &socket, to);
        }
        Ok(())
    })
}

#[test]
fn a_proxy_that_listens_for_many_paths_is_not_reached() -> anyhow::Result<()> {
    Corner {
        counted: Some("error-listener-not-kept"),
        differs: &[("connect", "ok", "ECONNREFUSED")],
        ..NO_PROXY
    }
    .holds(|account| {
        let Some(proxy) = many_paths(account, Domain::IPV4)? else { return Ok(()) };
        proxy.set_reuse_address(true)?;
        proxy.bind(&SocketAddr::from(([0, 0, 0, 0], OUTBOUND_PORT)).into())?;
        proxy.listen(16)?;
        let client = tcp(service(1, 80))?;
        account.outcome("connect", &client.connect(&service(1, 80).into()));
        Ok(())
    })
}

/// A socket for MPTCP; none, and why, where the kernel has no such thing.
fn many_paths(account: &mut Account, domain: Domain) -> io::Result<Option<Socket>> {
    match Socket::new(domain, Type::STREAM, Some(Protocol::MPTCP)) {
        Ok(socket) => patient(socket).map(Some),
        Err(error) => {
            account.skipped = Some(format!("the kernel has no MPTCP: {error}"));
            Ok(None)
        }
    }
}
