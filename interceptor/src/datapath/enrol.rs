//! Putting workloads under interception and taking them out.

use std::{
    fs, io,
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use interceptor_ebpf::abi::{Label, Workload};
use nix::net::if_::if_nameindex;

use super::{
    DatapathError, Enforcement, Interfaces, PolicyTable, adopt,
    maps::Maps,
    marked::Marked,
    object::{CGROUP_HOOKS, STEER},
    repair, rights,
    state::State,
    status::path_of,
    sys::{self, AttachType},
    tenure,
    upgrade::{Build, Verified, remember, remember_first, upgrade},
};
use crate::{
    capture::Capture,
    cgroup::Cgroup,
    netns::Netns,
    routes::{self, Route},
};

/// What to enrol, and how.
#[derive(Debug)]
pub struct Enrolment<'a> {
    /// The state folder.
    pub state: &'a Path,
    /// The namespace.
    pub netns: &'a Netns,
    /// Where the hooks are attached if they are not yet; the root of the hierarchy if not given.
    pub cgroup: Option<&'a Path>,
    /// What to intercept.
    pub capture: &'a Capture,
    /// Whether to spread redirected destinations over addresses of their own.
    pub spread: bool,
    /// Whether a connection passes that cannot be redirected, instead of being refused.
    pub bypass_on_error: bool,
    /// Whether to search for listeners of the proxy that the programs have not seen.
    pub listeners: Listeners,
}

/// Whether to search every process for listeners of the proxy that are older than the interception.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listeners {
    /// Always.
    Search,
    /// Only if there can be any: the workload or its ports are new, or the programs just came.
    Known,
}

/// What enrolling did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Cookie of the namespace.
    pub workload: u64,
    /// Whether it was new, or other than before, or the same.
    pub change: Change,
    /// A sentence for each part of the capture that could not be enforced.
    pub shortfalls: Vec<String>,
}

/// What enrolling changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The workload was not under interception.
    New,
    /// Its capture or its routes were others.
    Changed,
    /// Everything was in place already.
    None,
}

/// Puts a workload under interception, or changes its capture. On failure everything is as before.
///
/// Programs of another build are replaced first, inside their links. `verified` is what the calling process knows of
/// them from earlier calls.
pub fn enrol(enrolment: &Enrolment<'_>, verified: &mut Verified) -> Result<Outcome, DatapathError> {
    check_reach(enrolment.capture)?;
    rights::check()?;
    let workload = enrolment.netns.cookie()?;
    let cgroup = match enrolment.cgroup {
        Some(path) => Cgroup::open(path)?,
        None => Cgroup::root()?,
    };

    let state = State::create(enrolment.state)?;
    let result = enrol_locked(&state, enrolment, workload, &cgroup, verified);
    if result.is_err() {
        forget_unless_enrolled(&state, workload)?;
        remove_if_unused(&state)?;
    }
    result
}

/// Refuses a capture that asks for what eBPF at the socket cannot do.
pub fn check_reach(capture: &Capture) -> Result<(), DatapathError> {
    let refuse = |option, reason| Err(DatapathError::OutOfReach { option, reason });
    if !capture.rerouted_interfaces.is_empty() {
        return refuse(
            "--kube-virt-interfaces",
            "traffic of a virtual machine is forwarded and passes no socket of the workload",
        );
    }
    Ok(())
}

fn enrol_locked(
    state: &State,
    enrolment: &Enrolment<'_>,
    workload: u64,
    cgroup: &Cgroup,
    verified: &mut Verified,
) -> Result<Outcome, DatapathError> {
    let mut undo = Undo::of(enrolment.netns);
    let mut build = Build::new(state, workload);
    let mut changed = make_maps(state, &mut build)?;
    let mut maps = Maps::open(&state.maps())?;
    changed |= upgrade(state, &mut build, verified, |_, _| {})? > 0;
    let attached = attach_hooks(state, &mut build, cgroup, enrolment.cgroup.is_some(), &mut undo)?;
    changed |= attached;
    if attach_steering(state, enrolment.netns, workload, &mut build)? {
        undo.pins.push(state.steering(workload));
        changed = true;
    }
    let before = maps.workload(workload)?;
    let has_ipv6 = enrolment.capture.ipv6 && enrolment.netns.run(routes::add_local_ipv6)??;
    let spread_v6 = enrolment.spread && has_ipv6;
    undo.local_ipv6 = has_ipv6 && before.is_none();
    let marked = Marked::of(enrolment.capture);
    let marked_before = before.as_ref().and_then(Marked::noted);
    let added = marked.map_or(Ok(0), |marked| marked.add(enrolment.netns, enrolment.capture.ipv6))?;
    undo.marked = marked.filter(|_| marked != marked_before).map(|marked| (marked, added));
    let switched_on = added | before.map_or(0, |before| before.switched_on);
    let View { routes, interfaces, mut shortfalls } = View::of(enrolment.netns, enrolment.capture)?;
    let enforcement = Enforcement {
        spread_v4: enrolment.spread,
        spread_v6,
        bypass_on_error: enrolment.bypass_on_error,
        switched_on: if marked.is_some() { switched_on } else { 0 },
    };
    let table = PolicyTable::build(enrolment.capture, &routes, &interfaces, enforcement);
    maps.register(workload, &label(enrolment.netns)?)?;
    // Before the switch, so that no connection finds the proxy without its listeners; and after it, because one that
    // began to listen in between was neither there nor seen by a program.
    let adopt = || match enrolment.listeners {
        Listeners::Known
            if !attached && before.is_some_and(|before| same_ports(&before, table.workload())) =>
        {
            Ok(Vec::new())
        }
        Listeners::Known | Listeners::Search => {
            adopt::listeners(&state.maps(), enrolment.netns, workload, table.workload())
        }
    };
    adopt()?;
    if before.is_none_or(|before| before != *table.workload()) {
        // With this the workload is under the whole capture at once.
        maps.set_table(workload, &table)?;
        changed = true;
    }
    undo.keep();
    if let Some(unused) = marked_before.filter(|_| marked != marked_before) {
        unused.remove(enrolment.netns, if marked.is_some() { 0 } else { switched_on })?;
    }
    if enrolment.capture.ipv6 && !has_ipv6 {
        shortfalls.push(
            "the namespace has IPv6 switched off on lo: redirected IPv6 connections will fail".to_owned(),
        );
    }
    shortfalls.extend(adopt()?);
    let change = match (before, changed) {
        (None, _) => Change::New,
        (Some(_), true) => Change::Changed,
        (Some(_), false) => Change::None,
    };
    Ok(Outcome { workload, change, shortfalls })
}

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

/// What a namespace looks like from inside.
struct View {
    routes: Vec<Route>,
    interfaces: Interfaces,
    shortfalls: Vec<String>,
}

impl View {
    fn of(netns: &Netns, capture: &Capture) -> Result<Self, DatapathError> {
        netns.run(|| {
            let existing = if_nameindex().map_err(|errno| DatapathError::Interfaces { source: errno.into() })?;
            let mut shortfalls = Vec::new();
            let mut indices = |names: &[String]| {
                let mut indices = Vec::new();
                for name in names {
                    let before = indices.len();
                    let named = existing.iter().filter(|interface| is_named(&interface.name().to_string_lossy(), name));
                    indices.extend(named.map(nix::net::if_::Interface::index));
                    if indices.len() == before {
                        shortfalls.push(format!(
                            "the namespace has no interface {name}: what is said of it counts only once it exists \
                             and apply is run again"
                        ));
                    }
                }
                indices
            };
            let interfaces = Interfaces {
                excluded: indices(&capture.excluded_interfaces),
                rerouted: indices(&capture.rerouted_interfaces),
            };
            Ok(Self { routes: routes::read()?, interfaces, shortfalls })
        })?
    }
}

/// Whether an interface is meant by a name as iptables reads it: a final `+` stands for any ending.
fn is_named(interface: &str, name: &str) -> bool {
    name.strip_suffix('+').map_or_else(|| interface == name, |beginning| interface.starts_with(beginning))
}

/// What to undo unless everything succeeds.
struct Undo<'a> {
    netns: &'a Netns,
    pins: Vec<PathBuf>,
    local_ipv6: bool,
    marked: Option<(Marked, u32)>,
}

impl<'a> Undo<'a> {
    fn of(netns: &'a Netns) -> Self {
        Self { netns, pins: Vec::new(), local_ipv6: false, marked: None }
    }

    /// Everything succeeded.
    fn keep(&mut self) {
        self.pins.clear();
        self.local_ipv6 = false;
        self.marked = None;
    }
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        // The error that led here is the one to report.
        for pin in &self.pins {
            let _unreported = fs::remove_file(pin);
        }
        if self.local_ipv6 {
            let _unreported = self.netns.run(routes::remove_local_ipv6);
        }
        if let Some((marked, switched_on)) = self.marked {
            let _unreported = marked.remove(self.netns, switched_on);
        }
    }
}

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

fn same_ports(before: &Workload, now: &Workload) -> bool {
    (before.outbound_port, before.inbound_port, before.dns_port)
        == (now.outbound_port, now.inbound_port, now.dns_port)
}

/// Attaches the cgroup hooks that are not attached yet. Returns whether there were any.
fn attach_hooks(
    state: &State,
    build: &mut Build,
    cgroup: &Cgroup,
    cgroup_was_given: bool,
    undo: &mut Undo<'_>,
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
        undo.pins.push(pin);
        changed = true;
    }
    Ok(changed)
}

fn attach_and_pin(
    name: &'static str,
    program: std::os::fd::BorrowedFd<'_>,
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

/// Takes every workload out. The kernel detaches a link some time after its last pin is gone; without a workload the
/// hooks let everything pass from now on. A state that was never finished has no maps, and no workload.
fn release_all(state: &State) -> Result<(), DatapathError> {
    let Ok(mut maps) = Maps::open(&state.maps()) else { return Ok(()) };
    for workload in maps.all()? {
        release_workload(&mut maps, workload, None)?;
    }
    Ok(())
}

/// Removes what a failed enrolment may have noted of a workload that was not under interception before.
fn forget_unless_enrolled(state: &State, workload: u64) -> Result<(), DatapathError> {
    let Ok(mut maps) = Maps::open(&state.maps()) else { return Ok(()) };
    if maps.workload(workload)?.is_none() {
        maps.remove(workload)?;
    }
    Ok(())
}

/// Removes everything if no workload is left: a failed first enrolment leaves nothing behind.
fn remove_if_unused(state: &State) -> Result<(), DatapathError> {
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

fn label(netns: &Netns) -> Result<Label, DatapathError> {
    let path = netns.path().to_string_lossy();
    let bytes = path.as_bytes();
    let mut label = Label {
        inode: netns
            .inode()
            .map_err(|source| DatapathError::State { folder: netns.path().to_owned(), source })?,
        path: [0; 248],
    };
    let kept = &bytes[bytes.len().saturating_sub(label.path.len())..];
    label.path[..kept.len()].copy_from_slice(kept);
    Ok(label)
}
