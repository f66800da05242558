//! One socket that connects more than once.

use std::io;

use rustix::net::connect_unspec;
use socket2::{Domain, Socket, Type};

use crate::{
    client::{FAMILIES, ask, connect, service, service_in, settled, tcp},
    stage::{Corner, NO_PROXY, ORDINARY},
};

#[test]
fn a_connection_that_does_not_block() -> anyhow::Result<()> {
    ORDINARY.holds(|account| {
        for family in FAMILIES {
            let (name, to) = (format!("{family:?}"), service_in(family, 1, 80));
            let socket = tcp(to)?;
            socket.set_nonblocking(true)?;
            account.outcome(&format!("{name}.connect"), &socket.connect(&to.into()));
            account.outcome(&format!("{name}.settled"), &settled(&socket));
            account.outcome(&format!("{name}.connect again"), &socket.connect(&to.into()));
            socket.set_nonblocking(false)?;
            account.names(&name, &socket);
            ask(account, &name, &socket);
        }
        Ok(())
    })
}

#[test]
fn a_refused_socket_connects_elsewhere() -> anyhow::Result<()> {
    ORDINARY.holds(|account| {
        // Nobody listens there, and the proxy does not take it: the capture leaves loopback alone.
        let closed = ([127, 0, 0, 1], 9).into();
        let socket = tcp(closed)?;
        account.outcome("refused", &socket.connect(&closed.into()));
        connect(account, "second", &socket, service(1, 80));
        Ok(())
    })
}

#[test]
fn a_redirected_socket_that_is_refused_connects_elsewhere() -> anyhow::Result<()> {
    Corner {
        differs: &[
            ("to loopback.local", "127.0.0.1 client's port", "pod client's port"),
            ("application[0].from", "127.0.0.1 client's port", "pod client's port"),
            ("application[0].peer", "127.0.0.1 client's port", "pod client's port"),
        ],
        ..NO_PROXY
    }
    .holds(|account| {
        let socket = tcp(service(1, 80))?;
        account.outcome("refused", &socket.connect(&service(1, 80).into()));
        account.names("refused", &socket);
        connect(account, "to loopback", &socket, ([127, 0, 0, 1], 8080).into());
        Ok(())
    })
}

#[test]
fn a_dissolved_connection_is_followed_by_another() -> anyhow::Result<()> {
    ORDINARY.holds(|account| {
        for family in FAMILIES {
            let name = format!("{family:?}");
            let (first, second) = (service_in(family, 1, 80), service_in(family, 2, 81));
            let socket = Socket::new(Domain::for_address(first), Type::STREAM, None)?;
            connect(account, &format!("{name} first"), &socket, first);
            account.outcome(&format!("{name}.dissolve"), &connect_unspec(&socket).map_err(io::Error::from));
            account.names(&format!("{name} dissolved"), &socket);
            connect(account, &format!("{name} second"), &socket, second);
        }
        Ok(())
    })
}
