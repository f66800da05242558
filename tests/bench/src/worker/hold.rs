//! Connections that are opened and kept.

use std::{net::SocketAddr, os::fd::OwnedFd};

use nix::{
    libc,
    sys::{
        socket::{
            getsockopt, setsockopt,
            sockopt::{ReceiveTimeout, SendTimeout},
        },
        time::TimeVal,
    },
};

use super::{
    protocol::Held,
    socket::{KEEP, Target, exchange},
};

mod option {
    use nix::{getsockopt_impl, libc, sockopt_impl};

    sockopt_impl!(
        /// Memory of a socket by kind (`SK_MEMINFO_*` of linux/sock_diag.h), in bytes.
        SocketMemory,
        GetOnly,
        libc::SOL_SOCKET,
        libc::SO_MEMINFO,
        [u32; 9]
    );
}

/// `SK_MEMINFO_OPTMEM` of `linux/sock_diag.h`: where the kernel charges what BPF programs store with a socket.
const OPTION_MEMORY: usize = 6;

/// How long a connection or an answer may take.
const PATIENCE: TimeVal = TimeVal::new(0, 900_000);

/// Opens `count` connections, the targets in turn, and keeps them in `open`. The first that fails is the last.
pub(super) fn hold(open: &mut Vec<OwnedFd>, targets: &[SocketAddr], count: usize) -> nix::Result<Held> {
    let targets: Vec<_> = targets.iter().copied().map(Target::new).collect();
    open.reserve(count);
    let mut failed = None;
    for target in targets.iter().cycle().take(count) {
        let connection = target.socket().and_then(|connection| {
            // nat drops the packets of connections for which it has no port left, some of them for good; others get one
            // when their packet is sent once more, after a second.
            setsockopt(&connection, SendTimeout, &PATIENCE)?;
            setsockopt(&connection, ReceiveTimeout, &PATIENCE)?;
            target.connect_from(&connection)?;
            exchange(&connection, KEEP)?;
            Ok(connection)
        });
        match connection {
            Ok(connection) => open.push(connection),
            Err(errno) => {
                failed = Some(errno as libc::c_int);
                break;
            }
        }
    }
    let memory = open.last().map(|last| getsockopt(last, option::SocketMemory)).transpose()?;
    Ok(Held { open: open.len(), failed, option_memory: memory.map_or(0, |memory| memory[OPTION_MEMORY]) })
}
