//! Bringing what is in force up to this build.
//!
//! A program is replaced inside its pinned link, so that there is no instant without one. Whether it must be is told by
//! its tag, which is the kernel's digest of its instructions, and by the maps it uses: those of a program whose map's pin
//! was removed are not the pinned ones any more. Constants (`.rodata`) are not part of a tag; ours depend on the kernel
//! and the workload alone.
//!
//! The kernel tells a tag only of a loaded program, and verifying takes it long. So programs found to be this build's are
//! pinned once more, under its digest: a link with one of these needs no comparison by this or any later process.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::fd::{AsFd as _, BorrowedFd},
    path::{Path, PathBuf},
};

use aya::{maps::MapInfo, programs::ProgramInfo};

use super::{
    DatapathError,
    attach::remove_pin,
    object::{CGROUP_HOOKS, Object, STEER, digest},
    release::remove_folder,
    state::{self, State},
    sys,
};

/// What this process found out about the programs in force, so that it need not load its own again to compare.
#[derive(Debug, Default)]
pub struct Verified {
    /// Ids of programs in cgroup links that are this build's, by hook.
    hooks: BTreeMap<&'static str, u32>,
    /// Tag of this build's steering program.
    steering: Option<[u8; 8]>,
    /// Whether the steering programs of all workloads were compared.
    all_steering: bool,
}

/// This build's object, opened when it is first needed: that takes longer than everything else.
pub(super) struct Build {
    maps: PathBuf,
    workload: u64,
    object: Option<Object>,
}

impl Build {
    pub(super) fn new(state: &State, workload: u64) -> Self {
        Self { maps: state.maps(), workload, object: None }
    }

    pub(super) fn object(&mut self) -> Result<&mut Object, DatapathError> {
        match &mut self.object {
            Some(object) => Ok(object),
            none => Ok(none.insert(Object::open(&self.maps, self.workload)?)),
        }
    }
}

/// Replaces every program in force that is not this build's. Returns how many there were.
///
/// `step` is called with the number of links done and of all.
pub(super) fn upgrade(
    state: &State,
    build: &mut Build,
    verified: &mut Verified,
    mut step: impl FnMut(usize, usize),
) -> Result<usize, DatapathError> {
    let mut replaced = 0;
    if !verified.all_steering {
        let workloads = steered(state)?;
        for (done, workload) in workloads.iter().enumerate() {
            step(done, workloads.len());
            let mut build = Build::new(state, *workload);
            replaced += usize::from(steering(state, *workload, &mut build, verified)?);
        }
        step(workloads.len(), workloads.len());
        verified.all_steering = true;
    }
    for (name, _) in CGROUP_HOOKS {
        replaced += usize::from(hook(state, name, build, verified)?);
    }
    Ok(replaced)
}

/// Replaces the program of a workload's steering link if it is another build's. False also if there is no link.
pub(super) fn steering(
    state: &State,
    workload: u64,
    build: &mut Build,
    verified: &mut Verified,
) -> Result<bool, DatapathError> {
    let pin = state.steering(workload);
    let Some((link, program)) = in_force(&pin)? else { return Ok(false) };
    let failed = |source| DatapathError::Upgrade { pin: pin.clone(), source };
    if verified.steering.is_none() {
        let known = if let Some(known) = of_this_build(state, STEER)? {
            known
        } else {
            let own = build.object()?.load_steering()?;
            remember(state, STEER, own)?;
            sys::program_info(own).map_err(failed)?
        };
        verified.steering = Some(known.tag);
    }
    if verified.steering == Some(program.tag) && uses_pinned_maps(state, &program)? {
        return Ok(false);
    }
    replace(&link, build.object()?.load_steering()?).map_err(failed)?;
    Ok(true)
}

/// Replaces the program of a cgroup hook's link if it is another build's. False also if there is no link.
fn hook(
    state: &State,
    name: &'static str,
    build: &mut Build,
    verified: &mut Verified,
) -> Result<bool, DatapathError> {
    let pin = state.links().join(name);
    let Some((link, program)) = in_force(&pin)? else { return Ok(false) };
    if verified.hooks.get(name) == Some(&program.id) {
        return Ok(false);
    }
    let has_maps = uses_pinned_maps(state, &program)?;
    if has_maps && of_this_build(state, name)?.is_some_and(|known| known.id == program.id) {
        verified.hooks.insert(name, program.id);
        return Ok(false);
    }
    let failed = |source| DatapathError::Upgrade { pin: pin.clone(), source };
    let own = build.object()?.load_hook(name)?;
    let new = sys::program_info(own).map_err(failed)?;
    if has_maps && new.tag == program.tag {
        remember(state, name, sys::open_program(program.id).map_err(failed)?.as_fd())?;
        verified.hooks.insert(name, program.id);
        return Ok(false);
    }
    replace(&link, own).map_err(failed)?;
    remember(state, name, own)?;
    verified.hooks.insert(name, new.id);
    Ok(true)
}

/// The program of this name that is known to be this build's.
fn of_this_build(state: &State, name: &str) -> Result<Option<sys::ProgramInfo>, DatapathError> {
    let pin = folder_of_build(state).join(name);
    let failed = |source| DatapathError::State { folder: pin.clone(), source };
    match sys::open_pin(&pin) {
        Ok(program) => sys::program_info(program.as_fd()).map(Some).map_err(failed),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

/// Pins a program as one of this build's, and forgets those of others.
pub(super) fn remember(state: &State, name: &str, program: BorrowedFd<'_>) -> Result<(), DatapathError> {
    let own = folder_of_build(state);
    if !own.exists() {
        remove_folder(&state.programs())?;
        state::make(&own)?;
    }
    let pin = own.join(name);
    remove_pin(&pin)?;
    sys::pin(program, &pin).map_err(|source| DatapathError::State { folder: pin, source })
}

/// How many instructions the verifier followed in a program of this build, over all ways through it: none if the program
/// is not in force, or the kernel does not tell (before Linux 5.16).
pub(super) fn verified_instructions(state: &State, name: &str) -> Option<u32> {
    ProgramInfo::from_pin(folder_of_build(state).join(name)).ok()?.verified_instruction_count()
}

/// Pins a program as this build's unless one of this name is already.
pub(super) fn remember_first(
    state: &State,
    name: &str,
    program: BorrowedFd<'_>,
) -> Result<(), DatapathError> {
    if folder_of_build(state).join(name).exists() { Ok(()) } else { remember(state, name, program) }
}

fn folder_of_build(state: &State) -> PathBuf {
    state.programs().join(format!("{:016x}", digest()))
}

/// A pinned link, and the program in it. None if there is no pin.
pub(super) fn in_force(
    pin: &Path,
) -> Result<Option<(std::os::fd::OwnedFd, sys::ProgramInfo)>, DatapathError> {
    let link = match sys::open_pin(pin) {
        Ok(link) => link,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(DatapathError::State { folder: pin.to_owned(), source }),
    };
    let program = || {
        let program = sys::open_program(sys::link_info(link.as_fd())?.program)?;
        sys::program_info(program.as_fd())
    };
    let program = program().map_err(|source| DatapathError::State { folder: pin.to_owned(), source })?;
    Ok(Some((link, program)))
}

/// The workloads that have a steering link.
pub(super) fn steered(state: &State) -> Result<Vec<u64>, DatapathError> {
    let failed = |source| DatapathError::State { folder: state.workloads(), source };
    let mut workloads = Vec::new();
    for entry in fs::read_dir(state.workloads()).map_err(failed)? {
        workloads
            .extend(entry.map_err(failed)?.file_name().to_str().and_then(|name| name.parse::<u64>().ok()));
    }
    workloads.sort_unstable();
    Ok(workloads)
}

fn replace(link: &std::os::fd::OwnedFd, program: BorrowedFd<'_>) -> io::Result<()> {
    match sys::update_link(link.as_fd(), program) {
        // The namespace is going: there is nothing to steer any more, and collecting removes the link.
        Err(error) if error.raw_os_error() == Some(nix::libc::ENOLINK) => Ok(()),
        result => result,
    }
}

/// Whether every map the program uses is the one pinned under its name.
fn uses_pinned_maps(state: &State, program: &sys::ProgramInfo) -> Result<bool, DatapathError> {
    let failed = |action| move |source| DatapathError::Map { action, source: Box::new(source) };
    let folder = state.maps();
    let mut pinned = BTreeSet::new();
    let entries =
        fs::read_dir(&folder).map_err(|source| DatapathError::State { folder: folder.clone(), source })?;
    for entry in entries.flatten() {
        pinned.insert(MapInfo::from_pin(entry.path()).map_err(failed("read a pinned map"))?.id());
    }
    for id in &program.maps {
        let map = MapInfo::from_id(*id).map_err(failed("read a program's map"))?;
        if !is_constants(&map) && !pinned.contains(id) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether it is a program's `.rodata`, which belongs to the program and is not pinned.
pub(super) fn is_constants(map: &MapInfo) -> bool {
    map.name_as_str().is_none_or(|name| name.contains(".rodata"))
}
