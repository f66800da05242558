//! What a process becomes before it makes its first socket.

use std::{
    fs::{self, File},
    io,
    os::{fd::AsRawFd as _, unix::process::CommandExt as _},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;
use clap::Args;
use nix::{
    sched::{CloneFlags, setns},
    sys::prctl::set_dumpable,
    unistd::{Gid, Uid, setgroups, setresgid, setresuid},
};

/// Namespace, cgroup and owner of a process. A socket keeps those of the moment it was made.
#[derive(Args, Debug)]
pub struct Identity {
    /// Network namespace to be in.
    #[arg(long, value_name = "PATH")]
    netns: PathBuf,
    /// Cgroup to be in.
    #[arg(long, value_name = "PATH")]
    cgroup: PathBuf,
    /// User id to become.
    #[arg(long)]
    uid: u32,
    /// Group id to become; there are no supplementary groups.
    #[arg(long)]
    gid: u32,
}

impl Identity {
    /// Makes the calling process what this says. It must have one thread, as a namespace is a thread's own.
    pub fn assume(&self) -> anyhow::Result<()> {
        let netns =
            File::open(&self.netns).with_context(|| format!("cannot open {}", self.netns.display()))?;
        setns(netns, CloneFlags::CLONE_NEWNET)
            .with_context(|| format!("cannot enter {}", self.netns.display()))?;
        // "0" stands for the writer itself, whatever its pid namespace.
        fs::write(self.cgroup.join("cgroup.procs"), "0")
            .with_context(|| format!("cannot join the cgroup {}", self.cgroup.display()))?;
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        setgroups(&[]).context("cannot give up supplementary groups")?;
        setresgid(gid, gid, gid).with_context(|| format!("cannot become group {gid}"))?;
        setresuid(uid, uid, uid).with_context(|| format!("cannot become user {uid}"))?;
        // A process that changes its user hides itself in /proc; one that its user started does not.
        set_dumpable(true).context("cannot show the process in /proc again")
    }

    /// Assumes the identity and becomes another program. Returns only if that failed.
    ///
    /// The program is opened before the identity changes: it may lie where the new user cannot look.
    pub fn exec(&self, program: &Path, arguments: &[std::ffi::OsString]) -> anyhow::Result<io::Error> {
        let file = File::open(program).with_context(|| format!("cannot open {}", program.display()))?;
        self.assume()?;
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        Ok(Command::new(path).arg0(program).args(arguments).exec())
    }
}
