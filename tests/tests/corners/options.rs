//! `SO_ORIGINAL_DST` asked in every way: levels, lengths, more than once, and beside other options.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd},
};

use interceptor::parity::{plan::Family, proxy::OUTBOUND_PORT};
use nix::libc;

use crate::{
    account::Account,
    client::{FAMILIES, listen, service_in, tcp},
    stage::{Corner, NO_PROXY},
};

const SO_ORIGINAL_DST: i32 = 80;
/// Length of the longer address structure.
const LONGEST: usize = 28;
/// Around the lengths of both structures, of a page, and beyond.
const LENGTHS: [usize; 14] = [0, 1, 8, 15, 16, 17, 27, 28, 29, 128, 4095, 4096, 4097, 8000];

#[test]
fn buffers_of_every_length_at_every_level() -> anyhow::Result<()> {
    // conntrack leaves the caller's length as it is, and eBPF says how long the address is: the kernel would write as
    // much as a program leaves there, and some callers have less room than they say.
    Corner { differs: &[("lengths told", "as given", "16, 28")], ..NO_PROXY }.holds(|account| {
        let [v4, v6] = listen(OUTBOUND_PORT)?;
        let mut lengths = BTreeSet::new();
        for family in FAMILIES {
            let to = service_in(family, 1, 80);
            let client = tcp(to)?;
            client.connect(&to.into())?;
            let proxy: &TcpListener = if family == Family::V6 { &v6 } else { &v4 };
            let (accepted, _) = proxy.accept()?;
            for (who, socket) in [("client", client.as_fd()), ("proxy", accepted.as_fd())] {
                for (level, number) in [("IP", libc::SOL_IP), ("IPV6", libc::SOL_IPV6)] {
                    for length in LENGTHS {
                        let answer = asked(socket, number, SO_ORIGINAL_DST, length);
                        if let Ok(bytes) = &answer
                            && length > LONGEST
                        {
                            let told = bytes.len();
                            lengths.insert(if told == length {
                                "as given".to_owned()
                            } else {
                                told.to_string()
                            });
                        }
                        let answer = account.answer(answer);
                        account.note(&format!("{family:?} {who} {level} {length}"), answer);
                    }
                }
                let answer = account.answer(asked(socket, libc::SOL_SOCKET, SO_ORIGINAL_DST, 16));
                account.note(&format!("{family:?} {who} SOCKET"), answer);
            }
        }
        account.note("lengths told", lengths.into_iter().collect::<Vec<_>>().join(", "));
        Ok(())
    })
}

#[test]
fn other_options_with_big_buffers() -> anyhow::Result<()> {
    NO_PROXY.holds(|account| {
        let [v4, _] = listen(OUTBOUND_PORT)?;
        for (name, level, option) in [
            ("SO_RCVBUF", libc::SOL_SOCKET, libc::SO_RCVBUF),
            ("TCP_INFO", libc::SOL_TCP, libc::TCP_INFO),
            ("TCP_MAXSEG", libc::SOL_TCP, libc::TCP_MAXSEG),
            ("none", libc::SOL_IP, 0x7fff),
        ] {
            for length in [1, 4, 4096, 4097, 70_000] {
                let answer = asked(v4.as_fd(), level, option, length);
                let answer =
                    answer.map_or_else(|error| format!("{error}"), |bytes| format!("{} bytes", bytes.len()));
                account.note(&format!("{name} {length}"), answer);
            }
        }
        Ok(())
    })
}

#[test]
fn sockets_that_have_no_original_destination() -> anyhow::Result<()> {
    NO_PROXY.holds(|account| {
        let [listening, _] = listen(OUTBOUND_PORT)?;
        let fresh = tcp(service_in(Family::V4, 1, 80))?;
        let datagrams = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        for (name, socket) in
            [("listening", listening.as_fd()), ("fresh", fresh.as_fd()), ("datagrams", datagrams.as_fd())]
        {
            let answer = account.answer(asked(socket, libc::SOL_IP, SO_ORIGINAL_DST, 16));
            account.note(name, answer);
        }
        Ok(())
    })
}

/// What the kernel wrote into a buffer of this length.
fn asked(socket: BorrowedFd<'_>, level: i32, option: i32, length: usize) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0xaa_u8; length];
    let mut written = libc::socklen_t::try_from(length).map_err(io::Error::other)?;
    // SAFETY: the kernel writes at most the length given.
    let result = unsafe {
        libc::getsockopt(socket.as_raw_fd(), level, option, buffer.as_mut_ptr().cast(), &raw mut written)
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    buffer.truncate(usize::try_from(written).map_err(io::Error::other)?);
    Ok(buffer)
}

impl Account {
    /// An address structure by its address.
    fn answer(&self, bytes: io::Result<Vec<u8>>) -> String {
        match bytes {
            Ok(bytes) => match address(&bytes) {
                Some(address) => self.address(Ok(address)),
                None => format!("{bytes:?}"),
            },
            Err(error) => self.address(Err(error)),
        }
    }
}

/// Reads `sockaddr_in` or `sockaddr_in6`.
fn address(bytes: &[u8]) -> Option<SocketAddr> {
    let family = u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?);
    let port = u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?);
    let address: IpAddr = match i32::from(family) {
        libc::AF_INET => <[u8; 4]>::try_from(bytes.get(4..8)?).map(Ipv4Addr::from).ok()?.into(),
        libc::AF_INET6 => <[u8; 16]>::try_from(bytes.get(8..24)?).map(Ipv6Addr::from).ok()?.into(),
        _ => return None,
    };
    Some(SocketAddr::new(address, port))
}
