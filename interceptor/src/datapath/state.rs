//! The folder of bpffs that holds everything: what is pinned there is in force.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use interceptor_ebpf::abi;
use nix::{
    fcntl::{Flock, FlockArg},
    mount::{MsFlags, mount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};

use super::DatapathError;

/// Where bpffs is mounted on every system that has one.
pub const BPFFS: &str = "/sys/fs/bpf";

/// The state folder, locked: no other command changes it meanwhile.
#[derive(Debug)]
pub(super) struct State {
    folder: PathBuf,
    _lock: Flock<File>,
}

impl State {
    /// Makes the folder if there is none, mounting bpffs if need be, and locks it.
    pub(super) fn create(folder: &Path) -> Result<Self, DatapathError> {
        mount_bpffs(folder)?;
        loop {
            make(folder)?;
            if let Some(state) = Self::lock(folder)? {
                state.check_layout()?;
                for part in [state.maps(), state.links(), state.workloads()] {
                    make(&part)?;
                }
                return Ok(state);
            }
        }
    }

    /// Locks the folder if there is one, and it is of a layout this build knows.
    pub(super) fn open(folder: &Path) -> Result<Option<Self>, DatapathError> {
        let state = Self::open_any(folder)?;
        if let Some(state) = &state {
            state.check_layout()?;
        }
        Ok(state)
    }

    /// Locks the folder if there is one, whatever is in it.
    pub(super) fn open_any(folder: &Path) -> Result<Option<Self>, DatapathError> {
        while folder.exists() {
            if let Some(state) = Self::lock(folder)? {
                return Ok(Some(state));
            }
        }
        Ok(None)
    }

    /// Pins of maps, by name.
    pub(super) fn maps(&self) -> PathBuf {
        self.version().join("maps")
    }

    /// Pins of cgroup links, by hook.
    pub(super) fn links(&self) -> PathBuf {
        self.version().join("links")
    }

    /// Pins of the workloads' `sk_lookup` links, by netns cookie.
    pub(super) fn workloads(&self) -> PathBuf {
        self.version().join("workloads")
    }

    /// A folder for each build, by its object's digest, with the programs it has put into links.
    pub(super) fn programs(&self) -> PathBuf {
        self.version().join("programs")
    }

    /// The pin of a workload's `sk_lookup` link.
    pub(super) fn steering(&self, workload: u64) -> PathBuf {
        self.workloads().join(workload.to_string())
    }

    /// Whether anything is in force: a hook, or a workload.
    pub(super) fn is_installed(&self) -> bool {
        let has_entries = |folder: PathBuf| fs::read_dir(folder).is_ok_and(|mut pins| pins.next().is_some());
        has_entries(self.links()) || has_entries(self.workloads())
    }

    /// A folder the agent holds a lock on while it lives.
    pub(super) fn tenure(&self) -> PathBuf {
        self.folder.join("agent")
    }

    /// The state folder.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The layout's version is part of the path, so that two versions never read each other's maps.
    pub(super) fn version(&self) -> PathBuf {
        self.folder.join(format!("v{}", abi::VERSION))
    }

    /// Refuses a folder with another layout's state: its programs would go on beside ours, with maps of their own.
    fn check_layout(&self) -> Result<(), DatapathError> {
        let failed = |source| DatapathError::State { folder: self.folder.clone(), source };
        for entry in fs::read_dir(&self.folder).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let layout = name.to_str().and_then(|name| name.strip_prefix('v')?.parse::<u32>().ok());
            if let Some(found) = layout.filter(|found| *found != abi::VERSION) {
                return Err(DatapathError::OtherLayout {
                    folder: self.folder.clone(),
                    found,
                    known: abi::VERSION,
                });
            }
        }
        Ok(())
    }

    /// Locks the folder; none if it was removed while we waited.
    fn lock(folder: &Path) -> Result<Option<Self>, DatapathError> {
        let failed = |source| DatapathError::State { folder: folder.to_owned(), source };
        let file = match File::open(folder) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let lock = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| failed(errno.into()))?;
        let locked = lock.metadata().map_err(failed)?.ino();
        match fs::metadata(folder) {
            Ok(now) if now.ino() == locked => Ok(Some(Self { folder: folder.to_owned(), _lock: lock })),
            Ok(_) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }
}

/// Makes a folder only root may enter: whoever can open a pin can change what is intercepted.
pub(super) fn make(folder: &Path) -> Result<(), DatapathError> {
    DirBuilder::new()
        .mode(0o700)
        .recursive(true)
        .create(folder)
        .map_err(|source| DatapathError::State { folder: folder.to_owned(), source })
}

/// Mounts bpffs where every system has it, if the folder lies there and it is not mounted yet.
fn mount_bpffs(folder: &Path) -> Result<(), DatapathError> {
    let existing = folder.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(Path::new("/"));
    if is_bpffs(existing) {
        return Ok(());
    }
    let refused = |reason: String| DatapathError::NoBpffs { folder: folder.to_owned(), reason };
    if !folder.starts_with(BPFFS) {
        return Err(refused(format!("{} is on another filesystem", existing.display())));
    }
    // Two commands that both found it missing must not mount it twice: the second mount would hide the first's pins.
    let point = File::open(BPFFS).map_err(|error| refused(format!("{BPFFS}: {error}")))?;
    let _lock =
        Flock::lock(point, FlockArg::LockExclusive).map_err(|(_, errno)| refused(errno.to_string()))?;
    if is_bpffs(Path::new(BPFFS)) {
        return Ok(());
    }
    mount(Some("bpf"), BPFFS, Some("bpf"), MsFlags::empty(), Some("mode=0700"))
        .map_err(|errno| refused(format!("mounting it at {BPFFS} failed: {}", errno.desc())))
}

fn is_bpffs(path: &Path) -> bool {
    statfs(path).is_ok_and(|stat| stat.filesystem_type() == BPF_FS_MAGIC)
}
