//! Mending a state folder from which somebody removed pins.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use aya::maps::{MapData, MapInfo};

use super::{DatapathError, object::CGROUP_HOOKS, state::State, upgrade};

/// Pins again every map whose pin is gone while programs in force still use it. Returns the pins made.
///
/// Without this, new programs would get an empty map of that name and the old ones would keep theirs.
pub(super) fn maps(state: &State) -> Result<Vec<PathBuf>, DatapathError> {
    let failed = |source| DatapathError::Map { action: "find the maps in use", source: Box::new(source) };
    let mut mended = Vec::new();
    if is_whole(state)? {
        return Ok(mended);
    }
    let links = CGROUP_HOOKS.iter().map(|(name, _)| state.links().join(name));
    let steering = upgrade::steered(state)?.into_iter().map(|workload| state.steering(workload));
    for link in links.chain(steering) {
        let Some((_, program)) = upgrade::in_force(&link)? else { continue };
        for id in program.maps {
            let info = MapInfo::from_id(id).map_err(failed)?;
            let Some(name) = info.name_as_str().filter(|_| !upgrade::is_constants(&info)) else { continue };
            let pin = state.maps().join(name);
            if exists(&pin)? {
                continue;
            }
            let data = MapData::from_id(id).map_err(failed)?;
            data.pin(&pin).map_err(|error| DatapathError::State {
                folder: pin.clone(),
                source: io::Error::other(error.to_string()),
            })?;
            mended.push(pin);
        }
    }
    Ok(mended)
}

/// Whether every map has its pin.
pub(super) fn is_whole(state: &State) -> Result<bool, DatapathError> {
    for map in super::maps::PINNED {
        if !exists(&state.maps().join(map))? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn exists(pin: &Path) -> Result<bool, DatapathError> {
    match fs::symlink_metadata(pin) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(DatapathError::State { folder: pin.to_owned(), source }),
    }
}
