//! Proxies that do not listen yet, no longer, again, elsewhere, or in two processes at once.

use std::{
    io::{self, BufRead as _, BufReader, Write as _},
    net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    process::Stdio,
};

use anyhow::Context as _;
use interceptor::parity::{
    plan::{Family, Host, Place},
    proxy::OUTBOUND_PORT,
};
use interceptor_tests::inside;
use socket2::{Domain, SockRef, Socket, Type};

use crate::{
    account::Account,
    client::{FAMILIES, connect, line, listener, rest, service, service_in, tcp},
    stage::{Corner, Listening, NO_PROXY, ORDINARY},
};

/// The proxy of an old release hands over to the new one under this many connections.
const CONNECTIONS: usize = 40;

#[test]
fn a_proxy_that_comes_and_goes_and_comes_again() -> anyhow::Result<()> {
    NO_PROXY.holds(|account| {
        for family in [Family::V4, Family::V6] {
            let to = service_in(family, 1, 80);
            let domain = Domain::for_address(to);
            let refused = |account: &mut Account, when: &str| -> anyhow::Result<()> {
                connect(account, &format!("{family:?} {when}"), &tcp(to)?, to);
                Ok(())
            };
            refused(account, "not yet")?;
            let proxy = listener(OUTBOUND_PORT, domain, false)?.into();
            let first = accepted(account, &format!("{family:?} first"), &tcp(to)?, family, &proxy)?;
            drop(proxy);
            refused(account, "no longer")?;
            let proxy = listener(OUTBOUND_PORT, domain, false)?.into();
            let _second = accepted(account, &format!("{family:?} again"), &tcp(to)?, family, &proxy)?;
            // What the first proxy accepted outlives its listener.
            account.names(&format!("{family:?} first, later"), &first);
        }
        Ok(())
    })
}

#[test]
fn a_proxy_older_than_the_interception() -> anyhow::Result<()> {
    Corner { proxy_is_first: true, ..ORDINARY }.holds(|account| {
        for family in FAMILIES {
            let to = service_in(family, 1, 80);
            connect(account, &format!("{family:?}"), &tcp(to)?, to);
        }
        Ok(())
    })
}

#[test]
fn a_proxy_older_than_the_interception_is_reached_from_outside() -> anyhow::Result<()> {
    Corner { proxy_is_first: true, place: Place::Peer, ..ORDINARY }.holds(to_the_application)
}

#[test]
fn a_proxy_on_loopback_alone_is_reached_from_inside() -> anyhow::Result<()> {
    Corner { proxy: Listening::OnLoopback, ..ORDINARY }.holds(|account| {
        for family in FAMILIES {
            let to = service_in(family, 1, 80);
            connect(account, &format!("{family:?}"), &tcp(to)?, to);
        }
        Ok(())
    })
}

#[test]
fn a_proxy_on_loopback_alone_is_not_reached_from_outside() -> anyhow::Result<()> {
    Corner { proxy: Listening::OnLoopback, place: Place::Peer, ..ORDINARY }.holds(to_the_application)
}

#[test]
fn one_listener_for_both_families() -> anyhow::Result<()> {
    NO_PROXY.holds(|account| {
        let proxy = both_families(OUTBOUND_PORT)?;
        for family in FAMILIES {
            let to = service_in(family, 1, 80);
            accepted(account, &format!("{family:?}"), &tcp(to)?, family, &proxy)?;
        }
        Ok(())
    })
}

#[test]
fn no_connection_is_lost_when_one_process_hands_over_to_another() -> anyhow::Result<()> {
    NO_PROXY.holds(|account| {
        if inside::part().is_some() {
            return answer_for_ever(&listener(OUTBOUND_PORT, Domain::IPV4, true)?.into());
        }
        let old = TcpListener::from(listener(OUTBOUND_PORT, Domain::IPV4, true)?);
        let mut new = inside::beside("new")?.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let said = BufReader::new(new.stdout.take().context("standard output is a pipe")?);
        said.lines().map_while(Result::ok).find(|line| line.contains("listening")).context("no listener")?;

        let answers = ask_through(&old)?;
        account.note("while both listen", answers.len());
        account.note("of their answers, right", right(&answers));
        drop(old);
        let answers: Vec<String> = (0..CONNECTIONS).map(|_| asked()).collect::<io::Result<_>>()?;
        account.note("when only the new one listens", answers.len());
        account.note("of its answers, right", right(&answers));
        new.kill()?;
        new.wait()?;
        Ok(())
    })
}

/// Many connections to two listeners: those that the calling process has accepted are answered here.
fn ask_through(old: &TcpListener) -> anyhow::Result<Vec<String>> {
    let clients = (0..CONNECTIONS).map(|_| connected()).collect::<io::Result<Vec<TcpStream>>>()?;
    old.set_nonblocking(true)?;
    while let Ok((accepted, _)) = old.accept() {
        answer(&accepted)?;
    }
    Ok(clients.iter().map(rest).collect::<io::Result<_>>()?)
}

fn connected() -> io::Result<TcpStream> {
    let socket = tcp(service(1, 80))?;
    socket.connect(&service(1, 80).into())?;
    Ok(socket.into())
}

fn asked() -> io::Result<String> {
    rest(&connected()?)
}

fn right(answers: &[String]) -> usize {
    answers.iter().filter(|answer| **answer == service(1, 80).to_string()).count()
}

/// Answers with the original destination.
fn answer(mut accepted: &TcpStream) -> io::Result<()> {
    let original = SockRef::from(accepted).original_dst_v4()?.as_socket();
    accepted.write_all(original.map_or_else(String::new, |original| original.to_string()).as_bytes())
}

fn answer_for_ever(listener: &TcpListener) -> anyhow::Result<()> {
    io::stdout().write_all(b"listening\n")?;
    loop {
        match listener.accept() {
            Ok((accepted, _)) => answer(&accepted)?,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Connects through a proxy, and notes what both ends see; returns the proxy's.
fn accepted(
    account: &mut Account,
    name: &str,
    client: &Socket,
    family: Family,
    proxy: &TcpListener,
) -> anyhow::Result<TcpStream> {
    account.outcome(&format!("{name}.connect"), &client.connect(&service_in(family, 1, 80).into()));
    account.names(name, client);
    let (mut stream, from) = proxy.accept()?;
    let from = account.address(Ok(from));
    account.note(&format!("{name}, proxy.from"), from);
    account.names(&format!("{name}, proxy"), &stream);
    stream.write_all(b"hello\n")?;
    account.note(&format!("{name}.hears"), line(&mut &*client)?);
    Ok(stream)
}

/// From outside, to a port that is intercepted, and to one that is not.
fn to_the_application(account: &mut Account) -> anyhow::Result<()> {
    for family in [Family::V4, Family::V6] {
        for port in [8080, 15020] {
            let to = (Host::Pod.address(family), port).into();
            connect(account, &format!("{family:?} {port}"), &tcp(to)?, to);
        }
    }
    Ok(())
}

fn both_families(port: u16) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, None)?;
    socket.set_only_v6(false)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into())?;
    socket.listen(16)?;
    Ok(socket.into())
}
