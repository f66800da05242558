//! Maps made, programs attached, links pinned: each only if it is not there yet.

use std::{
    fs, io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use super::{
    DatapathError,
    object::{CGROUP_HOOKS, STEER},
    repair,
    state::State,
    sys::{self, AttachType},
    upgrade::{Build, remember, remember_first},
};
use crate::{cgroup::Cgroup, netns::Netns};

/// Makes the maps that are not there, or pins them again if only their pins are gone. Returns whether there were any.
pub(super) fn make_maps(state: &State, build: &mut Build) -> Result<bool, DatapathError> {
    let mended = repair::maps(state)?;
    if repair::is_whole(state)? {
        return Ok(!mended.is_empty());
    }
    build.object()?;
    Ok(true)
}

/// Attaches a workload's steering program if it is not attached yet. Returns whether it was not.
pub(super) fn attach_steering(
    state: &State,
    netns: &Netns,
    workload: u64,
    build: &mut Build,
) -> Result<bool, DatapathError> {
    let pin = state.steering(workload);
    if is_steering(&pin, netns)? {
        return Ok(false);
    }
    let program = build.object()?.load_steering()?;
    attach_and_pin(STEER, program, netns.file(), netns.path(), AttachType::SkLookup, &pin)?;
    remember_first(state, STEER, program)?;
    Ok(true)
}

/// Attaches the cgroup hooks that are not attached yet, and adds their pins to `pins`. Returns whether there were any.
pub(super) fn attach_hooks(
    state: &State,
    build: &mut Build,
    cgroup: &Cgroup,
    cgroup_was_given: bool,
    pins: &mut Vec<PathBuf>,
) -> Result<bool, DatapathError> {
    let mut changed = false;
    let wanted =
        cgroup.id().map_err(|source| DatapathError::State { folder: cgroup.path().to_owned(), source })?;
    for (name, attach) in CGROUP_HOOKS {
        let pin = state.links().join(name);
        if let Some(link) = existing_link(&pin)? {
            if cgroup_was_given && link.attached_to != wanted {
                return Err(DatapathError::OtherCgroup {
                    folder: state.folder().to_owned(),
                    cgroup: cgroup.path().to_owned(),
                });
            }
            continue;
        }
        let program = build.object()?.load_hook(name)?;
        attach_and_pin(name, program, cgroup.file(), cgroup.path(), attach, &pin)?;
        remember(state, name, program)?;
        pins.push(pin);
        changed = true;
    }
    Ok(changed)
}

fn attach_and_pin(
    name: &'static str,
    program: BorrowedFd<'_>,
    target: &fs::File,
    target_path: &Path,
    attach: AttachType,
    pin: &Path,
) -> Result<(), DatapathError> {
    let attach_and_pin = || -> io::Result<()> {
        let link: OwnedFd = sys::create_link(program, target, attach)?;
        sys::pin(link.as_fd(), pin)
    };
    attach_and_pin().map_err(|source| DatapathError::Attach { name, target: target_path.to_owned(), source })
}

/// Whether the workload's steering link is in place. One whose namespace is gone is removed.
fn is_steering(pin: &Path, netns: &Netns) -> Result<bool, DatapathError> {
    let failed = |source| DatapathError::State { folder: pin.to_owned(), source };
    let Some(link) = existing_link(pin)? else { return Ok(false) };
    if link.attached_to == netns.inode().map_err(failed)? {
        return Ok(true);
    }
    remove_pin(pin)?;
    Ok(false)
}

pub(super) fn existing_link(pin: &Path) -> Result<Option<sys::LinkInfo>, DatapathError> {
    let failed = |source| DatapathError::State { folder: pin.to_owned(), source };
    match sys::open_pin(pin) {
        Ok(link) => sys::link_info(link.as_fd()).map(Some).map_err(failed),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

pub(super) fn remove_pin(pin: &Path) -> Result<(), DatapathError> {
    match fs::remove_file(pin) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(DatapathError::State { folder: pin.to_owned(), source })
        }
        _ => Ok(()),
    }
}
