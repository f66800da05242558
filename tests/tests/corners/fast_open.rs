//! TCP Fast Open (RFC 7413): the first bytes travel with the SYN, and the proxy may have its socket before the client.

use std::{io, mem::MaybeUninit, os::fd::AsRawFd as _};

use nix::libc;
use socket2::Socket;

use crate::{
    account::Account,
    client::{FAMILIES, line, service_in, set, tcp},
    stage::{Corner, ORDINARY},
};

/// Fast Open without cookies, by clients and listeners that do not ask for it, too (ip-sysctl: 1 | 2 | 4 | 0x200 | 0x400).
const IN_THE_SYN: Corner = Corner { sysctls: &[("net/ipv4/tcp_fastopen", "1543")], ..ORDINARY };

#[test]
fn by_sendto_with_a_cookie_to_be_had() -> anyhow::Result<()> {
    ORDINARY.holds(by_sendto)
}

#[test]
fn by_sendto_in_the_syn() -> anyhow::Result<()> {
    IN_THE_SYN.holds(by_sendto)
}

#[test]
fn by_connect_and_write_with_a_cookie_to_be_had() -> anyhow::Result<()> {
    ORDINARY.holds(by_connect_and_write)
}

#[test]
fn by_connect_and_write_in_the_syn() -> anyhow::Result<()> {
    IN_THE_SYN.holds(by_connect_and_write)
}

fn by_sendto(account: &mut Account) -> anyhow::Result<()> {
    for family in FAMILIES {
        let (name, to) = (format!("{family:?}"), service_in(family, 1, 80));
        let socket = tcp(to)?;
        let sent = socket.send_to_with_flags(b"hello\n", &to.into(), libc::MSG_FASTOPEN);
        account.outcome(&format!("{name}.sendto"), &sent);
        answered(account, &name, &socket);
    }
    Ok(())
}

fn by_connect_and_write(account: &mut Account) -> anyhow::Result<()> {
    for family in FAMILIES {
        let (name, to) = (format!("{family:?}"), service_in(family, 1, 80));
        let socket = tcp(to)?;
        set(&socket, libc::IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT, 1)?;
        account.outcome(&format!("{name}.connect"), &socket.connect(&to.into()));
        account.outcome(&format!("{name}.write"), &socket.send(b"hello\n"));
        answered(account, &name, &socket);
    }
    Ok(())
}

fn answered(account: &mut Account, name: &str, mut socket: &Socket) {
    let answer = line(&mut socket);
    account.note(&format!("{name}.answer"), answer.unwrap_or_else(|error| error.to_string()));
    account.names(name, socket);
    let in_the_syn = went_in_the_syn(socket).map(|went| went.to_string());
    account.note(&format!("{name}.data in the SYN"), in_the_syn.unwrap_or_else(|error| error.to_string()));
}

/// Whether the peer acknowledged data of the SYN (`TCPI_OPT_SYN_DATA`).
fn went_in_the_syn(socket: &Socket) -> io::Result<bool> {
    const SYN_DATA: u8 = 32;
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut length = libc::socklen_t::try_from(size_of::<libc::tcp_info>()).unwrap_or_default();
    // SAFETY: the kernel writes at most the length given, and zeroes are a valid structure.
    let info = unsafe {
        let (fd, buffer) = (socket.as_raw_fd(), info.as_mut_ptr().cast());
        if libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, buffer, &raw mut length) != 0 {
            return Err(io::Error::last_os_error());
        }
        info.assume_init()
    };
    Ok(info.tcpi_options & SYN_DATA != 0)
}
