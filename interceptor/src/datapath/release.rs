//! Taking workloads out of interception, and everything out of the kernel.

use std::{fs, io, path::Path};

use interceptor_ebpf::abi::Label;

use super::{
    DatapathError, attach::remove_pin, maps::Maps, marked::Marked, rights, state::State, status::path_of,
    tenure,
};
use crate::{netns::Netns, routes};

/// Takes a workload out of interception. Connections already redirected go on, but for IPv6 ones: the addresses they
/// were spread to are no longer local.
pub fn release(state: &Path, netns: &Netns) -> Result<(), DatapathError> {
    if take_out(state, netns.cookie()?, Some(netns))? {
        Ok(())
    } else {
        Err(DatapathError::NotEnrolled { path: netns.path().to_owned() })
    }
}

/// Takes the workload with this cookie out of interception, whether its namespace still exists or not. Returns whether
/// it was under interception.
pub fn release_cookie(state: &Path, workload: u64) -> Result<bool, DatapathError> {
    take_out(state, workload, None)
}

fn take_out(state: &Path, workload: u64, netns: Option<&Netns>) -> Result<bool, DatapathError> {
    rights::check()?;
    let Some(state) = State::open(state)?.filter(State::is_installed) else { return Ok(false) };
    let steering = state.steering(workload);
    let mut maps = Maps::open(&state.maps())?;
    if !maps.all()?.contains(&workload) && !steering.exists() {
        return Ok(false);
    }
    release_workload(&mut maps, workload, netns)?;
    remove_pin(&steering)?;
    Ok(true)
}

/// Takes a workload out of the maps, and what was added for it out of its namespace, which is searched for if not given.
fn release_workload(maps: &mut Maps, workload: u64, netns: Option<&Netns>) -> Result<(), DatapathError> {
    let label = maps.label(workload)?;
    let was = maps.workload(workload)?;
    maps.remove(workload)?;
    let find = |label: Label| Netns::find(workload, label.inode, Path::new(&path_of(&label)));
    let found = if netns.is_none() { label.and_then(find) } else { None };
    if let Some(netns) = netns.or(found.as_ref()) {
        netns.run(routes::remove_local_ipv6)??;
        if let Some((was, marked)) = was.and_then(|was| Some((was, Marked::noted(&was)?))) {
            marked.remove(netns, was.switched_on)?;
        }
    }
    Ok(())
}

/// Takes every workload out and removes all hooks, maps and folders. Does nothing where nothing is installed.
/// Returns whether there was something.
pub fn uninstall(state: &Path) -> Result<bool, DatapathError> {
    let Some(state) = State::open_any(state)? else { return Ok(false) };
    rights::check()?;
    if let Some(pid) = tenure::holder(&state)? {
        return Err(DatapathError::AgentRuns { folder: state.folder().to_owned(), pid });
    }
    release_all(&state)?;
    remove_all(&state)?;
    Ok(true)
}

/// Takes every workload out. The kernel detaches a link some time after its last pin is gone; without a workload the
/// hooks let everything pass from now on. A state that was never finished has no maps, and no workload.
fn release_all(state: &State) -> Result<(), DatapathError> {
    let Ok(mut maps) = Maps::open(&state.maps()) else { return Ok(()) };
    for workload in maps.all()? {
        release_workload(&mut maps, workload, None)?;
    }
    Ok(())
}

/// Removes everything if no workload is left: a failed first enrolment leaves nothing behind.
pub(super) fn remove_if_unused(state: &State) -> Result<(), DatapathError> {
    let used = fs::read_dir(state.workloads()).is_ok_and(|mut pins| pins.next().is_some());
    if used {
        return Ok(());
    }
    // An agent holds a folder of the state by its lock; what it holds must stay the one there is.
    if tenure::holder(state)?.is_some() { remove_folder(&state.version()) } else { remove_all(state) }
}

pub(super) fn remove_all(state: &State) -> Result<(), DatapathError> {
    // Links go first, so that no program runs without its maps.
    for folder in [state.links(), state.workloads()] {
        remove_folder(&folder)?;
    }
    remove_folder(state.folder())
}

/// Removes a folder of pins with everything in it.
pub(super) fn remove_folder(folder: &Path) -> Result<(), DatapathError> {
    match fs::remove_dir_all(folder) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(DatapathError::State { folder: folder.to_owned(), source })
        }
        _ => Ok(()),
    }
}
