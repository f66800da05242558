//! Putting workloads under interception.

use std::{
    fs,
    path::{Path, PathBuf},
};

use interceptor_ebpf::abi::{Label, Workload};

use super::{
    DatapathError, Enforcement, PolicyTable, adopt,
    attach::{attach_hooks, attach_steering, make_maps},
    maps::Maps,
    marked::Marked,
    release::remove_if_unused,
    rights,
    state::State,
    upgrade::{Build, Verified, upgrade},
    view::View,
};
use crate::{capture::Capture, cgroup::Cgroup, netns::Netns, routes};

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
    let attached = attach_hooks(state, &mut build, cgroup, enrolment.cgroup.is_some(), &mut undo.pins)?;
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

fn same_ports(before: &Workload, now: &Workload) -> bool {
    (before.outbound_port, before.inbound_port, before.dns_port)
        == (now.outbound_port, now.inbound_port, now.dns_port)
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

/// Removes what a failed enrolment may have noted of a workload that was not under interception before.
fn forget_unless_enrolled(state: &State, workload: u64) -> Result<(), DatapathError> {
    let Ok(mut maps) = Maps::open(&state.maps()) else { return Ok(()) };
    if maps.workload(workload)?.is_none() {
        maps.remove(workload)?;
    }
    Ok(())
}
