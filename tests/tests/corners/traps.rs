//! What others who intercept at `connect` got wrong, each by a test of what must not happen.

use std::{
    io,
    net::{Ipv4Addr, Shutdown, SocketAddr, UdpSocket},
    time::Duration,
};

use interceptor::parity::{
    plan::{Family, Host},
    proxy::{self, OUTBOUND_PORT},
};
use nix::unistd::setfsuid;
use socket2::SockRef;

use crate::{
    client::{connect, line, listen, service, service_in, tcp},
    stage::{Corner, NO_PROXY, ORDINARY},
};

const DNS: &[&str] = &["--redirect-dns", "--capture-all-dns"];

#[test]
fn no_address_is_not_taken_for_a_remote_one() -> anyhow::Result<()> {
    ORDINARY.holds(|account| {
        for family in [Family::V4, Family::V6] {
            let to = SocketAddr::new(family.unspecified(), 8080);
            connect(account, &format!("{family:?}"), &tcp(to)?, to);
        }
        Ok(())
    })
}

#[test]
fn a_direct_call_of_the_proxy_gets_no_destination_of_an_earlier_connection() -> anyhow::Result<()> {
    const PORT: u16 = 20_002;
    NO_PROXY.holds(|account| {
        let [proxy, _] = listen(OUTBOUND_PORT)?;
        let own = SocketAddr::new(Host::Pod.address(Family::V4), PORT);
        let itself = SocketAddr::from((Ipv4Addr::LOCALHOST, OUTBOUND_PORT));
        for (name, to) in [("redirected", service(1, 80)), ("direct", itself)] {
            let client = tcp(to)?;
            client.set_reuse_address(true)?;
            client.bind(&own.into())?;
            account.outcome(&format!("{name}.connect"), &client.connect(&to.into()));
            let (accepted, _) = proxy.accept()?;
            let original = SockRef::from(&accepted).original_dst_v4()?.as_socket();
            account.note(&format!("{name}.original"), format!("{original:?}"));
            // Closed by a reset, which leaves nothing of the connection behind.
            client.set_linger(Some(Duration::ZERO))?;
        }
        Ok(())
    })
}

#[test]
fn a_proxy_may_ask_twice_and_late() -> anyhow::Result<()> {
    NO_PROXY.holds(|account| {
        let [proxy, _] = listen(OUTBOUND_PORT)?;
        let client = tcp(service(1, 80))?;
        client.connect(&service(1, 80).into())?;
        let (accepted, _) = proxy.accept()?;
        account.names("at once", &accepted);
        account.names("again", &accepted);
        client.shutdown(Shutdown::Both)?;
        drop(client);
        account.note("end", format!("{:?}", line(&mut &accepted)?));
        account.names("after the end", &accepted);
        Ok(())
    })
}

#[test]
fn a_connected_datagram_socket_is_not_stuck_when_the_resolver_comes_again() -> anyhow::Result<()> {
    Corner { flags: DNS, differs: &[("without a resolver", "EAGAIN", "ECONNREFUSED")], ..NO_PROXY }.holds(
        |account| {
            // Istio's rules take only the proxy's answers for answers, and know them by who made the socket.
            let resolver = || {
                let own = setfsuid(proxy::OWNER.uid.into());
                let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 15053));
                setfsuid(own);
                socket
            };
            let client = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            client.connect(service(1, 53))?;
            let ask = |resolver: Option<&UdpSocket>| -> io::Result<Vec<u8>> {
                // Without a resolver iptables keeps the kernel's refusal from the client, which then waits in vain.
                let patience = if resolver.is_some() { 10_000 } else { 500 };
                client.set_read_timeout(Some(Duration::from_millis(patience)))?;
                client.send(b"?")?;
                if let Some(resolver) = resolver {
                    let mut query = [0; 16];
                    let (length, from) = resolver.recv_from(&mut query)?;
                    resolver.send_to(&query[..length], from)?;
                }
                let mut answer = [0; 16];
                let length = client.recv(&mut answer)?;
                Ok(answer[..length].to_vec())
            };
            account.outcome("at first", &ask(Some(&resolver()?)));
            account.outcome("without a resolver", &ask(None));
            account.outcome("with another", &ask(Some(&resolver()?)));
            let peer = account.address(client.peer_addr());
            account.note("peer", peer);
            Ok(())
        },
    )
}

/// glibc connects a datagram socket to every address it has found, to see which source address it would have.
#[test]
fn a_datagram_socket_connected_to_sort_addresses_shows_the_true_source() -> anyhow::Result<()> {
    Corner { flags: DNS, ..ORDINARY }.holds(|account| {
        for family in [Family::V4, Family::V6] {
            for port in [0, 53, 80] {
                let socket = UdpSocket::bind((family.unspecified(), 0))?;
                let to = service_in(family, 1, port);
                account.outcome(&format!("{family:?} {port}.connect"), &socket.connect(to));
                let local = SockRef::from(&socket).local_addr()?.as_socket();
                account.note(
                    &format!("{family:?} {port}.local"),
                    format!("{:?}", local.map(|local| local.ip())),
                );
            }
        }
        Ok(())
    })
}
