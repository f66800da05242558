//! Looking after a state folder: dead workloads are collected, missing pins mended, programs brought up to this build.

use std::{collections::BTreeSet, path::Path};

use super::{
    DatapathError,
    attach::{attach_steering, existing_link, make_maps, remove_pin},
    maps::Maps,
    rights,
    state::State,
    upgrade::{Build, Verified, steered, upgrade},
};
use crate::netns::Netns;

/// A workload that something was found out about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Cookie of its namespace.
    pub workload: u64,
    /// Path it was enrolled by; empty if that is not known any more.
    pub netns: String,
}

/// What looking after a state folder did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tended {
    /// Programs replaced by this build's.
    pub upgraded: usize,
    /// Workloads removed because their namespace is gone.
    pub gone: Vec<Found>,
    /// Workloads whose arriving connections are steered again.
    pub mended: Vec<Found>,
    /// Workloads whose arriving connections are not steered, because their namespace cannot be found.
    pub lost: Vec<Found>,
}

/// Looks after a state folder. `step` is called with the number of links compared and of all.
pub fn tend(
    folder: &Path,
    verified: &mut Verified,
    step: impl FnMut(usize, usize),
) -> Result<Tended, DatapathError> {
    let mut tended = Tended::default();
    let Some(state) = State::open(folder)? else { return Ok(tended) };
    if !state.is_installed() {
        return Ok(tended);
    }
    rights::check()?;
    let mut build = Build::new(&state, 0);
    let workloads = steered(&state)?;
    make_maps(&state, &mut build)?;
    let mut maps = Maps::open(&state.maps())?;
    let enrolled: BTreeSet<u64> = maps.all()?.into_iter().collect();
    for workload in workloads {
        let pin = state.steering(workload);
        let is_alive = existing_link(&pin)?.is_some_and(|link| link.attached_to != 0);
        if is_alive && enrolled.contains(&workload) {
            continue;
        }
        // A link without a table is what a command left that was killed before it enrolled, or while it released.
        if !is_alive {
            tended.gone.push(Found { workload, netns: name(&maps, workload)? });
        }
        maps.remove(workload)?;
        remove_pin(&pin)?;
    }
    for workload in enrolled {
        if existing_link(&state.steering(workload))?.is_none()
            && !tended.gone.iter().any(|gone| gone.workload == workload)
        {
            mend_steering(&state, &maps, workload, &mut tended)?;
        }
    }
    tended.upgraded = upgrade(&state, &mut build, verified, step)?;
    Ok(tended)
}

/// Steers a workload's arriving connections again, if its namespace can be found.
fn mend_steering(
    state: &State,
    maps: &Maps,
    workload: u64,
    tended: &mut Tended,
) -> Result<(), DatapathError> {
    let found = Found { workload, netns: name(maps, workload)? };
    let inode = maps.label(workload)?.map_or(0, |label| label.inode);
    match Netns::find(workload, inode, Path::new(&found.netns)) {
        Some(netns) => {
            attach_steering(state, &netns, workload, &mut Build::new(state, workload))?;
            tended.mended.push(found);
        }
        None => tended.lost.push(found),
    }
    Ok(())
}

fn name(maps: &Maps, workload: u64) -> Result<String, DatapathError> {
    let label = maps.label(workload)?;
    Ok(label.map(|label| super::status::path_of(&label)).unwrap_or_default())
}
