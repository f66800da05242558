//! Many short connections, each checked: the client tells in its first bytes whom it wanted to reach.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use socket2::{SockRef, Type};

use super::{
    protocol::{Churn, Churned, Tallied},
    server::listen,
    socket::{address, errno, open},
};

/// Threads that accept on the one listener.
const ACCEPTORS: usize = 4;

/// An address on the wire: 16 octets of IPv6 (IPv4 mapped), then the port, all in network byte order.
const CLAIM: usize = 18;

/// What [`accept_many`] counted, shared with the threads that count.
#[derive(Clone, Default)]
pub(super) struct Tally(Arc<Mutex<Tallied>>);

impl Tally {
    pub(super) fn read(&self) -> Tallied {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn add(&self, wanted: SocketAddr, got: Result<SocketAddr, i32>) {
        let mut tally = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match got {
            Ok(got) if got == wanted => tally.right += 1,
            Ok(got) => tally.wrong.push((wanted, got)),
            Err(errno) => tally.missing.push((wanted, errno)),
        }
    }
}

/// Accepts on threads until the process ends. `SO_ORIGINAL_DST` is asked for before anything else is done.
pub(super) fn accept_many(address: SocketAddr, tally: &Tally) -> io::Result<()> {
    let listener = Arc::new(listen(address)?);
    for _ in 0..ACCEPTORS {
        let (listener, tally) = (Arc::clone(&listener), tally.clone());
        thread::spawn(move || {
            loop {
                // A connection that breaks is counted by its client, which misses the acknowledgement.
                let _broken = accept_one(&listener, &tally);
            }
        });
    }
    Ok(())
}

/// Makes the connections; stops at the first that fails.
pub(super) fn connect_many(churn: &Churn) -> Churned {
    for connected in 0..churn.count {
        let to = destination(churn, connected);
        if let Err(error) = connect_one(to) {
            return Churned { connected, failed: Some((to, errno(&error))) };
        }
    }
    Churned { connected: churn.count, failed: None }
}

fn accept_one(listener: &TcpListener, tally: &Tally) -> io::Result<()> {
    let (mut stream, _) = listener.accept()?;
    let socket = SockRef::from(&stream);
    let got =
        if stream.local_addr()?.is_ipv4() { socket.original_dst_v4() } else { socket.original_dst_v6() };
    let got = address(got);
    let mut claim = [0; CLAIM];
    stream.read_exact(&mut claim)?;
    tally.add(decode(claim), got);
    stream.write_all(b".")
}

fn connect_one(to: SocketAddr) -> io::Result<()> {
    let socket = open(to, Type::STREAM)?;
    socket.connect(&to.into())?;
    let mut stream = TcpStream::from(socket);
    stream.write_all(&encode(to))?;
    stream.read_exact(&mut [0; 1])?;
    // A reset instead of TIME_WAIT: the run must not be limited by the ports of the last minute.
    SockRef::from(&stream).set_linger(Some(Duration::ZERO))
}

fn destination(churn: &Churn, n: u32) -> SocketAddr {
    let addresses = u32::from(churn.addresses.max(1));
    let (address, port) = (n % addresses, n / addresses);
    let ip = match churn.first.ip() {
        IpAddr::V4(first) => IpAddr::V4(Ipv4Addr::from_bits(first.to_bits().wrapping_add(address))),
        IpAddr::V6(first) => IpAddr::V6(Ipv6Addr::from_bits(first.to_bits().wrapping_add(address.into()))),
    };
    // Ports wrap within the range that is neither zero nor one of the proxy's.
    let port = u32::from(churn.first.port()).wrapping_add(port) % 10_000 + 1;
    SocketAddr::new(ip, u16::try_from(port).unwrap_or(1))
}

fn encode(address: SocketAddr) -> [u8; CLAIM] {
    let ip = match address.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    let mut claim = [0; CLAIM];
    claim[..16].copy_from_slice(&ip.octets());
    claim[16..].copy_from_slice(&address.port().to_be_bytes());
    claim
}

fn decode(claim: [u8; CLAIM]) -> SocketAddr {
    let [ip @ .., high, low] = claim;
    SocketAddr::new(Ipv6Addr::from_octets(ip).to_canonical(), u16::from_be_bytes([high, low]))
}
