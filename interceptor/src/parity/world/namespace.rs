//! Anonymous network namespaces: they live as long as a descriptor of them is open and so cannot be left behind.

use std::{path::PathBuf, process, sync::Arc, thread};

use anyhow::{Context as _, anyhow};
use nix::sched::{CloneFlags, unshare};

use crate::netns::Netns;

/// A network namespace of our own, held open.
#[derive(Clone, Debug)]
pub struct Namespace(Arc<Netns>);

impl Namespace {
    /// Makes a new namespace; the calling thread stays where it is.
    pub fn create() -> anyhow::Result<Self> {
        let create = || {
            unshare(CloneFlags::CLONE_NEWNET).context("cannot make a network namespace (root is needed)")?;
            Ok(Self(Arc::new(Netns::current()?)))
        };
        // A short-lived thread spares us the way back.
        thread::scope(|scope| scope.spawn(create).join())
            .map_err(|_panic| anyhow!("the thread that makes a network namespace panicked"))?
    }

    /// A path by which any process may open the namespace while this object lives.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", process::id(), self.0.raw_fd()))
    }

    /// Runs `work` inside the namespace, on a thread of its own; processes that `work` starts are inside too.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
        self.0.run(work)?
    }

    pub(super) fn raw_fd(&self) -> i32 {
        self.0.raw_fd()
    }
}
