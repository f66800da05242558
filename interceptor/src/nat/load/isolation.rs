//! The host's files as its iptables should see them when it works on a pod's namespace from outside (`--cni-mode`).

use std::{
    fs::OpenOptions,
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

/// Why the host's files cannot be hidden.
#[derive(Debug, thiserror::Error)]
#[error("cannot hide {path} of the host in a mount namespace: {source}")]
pub struct IsolationError {
    /// The file that was to be hidden, or the root of all.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

/// The lock that all legacy iptables of a host share, whatever namespace they work on.
const LOCK: &str = "/run/xtables.lock";
/// Leads iptables, which looks every id of an owner rule up, to servers that may not be reachable.
const NAME_SERVICES: &str = "/etc/nsswitch.conf";

/// Gives the calling thread, and what it starts from now on, a mount namespace in which iptables' lock is one of the
/// thread's network namespace alone and no name service is asked.
///
/// An error leaves the thread with the host's files, some of which may be hidden already; nobody else sees that.
pub fn isolate() -> Result<(), IsolationError> {
    let root = Path::new("/");
    unshare(CloneFlags::CLONE_NEWNS).map_err(at(root))?;
    let hidden_outside = |how| mount(None::<&str>, root, None::<&str>, how | MsFlags::MS_REC, None::<&str>);
    // Where a security module denies the one, the other keeps our mounts from the host as well.
    hidden_outside(MsFlags::MS_PRIVATE).or_else(|_| hidden_outside(MsFlags::MS_SLAVE)).map_err(at(root))?;

    let lock = Path::new(LOCK);
    let made = OpenOptions::new().create(true).append(true).mode(0o600).open(lock);
    made.map_err(|source| IsolationError { path: lock.to_owned(), source })?;
    cover(lock, "/proc/thread-self/ns/net")?;
    let name_services = Path::new(NAME_SERVICES);
    if name_services.exists() { cover(name_services, "/dev/null") } else { Ok(()) }
}

fn cover(path: &Path, by: &str) -> Result<(), IsolationError> {
    mount(Some(by), path, None::<&str>, MsFlags::MS_BIND, None::<&str>).map_err(at(path))
}

fn at(path: &Path) -> impl Fn(Errno) -> IsolationError {
    move |error| IsolationError { path: path.to_owned(), source: error.into() }
}
