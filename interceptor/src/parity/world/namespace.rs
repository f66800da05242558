//! Anonymous network namespaces: they live as long as a descriptor of them is open and so cannot be left behind.

use std::{
    fs::File,
    os::fd::{AsRawFd as _, RawFd},
    path::PathBuf,
    process, thread,
};

use anyhow::{Context as _, anyhow};
use nix::sched::{CloneFlags, setns, unshare};

/// A network namespace, held open.
#[derive(Debug)]
pub struct Namespace(File);

impl Namespace {
    /// Makes a new namespace; the calling thread stays where it is.
    pub fn create() -> anyhow::Result<Self> {
        on_own_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).context("cannot make a network namespace (root is needed)")?;
            let file =
                File::open("/proc/thread-self/ns/net").context("cannot open the new network namespace")?;
            Ok(Self(file))
        })
    }

    /// A path by which any process may open the namespace while this object lives.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", process::id(), self.0.as_raw_fd()))
    }

    /// Runs `work` inside the namespace, on a thread of its own; processes that `work` starts are inside too.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
        on_own_thread(|| {
            setns(&self.0, CloneFlags::CLONE_NEWNET).context("cannot enter the network namespace")?;
            work()
        })
    }

    pub(super) fn raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// A thread's namespace is its own; a short-lived one spares us the way back.
fn on_own_thread<T: Send>(work: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
    thread::scope(|scope| scope.spawn(work).join())
        .map_err(|_panic| anyhow!("the thread inside the network namespace panicked"))?
}
