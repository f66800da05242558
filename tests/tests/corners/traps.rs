//! What others who intercept at `connect` got wrong, each by a test of what must not happen.

use std::{
    net::{Ipv4Addr, Shutdown, SocketAddr, UdpSocket},
    time::Duration,
};

use interceptor::parity::{
    plan::{Family, Host},
    proxy::OUTBOUND_PORT,
};
use socket2::SockRef;

use crate::{
    client::{connect, line, listen, service, service_in, tcp},
    stage::{Corner, NO_PROXY, ORDINARY},
};

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

/// glibc connects a datagram socket to every address it has found, to see which source address it would have.
#[test]
fn a_datagram_socket_connected_to_sort_addresses_shows_the_true_source() -> anyhow::Result<()> {
    const DNS: &[&str] = &["--redirect-dns", "--capture-all-dns"];
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
