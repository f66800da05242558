//! Listeners of a proxy that is older than its interception: the kernel tells our programs only of later ones.

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    path::Path,
};

use aya::maps::{Map, MapData, MapError, SkStorage, SockHash};
use interceptor_ebpf::abi::{LISTENER_SLOTS, Listener, ListenerKey, SocketRecord, Workload};
use procfs::process::FDTarget;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use super::{
    DatapathError,
    listening::{Listening, listening},
};
use crate::netns::Netns;

/// What is said where the kernel lists no sockets (`CONFIG_INET_DIAG`).
const NO_DIAGNOSIS: &str = "the kernel does not list listening sockets (module tcp_diag): if the proxy is already \
                            running, restart it, or redirected connections are refused";

/// Puts the proxy's listening sockets under the care of our programs, as they would have done themselves.
/// Returns a sentence for each that could not be.
pub(super) fn listeners(
    maps: &Path,
    netns: &Netns,
    cookie: u64,
    workload: &Workload,
) -> Result<Vec<String>, DatapathError> {
    let listening = match netns.run(listening)? {
        Ok(all) => {
            all.into_iter().filter(|found| workload.is_proxy_port(found.local.port())).collect::<Vec<_>>()
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(vec![NO_DIAGNOSIS.to_owned()]);
        }
        Err(source) => return Err(DatapathError::Sockets { source }),
    };
    if listening.is_empty() {
        return Ok(Vec::new());
    }
    let mut sockets = open(maps.join("SOCKETS").as_path(), Map::SkStorage)?;
    let mut listeners = open(maps.join("LISTENERS").as_path(), Map::SockHash)?;
    let mut left = Vec::new();
    let borrowed = borrow(listening.iter().map(|found| found.inode).collect());
    for found in &listening {
        let adopted = match borrowed.get(&found.inode) {
            None => Err("no process shows it".to_owned()),
            Some(Err(error)) => Err(error.to_string()),
            Some(Ok(socket)) => adopt(&mut sockets, &mut listeners, socket, found, cookie, workload),
        };
        if let Err(reason) = adopted {
            left.push(format!(
                "the listener on {} is older than the interception and cannot be adopted ({reason}): \
                 restart the proxy, or redirected connections are refused",
                found.local
            ));
        }
    }
    Ok(left)
}

fn adopt(
    sockets: &mut SkStorage<MapData, SocketRecord>,
    listeners: &mut SockHash<MapData, ListenerKey>,
    socket: &OwnedFd,
    found: &Listening,
    cookie: u64,
    workload: &Workload,
) -> Result<(), String> {
    if sockets.get(socket, 0).is_ok() {
        return Ok(());
    }
    let record = SocketRecord::listening(found.local.port());
    sockets.insert(socket, &record, 0).map_err(|error| root(&error))?;
    for listener in Listener::ALL {
        if listener.is_at(&found.local.ip().into(), found.local.port(), workload) {
            keep(listeners, socket, cookie, listener)?;
        }
    }
    Ok(())
}

/// Puts a socket into the first free slot of its listener.
fn keep(
    listeners: &mut SockHash<MapData, ListenerKey>,
    socket: &OwnedFd,
    workload: u64,
    listener: Listener,
) -> Result<(), String> {
    const BPF_NOEXIST: u64 = 1;
    for slot in 0..LISTENER_SLOTS {
        let key = ListenerKey { workload, listener, slot };
        match listeners.insert(&key, socket.as_raw_fd(), BPF_NOEXIST) {
            Ok(()) => return Ok(()),
            Err(MapError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(root(&error)),
        }
    }
    // Every slot holds a living socket of this listener, which leads to the others of its group.
    Ok(())
}

/// Descriptors of our own for the sockets with these inodes, each from whichever process has it (Linux 5.6); for one that
/// processes show and do not give, the last refusal. There may be thousands of processes: they are gone through once.
fn borrow(mut wanted: HashSet<u64>) -> HashMap<u64, rustix::io::Result<OwnedFd>> {
    let mut borrowed = HashMap::new();
    for process in procfs::process::all_processes().into_iter().flatten().flatten() {
        if wanted.is_empty() {
            break;
        }
        // A process may end, or hide its descriptors, while we look.
        let Ok(descriptors) = process.fd() else { continue };
        for descriptor in descriptors.flatten() {
            let FDTarget::Socket(inode) = descriptor.target else { continue };
            if !wanted.contains(&inode) {
                continue;
            }
            let Some(pid) = Pid::from_raw(process.pid) else { continue };
            let socket = pidfd_open(pid, PidfdFlags::empty())
                .and_then(|process| pidfd_getfd(process.as_fd(), descriptor.fd, PidfdGetfdFlags::empty()));
            // The number may have been reused for something else in between.
            if socket.as_ref().is_ok_and(|socket| !is_socket(socket, inode)) {
                continue;
            }
            if socket.is_ok() {
                wanted.remove(&inode);
            }
            borrowed.insert(inode, socket);
        }
    }
    borrowed
}

fn is_socket(socket: &OwnedFd, inode: u64) -> bool {
    let link = fs::read_link(format!("/proc/self/fd/{}", socket.as_raw_fd()));
    link.is_ok_and(|target| target.as_os_str() == format!("socket:[{inode}]").as_str())
}

fn open<T>(pin: &Path, kind: impl FnOnce(MapData) -> Map) -> Result<T, DatapathError>
where
    T: TryFrom<Map, Error = MapError>,
{
    MapData::from_pin(pin)
        .and_then(|data| T::try_from(kind(data)))
        .map_err(|source| DatapathError::Map { action: "open the pinned maps", source: Box::new(source) })
}

/// What the kernel said, without aya's words around it.
fn root(error: &MapError) -> String {
    if let MapError::SyscallError(error) = error { error.io_error.to_string() } else { error.to_string() }
}
