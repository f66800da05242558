//! Other programs on the hooks that ours are on.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs::{self, File},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use aya::programs::loaded_programs;

use super::{
    DatapathError, Status,
    object::CGROUP_HOOKS,
    sys::{self, AttachType},
};
use crate::{cgroup, netns::Netns};

/// Another program on one of our hooks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Name of our program on that hook.
    pub hook: &'static str,
    /// Id of the other program.
    pub program: u32,
    /// Its name, at most 15 bytes of it.
    pub name: String,
    /// Whether it runs before ours.
    pub runs_before: bool,
}

/// Lists the programs that run beside ours for a process in the cgroup the hooks are attached to or in one of `others`,
/// and in a namespace.
pub fn neighbours(
    status: &Status,
    netns: &Netns,
    others: &BTreeSet<PathBuf>,
) -> Result<Vec<Neighbour>, DatapathError> {
    let names: HashMap<u32, String> = loaded_programs()
        .filter_map(Result::ok)
        .map(|program| (program.id(), program.name_as_str().unwrap_or_default().to_owned()))
        .collect();
    let name_of = |id: u32| names.get(&id).cloned().unwrap_or_default();
    let mut found = Vec::new();
    for hook in &status.hooks {
        let (Some(ours), Some(id)) = (hook.program, hook.cgroup) else { continue };
        let Some((name, attach)) = CGROUP_HOOKS.iter().find(|(name, _)| *name == hook.name) else { continue };
        let Some(cgroup) = folder_of(id)? else { continue };
        let below = others.iter().filter(|other| other.starts_with(&cgroup));
        let mut beside = BTreeMap::new();
        for folder in below.chain([&cgroup]) {
            let programs = query(folder, *attach)?;
            let place = programs.iter().position(|program| *program == ours).unwrap_or(0);
            beside.extend((0..).zip(programs).map(|(index, program)| (program, index < place)));
        }
        beside.remove(&ours);
        for (program, runs_before) in beside {
            found.push(Neighbour { hook: name, program, name: name_of(program), runs_before });
        }
    }
    let steering = query(netns.path(), AttachType::SkLookup)?;
    for (index, program) in steering.iter().enumerate().filter(|(_, program)| name_of(**program) != "steer") {
        let ours = steering.iter().position(|program| name_of(*program) == "steer").unwrap_or(0);
        found.push(Neighbour {
            hook: "steer",
            program: *program,
            name: name_of(*program),
            runs_before: index < ours,
        });
    }
    Ok(found)
}

/// Programs that run for a hook, in their order.
fn query(target: &Path, attach: AttachType) -> Result<Vec<u32>, DatapathError> {
    let failed = |source| DatapathError::State { folder: target.to_owned(), source };
    sys::effective_programs(&File::open(target).map_err(failed)?, attach).map_err(failed)
}

/// The folder of the cgroup with an id; none if it is gone.
pub fn folder_of(id: u64) -> Result<Option<PathBuf>, DatapathError> {
    let mut folders = vec![cgroup::mount_point()?];
    while let Some(folder) = folders.pop() {
        // Cgroups come and go while we look.
        let Ok(metadata) = fs::metadata(&folder) else { continue };
        if metadata.ino() == id {
            return Ok(Some(folder));
        }
        let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
        folders.extend(
            entries
                .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                .map(|entry| entry.path()),
        );
    }
    Ok(None)
}
