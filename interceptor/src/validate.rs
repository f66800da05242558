//! Finds out by connections of its own whether interception works, as Istio's `istio-validation` container does.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::AsFd as _,
    panic, thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    libc,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use rustix::thread::{Gid, Uid, set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;

use crate::capture::Capture;

/// Why interception is not known to work.
#[derive(Debug, Error)]
pub enum ValidateError {
    /// The proxy's user cannot be assumed.
    #[error(
        "cannot become user {user} to connect as the proxy does: {source}; validate as root or as that user"
    )]
    Owner {
        /// The proxy's user or, if it has none, group.
        user: u32,
        /// What the system said.
        source: io::Error,
    },
    /// The proxy's port is not free.
    #[error(
        "cannot listen on {address} in the proxy's place: {source}; validate while the proxy is not running"
    )]
    Listen {
        /// The address of the proxy.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// Waiting for connections failed.
    #[error("cannot wait for the connections that validation makes: {0}")]
    Wait(io::Error),
    /// No connection came back through interception.
    #[error(
        "interception does not work here; this workload is not ready\n\
         \x20 tried for {timeout:?}: connections from {source_address} to {destination}, which interception sends to port {port}\n\
         \x20 seen: {seen}\n\
         \x20 Connections of this workload may bypass its proxy. Was interception applied to this network namespace, \
         with the same ports and proxy user? Under eBPF, is this process in the intercepted cgroup?"
    )]
    NotIntercepted {
        /// Where the connections came from.
        source_address: IpAddr,
        /// Where the connections went to.
        destination: SocketAddr,
        /// The proxy's inbound port.
        port: u16,
        /// How long this was tried, the other family's attempts included.
        timeout: Duration,
        /// What became of the last connection.
        seen: String,
    },
}

/// Istio connects anew this often.
const INTERVAL: Duration = Duration::from_secs(1);

/// Takes the proxy's place in the calling thread's network namespace and connects, as the proxy's user, to a local
/// address that interception sends back to the proxy; the accepted socket must know `probe_port` as its original one.
///
/// Every intercepted family must pass, all of them before `timeout` has passed. The process must have what interception
/// asks of the workload's own: under eBPF, it has to be in the intercepted cgroup.
pub fn validate(capture: &Capture, probe_port: u16, timeout: Duration) -> Result<(), ValidateError> {
    let deadline = Instant::now() + timeout;
    let trials = || {
        become_proxy(capture)?;
        for (loopback, destination) in families(capture.ipv6) {
            Trial::prepare(capture, loopback, (destination, probe_port).into())?.run(deadline, timeout)?;
        }
        Ok(())
    };
    // The thread ends with the identity it takes on.
    thread::scope(|scope| scope.spawn(trials).join()).unwrap_or_else(|panic| panic::resume_unwind(panic))
}

/// Where to connect from and to. The source is said because the kernel would choose `::6` itself towards `::6`.
fn families(ipv6: bool) -> impl Iterator<Item = (IpAddr, IpAddr)> {
    let v4 = (Ipv4Addr::LOCALHOST.into(), Ipv4Addr::new(127, 0, 0, 6).into());
    let v6 = (Ipv6Addr::LOCALHOST.into(), Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6).into());
    [Some(v4), ipv6.then_some(v6)].into_iter().flatten()
}

/// Makes the calling thread, and no other, the proxy's first user and group.
fn become_proxy(capture: &Capture) -> Result<(), ValidateError> {
    let user = capture.proxy_uids.first().copied();
    let group = capture.proxy_gids.first().copied();
    let Some(shown) = user.or(group) else { return Ok(()) };
    // A container that runs as the proxy's user has no right to change, and no need to.
    if user == Some(rustix::process::geteuid().as_raw()) {
        return Ok(());
    }
    let change = || {
        set_thread_groups(&[])?;
        if let Some(group) = group.map(Gid::from_raw) {
            set_thread_res_gid(group, group, group)?;
        }
        user.map(Uid::from_raw).map_or(Ok(()), |user| set_thread_res_uid(user, user, user))
    };
    change().map_err(|source: rustix::io::Errno| ValidateError::Owner { user: shown, source: source.into() })
}

/// The proxy's listeners in one family, and where to connect so that interception leads to them.
struct Trial {
    listeners: Vec<Socket>,
    loopback: IpAddr,
    destination: SocketAddr,
    inbound_port: u16,
}

impl Trial {
    fn prepare(capture: &Capture, loopback: IpAddr, destination: SocketAddr) -> Result<Self, ValidateError> {
        let listeners = [capture.outbound_port, capture.inbound_port].map(|port| {
            let address = SocketAddr::new(loopback, port);
            listen(address).map_err(|source| ValidateError::Listen { address, source })
        });
        let listeners = listeners.into_iter().collect::<Result<_, _>>()?;
        Ok(Self { listeners, loopback, destination, inbound_port: capture.inbound_port })
    }

    /// Connects until `deadline`, but at least once, however long it took to come here.
    fn run(&self, deadline: Instant, timeout: Duration) -> Result<(), ValidateError> {
        loop {
            let client = self.connect();
            let round = deadline.min(Instant::now() + INTERVAL);
            let mut seen = "no connection arrived, and none was refused".to_owned();
            if self.accept_until(round, &mut seen).map_err(ValidateError::Wait)? {
                return Ok(());
            }
            if let Err(error) = client.and_then(|client| client.take_error()?.map_or(Ok(()), Err)) {
                seen = error.to_string();
            }
            if Instant::now() >= deadline {
                return Err(ValidateError::NotIntercepted {
                    source_address: self.loopback,
                    destination: self.destination,
                    port: self.inbound_port,
                    timeout,
                    seen,
                });
            }
        }
    }

    /// Begins a connection; what becomes of it shows at the listeners, or later as the socket's error.
    fn connect(&self) -> io::Result<Socket> {
        let client = socket(self.loopback)?;
        client.bind(&SocketAddr::new(self.loopback, 0).into())?;
        match client.connect(&self.destination.into()) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
            _ => Ok(client),
        }
    }

    /// Whether a connection arrives whose original destination has the probe's port. Others are no proof.
    fn accept_until(&self, end: Instant, seen: &mut String) -> io::Result<bool> {
        loop {
            for listener in &self.listeners {
                while let Some(original) = accept(listener)? {
                    *seen = match original {
                        Ok(address) if address.port() == self.destination.port() => return Ok(true),
                        Ok(address) => format!("a connection whose original destination is {address}"),
                        Err(error) => format!("a connection without an original destination: {error}"),
                    };
                }
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            // `poll` counts milliseconds, so that the last part of one is waited for as a whole one.
            let left = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
            let mut waiting: Vec<_> =
                self.listeners.iter().map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN)).collect();
            match poll(&mut waiting, left) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Several may listen at once: both directions may share a port, and the proxy itself may allow it.
fn listen(address: SocketAddr) -> io::Result<Socket> {
    let listener = socket(address.ip())?;
    listener.set_reuse_address(true)?;
    listener.set_reuse_port(true)?;
    listener.bind(&address.into())?;
    listener.listen(128)?;
    Ok(listener)
}

fn socket(loopback: IpAddr) -> io::Result<Socket> {
    let domain = Domain::for_address(SocketAddr::new(loopback, 0));
    let socket = Socket::new(domain, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    if loopback.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

/// The original destination of the next connection that waits, or why it has none.
fn accept(listener: &Socket) -> io::Result<Option<io::Result<SocketAddr>>> {
    let connection = match listener.accept() {
        Ok((connection, _)) => connection,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
        // The client has given it up; another one may wait behind it.
        Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => return Ok(Some(Err(error))),
        Err(error) => return Err(error),
    };
    let is_v4 = listener.local_addr()?.is_ipv4();
    let original = if is_v4 { connection.original_dst_v4() } else { connection.original_dst_v6() };
    Ok(Some(original.and_then(|address| {
        address.as_socket().ok_or_else(|| io::Error::from_raw_os_error(libc::EAFNOSUPPORT))
    })))
}
