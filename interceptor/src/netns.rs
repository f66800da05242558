//! Network namespaces: open one, name it by its cookie, run something inside it.

use std::{
    fs::{self, File},
    io,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    thread,
};

use nix::{
    errno::Errno,
    libc,
    sched::{CloneFlags, setns},
    sys::{
        socket::{AddressFamily, SockFlag, SockType, socket},
        statfs::{FsType, fstatfs},
    },
};
use thiserror::Error;

/// A network namespace, open. Keep it no longer than needed: an open one outlives its processes.
#[derive(Debug)]
pub struct Netns {
    file: File,
    path: PathBuf,
}

/// Why a namespace cannot be used.
#[derive(Debug, Error)]
pub enum NetnsError {
    /// The path cannot be opened.
    #[error(
        "cannot open the network namespace {path}: {source}; name a file like /run/netns/NAME or /proc/PID/ns/net"
    )]
    Open {
        /// The path given.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The path is something else.
    #[error("{path} is not a network namespace; name a file like /run/netns/NAME or /proc/PID/ns/net")]
    NotOne {
        /// The path given.
        path: PathBuf,
    },
    /// It cannot be entered.
    #[error("cannot enter the network namespace {path}: {source}; entering one needs CAP_SYS_ADMIN")]
    Enter {
        /// The path given.
        path: PathBuf,
        /// What the system said.
        source: nix::Error,
    },
    /// The kernel does not tell its cookie.
    #[error("the kernel does not tell a namespace's cookie ({0}); SO_NETNS_COOKIE came with Linux 5.14")]
    Cookie(nix::Error),
}

/// `NSFS_MAGIC` of linux/magic.h: the filesystem of namespace files.
const NSFS_MAGIC: libc::__fsword_t = 0x6e73_6673;

impl Netns {
    /// Opens the namespace a path names.
    pub fn open(path: &Path) -> Result<Self, NetnsError> {
        let file = File::open(path).map_err(|source| NetnsError::Open { path: path.to_owned(), source })?;
        let is_namespace = fstatfs(&file).is_ok_and(|stat| stat.filesystem_type() == FsType(NSFS_MAGIC));
        if !is_namespace {
            return Err(NetnsError::NotOne { path: path.to_owned() });
        }
        Ok(Self { file, path: path.to_owned() })
    }

    /// The caller's own namespace.
    pub fn current() -> Result<Self, NetnsError> {
        Self::open(Path::new("/proc/thread-self/ns/net"))
    }

    /// Finds a namespace by its cookie, among the path it was once known by and the namespaces of all processes.
    /// None once it is gone, or if nobody shows it any more.
    #[must_use]
    pub fn find(cookie: u64, inode: u64, path: &Path) -> Option<Self> {
        let of_processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        let of_processes = of_processes.map(|process| process.path().join("ns/net"));
        let has_inode = |path: &PathBuf| fs::metadata(path).is_ok_and(|found| found.ino() == inode);
        let mut candidates = std::iter::once(path.to_owned()).chain(of_processes).filter(has_inode);
        candidates.find_map(|path| {
            Self::open(&path).ok().filter(|netns| netns.cookie().is_ok_and(|own| own == cookie))
        })
    }

    /// The same namespace, open once more.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { file: self.file.try_clone()?, path: self.path.clone() })
    }

    /// The path it was opened by.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The open file.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Its inode number. Two open namespaces are the same if this is.
    pub fn inode(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.ino())
    }

    /// Its cookie, which names it for as long as the system runs and is never reused.
    pub fn cookie(&self) -> Result<u64, NetnsError> {
        self.run(|| {
            let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
                .map_err(NetnsError::Cookie)?;
            netns_cookie(&socket).map_err(NetnsError::Cookie)
        })?
    }

    /// Runs something on a thread of its own inside the namespace. It takes no rights where that is the caller's own.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
        let is_own =
            matches!((Self::current()?.inode(), self.inode()), (Ok(here), Ok(there)) if here == there);
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                if !is_own {
                    self.enter()?;
                }
                Ok(work())
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Puts the calling thread into the namespace.
    fn enter(&self) -> Result<(), NetnsError> {
        setns(self.file.as_fd(), CloneFlags::CLONE_NEWNET).map_err(|source| {
            if source == Errno::EINVAL {
                NetnsError::NotOne { path: self.path.clone() }
            } else {
                NetnsError::Enter { path: self.path.clone(), source }
            }
        })
    }

    /// Its descriptor's number, for calls that take one.
    #[must_use]
    pub fn raw_fd(&self) -> i32 {
        self.file.as_raw_fd()
    }
}

/// `SO_NETNS_COOKIE` (Linux 5.14); nix has no name for it.
pub(crate) fn netns_cookie(socket: &OwnedFd) -> nix::Result<u64> {
    let mut cookie = 0_u64;
    let mut length: libc::socklen_t = 8;
    // SAFETY: the kernel writes at most `length` bytes to the cookie, and the length.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    Errno::result(result).map(|_| cookie)
}
