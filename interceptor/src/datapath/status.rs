//! What is in force: hooks, workloads, counters.

use std::path::{Path, PathBuf};

use interceptor_ebpf::abi::{Label, Switches, Workload};
use serde::Serialize;

use super::{
    DatapathError, PolicyTable,
    attach::existing_link,
    maps::Maps,
    object::{CGROUP_HOOKS, STEER},
    rights,
    state::State,
    upgrade::verified_instructions,
};

/// Everything in force under one state folder.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Status {
    /// The state folder.
    pub state: PathBuf,
    /// The cgroup hooks.
    pub hooks: Vec<HookStatus>,
    /// How many instructions the verifier followed in the program that steers arriving connections.
    pub steering_instructions: Option<u32>,
    /// The workloads.
    pub workloads: Vec<WorkloadStatus>,
    /// Redirected connections that wait for the proxy's socket.
    pub pending: usize,
}

/// One cgroup hook.
#[derive(Clone, Debug, Serialize)]
pub struct HookStatus {
    /// Its program.
    pub name: &'static str,
    /// Whether it is attached.
    pub attached: bool,
    /// Id of its link.
    pub link: Option<u32>,
    /// Id of its program.
    pub program: Option<u32>,
    /// Id of the cgroup it is attached to.
    pub cgroup: Option<u64>,
    /// How many instructions the verifier followed, over all ways through the program, as the kernel tells.
    pub verified_instructions: Option<u32>,
}

/// One workload.
#[derive(Clone, Debug, Serialize)]
pub struct WorkloadStatus {
    /// Cookie of its namespace.
    pub cookie: u64,
    /// Path its namespace was enrolled by.
    pub netns: String,
    /// Inode of its namespace.
    pub inode: u64,
    /// Whether its namespace still exists and arriving connections are steered.
    pub steered: bool,
    /// Port of the outbound listener.
    pub outbound_port: u16,
    /// Port of the inbound listener.
    pub inbound_port: u16,
    /// First user id of the proxy.
    pub proxy_user: Option<u32>,
    /// Whether a connection that cannot be redirected passes instead of being refused.
    pub bypass_on_error: bool,
    /// Connections by reason, only reasons that occurred.
    pub connections: Vec<ReasonCount>,
}

/// How often a reason decided.
#[derive(Clone, Debug, Serialize)]
pub struct ReasonCount {
    /// Name of the reason.
    pub reason: &'static str,
    /// What became of those connections: `REDIRECT`, `RETURN` (it went where it wanted to) or `REJECT`.
    pub target: &'static str,
    /// How often.
    pub count: u64,
}

/// Reads what is in force; an empty status where nothing is installed.
pub fn status(folder: &Path) -> Result<Status, DatapathError> {
    let mut status = Status { state: folder.to_owned(), ..Status::default() };
    let Some(state) = State::open(folder)?.filter(State::is_installed) else { return Ok(status) };
    rights::check()?;
    for (name, _) in CGROUP_HOOKS {
        let link = existing_link(&state.links().join(name))?;
        status.hooks.push(HookStatus {
            name,
            attached: link.is_some(),
            link: link.map(|link| link.id),
            program: link.map(|link| link.program),
            cgroup: link.map(|link| link.attached_to),
            verified_instructions: verified_instructions(&state, name),
        });
    }
    status.steering_instructions = verified_instructions(&state, STEER);
    let maps = Maps::open(&state.maps())?;
    status.pending = maps.pending();
    for cookie in maps.all()? {
        let steered = existing_link(&state.steering(cookie))?.is_some_and(|link| link.attached_to != 0);
        let connections = maps.counts(cookie)?.into_iter().map(|(reason, count)| ReasonCount {
            reason: reason.name(),
            target: reason.target(),
            count,
        });
        let workload = maps.workload(cookie)?.unwrap_or_default();
        status.workloads.push(describe(
            cookie,
            &workload,
            maps.label(cookie)?.as_ref(),
            steered,
            connections.collect(),
        ));
    }
    Ok(status)
}

/// Reads the policy table that is in force for a workload; none if it is not under interception.
pub fn enforced(folder: &Path, workload: u64) -> Result<Option<PolicyTable>, DatapathError> {
    let Some(state) = State::open(folder)?.filter(State::is_installed) else { return Ok(None) };
    rights::check()?;
    Maps::open(&state.maps())?.table(workload)
}

fn describe(
    cookie: u64,
    workload: &Workload,
    label: Option<&Label>,
    steered: bool,
    connections: Vec<ReasonCount>,
) -> WorkloadStatus {
    let netns = label.map(path_of);
    WorkloadStatus {
        cookie,
        netns: netns.unwrap_or_default(),
        inode: label.map_or(0, |label| label.inode),
        steered,
        outbound_port: workload.outbound_port,
        inbound_port: workload.inbound_port,
        proxy_user: workload.switches.any(Switches::PROXY_USERS).then_some(workload.proxy_user),
        bypass_on_error: workload.switches.any(Switches::BYPASS_ON_ERROR),
        connections,
    }
}

/// The path a workload was enrolled by.
pub(super) fn path_of(label: &Label) -> String {
    String::from_utf8_lossy(&label.path).trim_end_matches('\0').to_owned()
}
