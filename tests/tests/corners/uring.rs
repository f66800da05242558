//! Connections made by `io_uring`, without a system call of their own.

use std::{io, os::fd::AsRawFd as _};

use io_uring::{IoUring, opcode, types::Fd};
use socket2::{SockAddr, Socket};

use crate::{
    client::{FAMILIES, ask, service_in, tcp},
    stage::ORDINARY,
};

#[test]
fn a_connection_by_io_uring() -> anyhow::Result<()> {
    ORDINARY.holds(|account| {
        let mut ring = match IoUring::new(4) {
            Ok(ring) => ring,
            Err(error) => {
                account.skipped = Some(format!("there is no io_uring: {error}"));
                return Ok(());
            }
        };
        for family in FAMILIES {
            let (name, to) = (format!("{family:?}"), service_in(family, 1, 80));
            let socket = tcp(to)?;
            account.outcome(&format!("{name}.connect"), &connect(&mut ring, &socket, &to.into()));
            account.names(&name, &socket);
            ask(account, &name, &socket);
        }
        Ok(())
    })
}

fn connect(ring: &mut IoUring, socket: &Socket, to: &SockAddr) -> io::Result<()> {
    let request = opcode::Connect::new(Fd(socket.as_raw_fd()), to.as_ptr().cast(), to.len()).build();
    // SAFETY: socket and address live until the kernel has answered, which is waited for.
    unsafe { ring.submission().push(&request) }.map_err(io::Error::other)?;
    ring.submit_and_wait(1)?;
    let answer = ring.completion().next().map_or(0, |answer| answer.result());
    if answer < 0 { Err(io::Error::from_raw_os_error(-answer)) } else { Ok(()) }
}
