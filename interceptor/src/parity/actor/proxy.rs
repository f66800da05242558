//! A sidecar proxy in small: it asks for the original destination and connects on to it.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream},
    sync::Arc,
    thread,
};

use nix::libc;
use socket2::{SockRef, Type};

use super::{
    protocol::{Outcome, Sighting},
    server::{Log, accept_each, listen},
    socket::{errno, observe, open},
};

/// Istio's proxy connects to the workload from these, so that it is not intercepted again.
const INBOUND_SOURCE: (IpAddr, IpAddr) =
    (IpAddr::V4(Ipv4Addr::new(127, 0, 0, 6)), IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6)));

/// More connections at once than any scenario makes: the proxy's own are coming back to it.
const MOST_OPEN: usize = 64;

/// Listens on all of the addresses, then forwards on threads until the process ends.
pub(super) fn serve(
    outbound: &[SocketAddr],
    inbound: &[SocketAddr],
    mark: Option<u32>,
    log: &Log,
) -> io::Result<()> {
    let open = Arc::new(());
    let own: Arc<[u16]> = outbound.iter().chain(inbound).map(SocketAddr::port).collect();
    for (addresses, is_inbound) in [(outbound, false), (inbound, true)] {
        for address in addresses {
            let (own, log, open) = (Arc::clone(&own), log.clone(), Arc::clone(&open));
            let listening = listen(*address)?;
            if mark.is_some() {
                be_transparent(&SockRef::from(&listening), *address)?;
            }
            let way = move |client| match mark {
                _ if !is_inbound => Way::Outbound,
                Some(mark) => Way::InClientsName { client, mark },
                None => Way::Inbound,
            };
            accept_each(listening, move |listener, from, client| {
                let seen = observe(&client);
                let this = Arc::clone(&open);
                let onward = match seen.original() {
                    // As Istio's listeners do: a destination at the proxy's own port is a black hole, not a loop.
                    Some(original) if own.contains(&original.port()) => Err(libc::ELOOP),
                    Some(_) if Arc::strong_count(&this) > MOST_OPEN => Err(libc::ELOOP),
                    Some(original) => connect_on(original, way(from.ip())),
                    None => Err(libc::EDESTADDRREQ),
                };
                let told = onward
                    .as_ref()
                    .map_err(|error| *error)
                    .and_then(|stream| stream.local_addr().map_err(|error| errno(&error)));
                log.add(Sighting { listener, from, seen: Some(seen), onward: Some(told) });
                onward.map_or_else(|_| hang_up(&client), |server| splice(&client, &server))
            })?;
        }
    }
    Ok(())
}

/// How the proxy connects on.
#[derive(Clone, Copy)]
enum Way {
    Outbound,
    Inbound,
    InClientsName { client: IpAddr, mark: u32 },
}

fn connect_on(to: SocketAddr, way: Way) -> Outcome<TcpStream> {
    let connect = || {
        let socket = open(to, Type::STREAM)?;
        let source = match way {
            Way::Outbound => None,
            Way::Inbound => Some(if to.is_ipv4() { INBOUND_SOURCE.0 } else { INBOUND_SOURCE.1 }),
            Way::InClientsName { client, mark } => {
                be_transparent(&SockRef::from(&socket), to)?;
                socket.set_mark(mark)?;
                Some(client)
            }
        };
        if let Some(source) = source {
            socket.bind(&SocketAddr::new(source, 0).into())?;
        }
        socket.connect(&to.into())?;
        Ok(TcpStream::from(socket))
    };
    connect().map_err(|error: io::Error| errno(&error))
}

/// Lets a socket have addresses of other hosts.
fn be_transparent(socket: &SockRef<'_>, address: SocketAddr) -> io::Result<()> {
    if address.is_ipv4() { socket.set_ip_transparent_v4(true) } else { socket.set_ip_transparent_v6(true) }
}

/// Ends the connection in good order. Closing with bytes unread would send a reset, now and then before the FIN.
fn hang_up(mut client: &TcpStream) -> io::Result<()> {
    client.shutdown(Shutdown::Write)?;
    io::copy(&mut client, &mut io::sink()).map(drop)
}

/// Carries bytes both ways until both ends have finished.
fn splice(client: &TcpStream, server: &TcpStream) -> io::Result<()> {
    thread::scope(|scope| {
        let back = scope.spawn(|| carry(server, client));
        let there = carry(client, server);
        match back.join() {
            Ok(back) => there.and(back),
            Err(_panic) => Err(io::Error::other("carrying bytes back panicked")),
        }
    })
}

fn carry(mut from: &TcpStream, mut to: &TcpStream) -> io::Result<()> {
    let carried = io::copy(&mut from, &mut to);
    // The reader may be gone already, and then there is nobody left to tell.
    let _gone = to.shutdown(Shutdown::Write);
    carried.map(drop)
}
