//! Who looks after a state folder for good: at most one agent.

use std::{
    fs::{self, File},
    os::unix::fs::MetadataExt as _,
    path::Path,
};

use nix::fcntl::{Flock, FlockArg};

use super::{
    DatapathError,
    state::{self, State},
};

/// The right to look after a state folder. It ends with the process that has it, however that ends.
#[derive(Debug)]
pub struct Tenure {
    lock: Flock<File>,
    state: std::path::PathBuf,
}

impl Tenure {
    /// Takes charge of a state folder, making it if there is none. Fails if another process has.
    pub fn begin(folder: &Path) -> Result<Self, DatapathError> {
        let state = State::create(folder)?;
        let path = state.tenure();
        state::make(&path)?;
        let failed = |source| DatapathError::State { folder: path.clone(), source };
        let file = File::open(&path).map_err(failed)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Self { lock, state: folder.to_owned() }),
            Err((file, nix::Error::EWOULDBLOCK)) => {
                Err(DatapathError::AgentRuns { folder: folder.to_owned(), pid: process(&file) })
            }
            Err((_, errno)) => Err(failed(errno.into())),
        }
    }

    /// Gives it up, and removes what was made for it. Interception goes on.
    pub fn end(self) -> Result<(), DatapathError> {
        let Some(state) = State::open_any(&self.state)? else { return Ok(()) };
        let path = state.tenure();
        let removed = fs::remove_dir(&path).and_then(|()| {
            // An agent that never had a workload leaves nothing behind.
            if state.is_installed() { Ok(()) } else { fs::remove_dir_all(state.folder()) }
        });
        drop(self.lock);
        removed.map_err(|source| DatapathError::State { folder: path, source })
    }
}

/// Whether an agent has charge of the folder: its process id, if that can be told.
#[expect(clippy::option_option, reason = "an agent whose id is hidden is an agent all the same")]
pub(super) fn holder(state: &State) -> Result<Option<Option<i32>>, DatapathError> {
    let path = state.tenure();
    let failed = |source| DatapathError::State { folder: path.clone(), source };
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(failed(source)),
    };
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(_free) => Ok(None),
        Err((file, nix::Error::EWOULDBLOCK)) => Ok(Some(process(&file))),
        Err((_, errno)) => Err(failed(errno.into())),
    }
}

/// The process that holds a lock on the file, as /proc/locks tells; a process of another pid namespace is not shown.
fn process(file: &File) -> Option<i32> {
    let inode = file.metadata().ok()?.ino();
    let locks = procfs::locks().ok()?;
    let holder = locks.iter().find(|lock| lock.inode == inode && lock.pid.is_some_and(|pid| pid > 0))?;
    holder.pid
}
