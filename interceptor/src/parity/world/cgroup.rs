//! A child cgroup of our own in the cgroup v2 tree.

use std::{
    fs::{self, File},
    io::ErrorKind,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::cgroup::mount_point;

/// How long the last process of a cgroup may take to go after it was killed.
const EMPTY_WITHIN_MS: u16 = 10_000;

/// A cgroup v2 directory that belongs to us alone.
#[derive(Debug)]
pub(super) struct Cgroup(PathBuf);

impl Cgroup {
    /// Makes `name` below the root of the cgroup v2 tree, wherever that is mounted.
    pub(super) fn create(name: &str) -> anyhow::Result<Self> {
        let path = mount_point()?.join(name);
        fs::create_dir(&path).with_context(|| format!("cannot make the cgroup {}", path.display()))?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Ends every process inside and removes the directory.
    pub(super) fn remove(&self) -> anyhow::Result<()> {
        let members = match fs::read_to_string(self.0.join("cgroup.procs")) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            members => members.context("cannot list the processes of our cgroup")?,
        };
        for pid in members.lines() {
            let pid =
                pid.parse().with_context(|| format!("cgroup.procs holds {pid:?}, which is no process id"))?;
            // One that ended on its own meanwhile is what we want.
            let _gone = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        self.wait_until_empty()?;
        fs::remove_dir(&self.0).with_context(|| format!("cannot remove the cgroup {}", self.0.display()))
    }

    /// The kernel raises POLLPRI on `cgroup.events` whenever `populated` changes.
    fn wait_until_empty(&self) -> anyhow::Result<()> {
        let path = self.0.join("cgroup.events");
        let events = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        loop {
            if fs::read_to_string(&path)?.lines().any(|line| line == "populated 0") {
                return Ok(());
            }
            let mut wait = [PollFd::new(events.as_fd(), PollFlags::POLLPRI)];
            if poll(&mut wait, PollTimeout::from(EMPTY_WITHIN_MS))? == 0 {
                bail!("processes in {} do not end", self.0.display());
            }
        }
    }
}
