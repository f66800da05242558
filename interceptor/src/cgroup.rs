//! The cgroup v2 hierarchy: find it, check that a path is in it.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, fstatfs};
use thiserror::Error;

/// A cgroup v2 folder, open.
#[derive(Debug)]
pub struct Cgroup {
    file: File,
    path: PathBuf,
}

/// Why a cgroup cannot be used.
#[derive(Debug, Error)]
pub enum CgroupError {
    /// No cgroup v2 hierarchy is mounted.
    #[error(
        "no cgroup v2 hierarchy is mounted here; mount one (mount -t cgroup2 none /sys/fs/cgroup/unified) \
         or use --backend iptables"
    )]
    NoHierarchy,
    /// The path cannot be opened.
    #[error("cannot open the cgroup {path}: {source}")]
    Open {
        /// The path given.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The path is something else.
    #[error(
        "{path} is not a folder of a cgroup v2 hierarchy; `grep cgroup2 /proc/self/mountinfo` shows where one is"
    )]
    NotOne {
        /// The path given.
        path: PathBuf,
    },
    /// The list of mounts cannot be read.
    #[error("cannot read /proc/thread-self/mountinfo: {0}")]
    Mounts(io::Error),
}

impl Cgroup {
    /// The root of the hierarchy as this mount namespace sees it.
    pub fn root() -> Result<Self, CgroupError> {
        Self::open(&mount_point()?)
    }

    /// Opens a cgroup by its path.
    pub fn open(path: &Path) -> Result<Self, CgroupError> {
        let file = File::open(path).map_err(|source| CgroupError::Open { path: path.to_owned(), source })?;
        if fstatfs(&file).is_ok_and(|stat| stat.filesystem_type() == CGROUP2_SUPER_MAGIC) {
            Ok(Self { file, path: path.to_owned() })
        } else {
            Err(CgroupError::NotOne { path: path.to_owned() })
        }
    }

    /// The open folder.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The path it was opened by.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The id the kernel knows it by: the inode of its folder.
    pub fn id(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.ino())
    }
}

/// Where the cgroup v2 hierarchy is mounted: `/sys/fs/cgroup` on most systems, elsewhere on hybrid ones.
pub fn mount_point() -> Result<PathBuf, CgroupError> {
    let mounts = fs::read_to_string("/proc/thread-self/mountinfo").map_err(CgroupError::Mounts)?;
    mounts.lines().find_map(cgroup2_mount).ok_or(CgroupError::NoHierarchy)
}

/// The folder of the cgroup v2 that a process is in (`self` or its number); none if it has ended, or if the hierarchy is
/// not mounted where the caller could look.
#[must_use]
pub fn of_process(process: &str) -> Option<PathBuf> {
    let memberships = fs::read_to_string(Path::new("/proc").join(process).join("cgroup")).ok()?;
    let path = memberships.lines().find_map(|line| line.strip_prefix("0::"))?;
    let folder = mount_point().ok()?.join(path.trim_start_matches('/'));
    folder.is_dir().then_some(folder)
}

/// The mount point of a line of mountinfo (`proc_pid_mountinfo(5)`), if it is a cgroup v2 one.
fn cgroup2_mount(line: &str) -> Option<PathBuf> {
    let (mount, filesystem) = line.split_once(" - ")?;
    if filesystem.split(' ').next()? != "cgroup2" {
        return None;
    }
    let point = mount.split(' ').nth(4)?;
    Some(PathBuf::from(point.replace("\\040", " ").replace("\\134", "\\")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hybrid_host_has_its_cgroup2_below_the_v1_mounts() {
        let line = "39 30 0:34 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw";
        assert_eq!(cgroup2_mount(line), Some(PathBuf::from("/sys/fs/cgroup/unified")));
        let v1 = "31 30 0:26 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu";
        assert_eq!(cgroup2_mount(v1), None);
    }
}
