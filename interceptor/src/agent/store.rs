//! What the agent itself must remember over a restart: workloads enrolled by the control socket, and which namespace each
//! workload it keeps is in. Both live in its run folder, which goes with a reboot as the namespaces do.

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, File, Permissions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::{
    directory,
    source::Declared,
    spec::{WorkloadId, WorkloadSpec, check_writers},
};

/// The agent's run folder.
#[derive(Clone, Debug)]
pub struct Store {
    folder: PathBuf,
}

/// Where a kept workload was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Cookie of its namespace.
    pub cookie: u64,
    /// Inode of its namespace, by which it is found when the path leads there no longer.
    pub inode: u64,
    /// Path its namespace was opened by.
    pub netns: PathBuf,
}

impl Store {
    /// Opens the run folder, making it if there is none. Only the agent's user may enter it.
    pub fn open(folder: &Path) -> anyhow::Result<Self> {
        let store = Self { folder: folder.to_owned() };
        for part in [folder, &store.enrolled(), &store.kept()] {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(part)
                .with_context(|| format!("cannot make {}", part.display()))?;
        }
        check_writers(folder)?;
        fs::set_permissions(folder, Permissions::from_mode(0o700))
            .with_context(|| format!("cannot close {} to others", folder.display()))?;
        Ok(store)
    }

    /// The control socket.
    #[must_use]
    pub fn socket(folder: &Path) -> PathBuf {
        folder.join("control.sock")
    }

    /// Workloads enrolled by the control socket.
    pub fn declared(&self) -> anyhow::Result<Declared> {
        directory::read(&self.enrolled())
    }

    /// Remembers an enrolled workload.
    pub fn enrol(&self, id: &WorkloadId, spec: &WorkloadSpec) -> io::Result<()> {
        write(&enrolled_file(&self.folder, id), &spec.to_json()?)
    }

    /// Forgets an enrolled workload.
    pub fn forget_own(&self, id: &WorkloadId) -> io::Result<()> {
        Self::forget(&self.folder, id)
    }

    /// Forgets an enrolled workload; it is no error if there is none. Needs no agent.
    pub fn forget(folder: &Path, id: &WorkloadId) -> io::Result<()> {
        remove(&enrolled_file(folder, id))
    }

    /// The namespaces of the workloads that are kept.
    pub fn places(&self) -> anyhow::Result<BTreeMap<WorkloadId, Place>> {
        let folder = self.kept();
        let mut places = BTreeMap::new();
        for entry in fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
            let path = entry?.path();
            let id = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
            let Some(id) = id else { continue };
            let place = fs::read(&path)?;
            // Written by renaming, so that it is whole or not there.
            let place = serde_json::from_slice(&place)
                .with_context(|| format!("{} is damaged: remove it", path.display()))?;
            places.insert(id, place);
        }
        Ok(places)
    }

    /// Remembers where a workload is.
    pub fn keep(&self, id: &WorkloadId, place: &Place) -> io::Result<()> {
        write(&self.kept().join(id.to_string()), &serde_json::to_vec(place)?)
    }

    /// Forgets where a workload was.
    pub fn drop(&self, id: &WorkloadId) -> io::Result<()> {
        Self::lose(&self.folder, id)
    }

    /// Forgets where a workload was. Needs no agent.
    pub fn lose(folder: &Path, id: &WorkloadId) -> io::Result<()> {
        remove(&folder.join("kept").join(id.to_string()))
    }

    /// Where a workload was, if that is known. Needs no agent.
    pub fn place(folder: &Path, id: &WorkloadId) -> anyhow::Result<Option<Place>> {
        let path = folder.join("kept").join(id.to_string());
        match fs::read(&path) {
            Ok(place) => {
                let place = serde_json::from_slice(&place);
                place.map(Some).with_context(|| format!("{} is damaged: remove it", path.display()))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    fn enrolled(&self) -> PathBuf {
        self.folder.join("enrolled")
    }

    fn kept(&self) -> PathBuf {
        self.folder.join("kept")
    }
}

fn enrolled_file(folder: &Path, id: &WorkloadId) -> PathBuf {
    folder.join("enrolled").join(format!("{id}.json"))
}

/// Writes a file in one step: a reader sees the old one or the new one.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let draft = path.with_file_name(format!(".{name}"));
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    file.write_all(bytes)?;
    fs::rename(draft, path)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
