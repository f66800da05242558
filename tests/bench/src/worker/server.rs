//! The accepting end: the proxy, as far as interception concerns it.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    os::fd::{AsRawFd as _, OwnedFd},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use anyhow::Context as _;
use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, getsockopt,
    listen, recv, setsockopt, socket, sockopt,
};

use super::{
    clock::cpu_time,
    protocol::Served,
    socket::{KEEP, SINK, send_all},
};

/// What all threads did, and the connections they keep.
#[derive(Clone, Default)]
pub(super) struct Server(Arc<Shared>);

#[derive(Default)]
struct Shared {
    accepted: AtomicU64,
    redirected: AtomicU64,
    kept: Mutex<Vec<OwnedFd>>,
}

impl Server {
    /// Listens, and answers with this many threads until the process ends.
    pub(super) fn serve(&self, address: SocketAddr, threads: usize) -> anyhow::Result<()> {
        let listener = listener(address).with_context(|| format!("cannot listen on {address}"))?;
        let listener = Arc::new(listener);
        for _ in 0..threads {
            let (server, listener) = (self.clone(), Arc::clone(&listener));
            thread::spawn(move || {
                let mut buffer = vec![0; 64 << 10];
                loop {
                    // A connection that breaks is its client's to report.
                    let _broken = server.answer(&listener, address.is_ipv4(), &mut buffer);
                }
            });
        }
        Ok(())
    }

    /// What was done so far.
    pub(super) fn served(&self) -> nix::Result<Served> {
        Ok(Served {
            accepted: self.0.accepted.load(Ordering::Relaxed),
            redirected: self.0.redirected.load(Ordering::Relaxed),
            cpu_nanoseconds: cpu_time()?,
        })
    }

    /// One connection, from accept to close: who is it from, where did it want to go, what does it say.
    fn answer(&self, listener: &TcpListener, is_v4: bool, buffer: &mut [u8]) -> io::Result<()> {
        // Like every proxy it asks for the peer's address at once.
        let (connection, _peer) = listener.accept()?;
        let connection = OwnedFd::from(connection);
        let redirected = if is_v4 {
            getsockopt(&connection, sockopt::OriginalDst).is_ok()
        } else {
            getsockopt(&connection, sockopt::Ip6tOriginalDst).is_ok()
        };
        self.0.accepted.fetch_add(1, Ordering::Relaxed);
        self.0.redirected.fetch_add(redirected.into(), Ordering::Relaxed);

        let mut received = recv(connection.as_raw_fd(), buffer, MsgFlags::empty())?;
        match buffer[..received].first() {
            Some(&SINK) => {
                while received > 0 {
                    received = recv(connection.as_raw_fd(), buffer, MsgFlags::empty())?;
                }
                send_all(&connection, &[SINK])?;
            }
            Some(&KEEP) => {
                send_all(&connection, &[KEEP])?;
                self.0.kept.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
            }
            _ => {
                while received > 0 {
                    send_all(&connection, &buffer[..received])?;
                    received = recv(connection.as_raw_fd(), buffer, MsgFlags::empty())?;
                }
            }
        }
        Ok(())
    }
}

/// A listening socket that others may share the port with, for IPv6 alone if the address is one.
pub(super) fn listener(address: SocketAddr) -> io::Result<TcpListener> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let listener = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, SockProtocol::Tcp)?;
    setsockopt(&listener, sockopt::ReusePort, &true)?;
    if address.is_ipv6() {
        setsockopt(&listener, sockopt::Ipv6V6Only, &true)?;
    }
    bind(listener.as_raw_fd(), &SockaddrStorage::from(address))?;
    listen(&listener, Backlog::MAXALLOWABLE)?;
    Ok(listener.into())
}
