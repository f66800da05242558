//! Every program loaded and none attached, to hear what the kernel says to each.

use std::path::Path;

use super::{
    DatapathError,
    object::{CGROUP_HOOKS, Object, STEER},
    release::remove_all,
    state::State,
};

/// What the kernel said to one program.
#[derive(Debug)]
pub struct Loading {
    /// Name of the program.
    pub program: &'static str,
    /// How many instructions the verifier followed, over all ways through the program (Linux 5.16 tells); or its refusal.
    pub outcome: Result<Option<u32>, DatapathError>,
}

/// Loads every program. `folder` must lie on a bpffs and not be one that is in force; it is made and removed.
pub fn rehearse(folder: &Path) -> Result<Vec<Loading>, DatapathError> {
    let state = State::create(folder)?;
    let loadings = Object::open(&state.maps(), 0).map(|mut object| {
        let hooks = CGROUP_HOOKS.iter().map(|(name, _)| *name).chain([STEER]);
        hooks.map(|program| Loading { program, outcome: object.load_counting(program) }).collect()
    });
    remove_all(&state)?;
    loadings
}
