//! A folder of workload files, one each, watched.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;

use super::{
    keeper::Keeper,
    source::{Declared, Source},
    spec::{WorkloadId, WorkloadSpec, check_writers},
};

/// A folder of files `ID.toml`, `ID.yaml`, `ID.yml` or `ID.json`. Others, and those beginning with a dot, are passed
/// over: write to such a name first and rename, and the change is one step.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
}

impl Directory {
    /// Takes a folder, which must be there and be nobody else's to write.
    pub fn new(path: &Path) -> anyhow::Result<Self> {
        check_writers(path)?;
        Ok(Self { path: path.to_owned() })
    }
}

impl Source for Directory {
    fn name(&self) -> String {
        self.path.display().to_string()
    }

    async fn follow(self, keeper: Keeper) -> anyhow::Result<()> {
        // One place is enough: an event that finds it taken is told by the one that took it.
        let (tell, mut told) = mpsc::channel(1);
        let mut watcher: RecommendedWatcher =
            notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
                if !event.is_ok_and(|event| event.kind.is_access()) {
                    let _taken = tell.try_send(());
                }
            })
            .context("cannot watch folders")?;
        watcher
            .watch(&self.path, RecursiveMode::NonRecursive)
            .with_context(|| format!("cannot watch {}", self.path.display()))?;
        loop {
            match read(&self.path) {
                Ok(declared) => keeper.declare(self.name(), declared),
                // What was declared last stays in force.
                Err(error) => tracing::error!(folder = %self.path.display(), "{error:#}"),
            }
            told.recv().await.context("the folder's watcher ended")?;
        }
    }
}

/// Reads every declaration of a folder.
pub(super) fn read(folder: &Path) -> anyhow::Result<Declared> {
    check_writers(folder)?;
    let mut declared = Declared::default();
    let mut seen: BTreeMap<WorkloadId, PathBuf> = BTreeMap::new();
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    for entry in entries {
        let path = entry.with_context(|| format!("cannot read {}", folder.display()))?.path();
        let Some(name) = name(&path) else { continue };
        let id: WorkloadId = match name.parse() {
            Ok(id) => id,
            Err(error) => {
                tracing::error!(file = %path.display(), "{error}");
                continue;
            }
        };
        if let Some(other) = seen.insert(id.clone(), path.clone()) {
            declared.workloads.remove(&id);
            let why =
                format!("{} and {} declare the same workload: remove one", other.display(), path.display());
            declared.unreadable.insert(id, why);
            continue;
        }
        match WorkloadSpec::read(&path) {
            Ok(spec) => drop(declared.workloads.insert(id, spec)),
            // It was removed between listing and reading.
            Err(_) if !path.exists() => {}
            Err(error) => drop(declared.unreadable.insert(id, error.to_string())),
        }
    }
    Ok(declared)
}

/// The workload's name, if the file is a declaration.
fn name(path: &Path) -> Option<&str> {
    let extension = path.extension()?.to_str()?;
    let name = path.file_stem()?.to_str()?;
    (["toml", "yaml", "yml", "json"].contains(&extension) && !name.starts_with('.')).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_a_workload_or_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        write("web.toml", "netns = '/run/netns/web'\n[capture]\nistio-service-cidr = '*'\n");
        write("db.yaml", "pid: 4711\n");
        write("bad.toml", "netns = 7\n");
        write(".web.toml.swp", "x");
        write("README", "x");
        let declared = read(folder.path()).unwrap();
        let ids: Vec<_> = declared.workloads.keys().map(ToString::to_string).collect();
        assert_eq!(ids, ["db", "web"]);
        assert_eq!(declared.unreadable.keys().map(ToString::to_string).collect::<Vec<_>>(), ["bad"]);
    }

    #[test]
    fn two_files_of_one_name_are_refused_both() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a.toml", "a.yaml"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let declared = read(folder.path()).unwrap();
        assert!(declared.workloads.is_empty());
        assert!(declared.unreadable.values().next().is_some_and(|why| why.contains("same workload")));
    }
}
