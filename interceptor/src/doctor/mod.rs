//! Is interception working here? What a workload, its processes and its neighbours look like, held against what must be;
//! and canaries: connections made to see what becomes of them.

mod canary;
mod hooks;
mod leftovers;
mod processes;
mod sockets;
mod target;

use std::path::Path;

use procfs::process::Process;
use serde::Serialize;
use thiserror::Error;

use crate::{
    datapath::{self, DatapathError, PolicyTable, Status, WorkloadStatus},
    decide::Decider,
    netns::{Netns, NetnsError},
    routes::{self, RoutesError},
};

/// What came of an examination.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// What is not as it should be.
    pub findings: Vec<Finding>,
    /// What could not be looked at, and why; a sentence each.
    pub unchecked: Vec<String>,
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was found.
    pub what: String,
    /// Why it matters.
    pub why: &'static str,
    /// What to do.
    pub advice: String,
}

/// Why nothing could be examined.
#[derive(Debug, Error)]
pub enum DoctorError {
    /// The data path cannot be read.
    #[error(transparent)]
    Datapath(#[from] DatapathError),
    /// The namespace cannot be used.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// The routes cannot be read.
    #[error(transparent)]
    Routes(#[from] RoutesError),
    /// The sockets or processes cannot be listed.
    #[error("cannot read /proc: {0}")]
    Proc(#[from] procfs::ProcError),
}

impl Finding {
    fn new(what: impl Into<String>, why: &'static str, advice: impl Into<String>) -> Self {
        Self { what: what.into(), why, advice: advice.into() }
    }
}

/// A workload under examination, with everything that several checks look at.
struct Patient<'a> {
    state: &'a Path,
    netns: &'a Netns,
    status: &'a Status,
    workload: &'a WorkloadStatus,
    /// What the kernel asks about each connection.
    table: &'a PolicyTable,
    /// The policy on that table.
    decider: Decider,
    /// The processes in its namespace.
    processes: Vec<Process>,
}

/// Examines a namespace. Changes nothing; the canaries end at once. `interceptor` is the path of the `interceptor` command,
/// which makes connections as processes of the workload do.
pub fn examine(state: &Path, netns: &Netns, interceptor: &Path) -> Result<Report, DoctorError> {
    let status = datapath::status(state)?;
    let cookie = netns.cookie()?;
    let workload = status.workloads.iter().find(|workload| workload.cookie == cookie);
    let table = datapath::enforced(state, cookie)?;
    let (Some(workload), Some(table)) = (workload, &table) else {
        let mut findings = leftovers::rules(netns)?;
        if findings.is_empty() {
            findings.push(Finding::new(
                format!("{} is not under interception", netns.path().display()),
                "its connections go past the proxy",
                "run `interceptor apply` for it",
            ));
        }
        return Ok(Report { findings, unchecked: Vec::new() });
    };
    let (decider, processes) = (Decider::new(table), processes::inside(netns)?);
    let patient = Patient { state, netns, status: &status, workload, table, decider, processes };
    let mut findings = hooks::examine(&patient)?;
    findings.extend(leftovers::rules(netns)?.into_iter().map(doubled));
    findings.extend(sockets::examine(&patient)?);
    findings.extend(processes::examine(&patient)?);
    findings.extend(policy_routes(netns)?);
    let canaries = canary::release(&patient, interceptor)?;
    findings.extend(canaries.findings);
    Ok(Report { findings, unchecked: canaries.unchecked })
}

/// Nat rules beside eBPF.
fn doubled(finding: Finding) -> Finding {
    Finding {
        why: "connections are redirected twice, and the proxy is told a wrong original destination",
        ..finding
    }
}

/// Routing rules that choose a table the mirror of routes does not hold.
fn policy_routes(netns: &Netns) -> Result<Vec<Finding>, DoctorError> {
    let rules = netns.run(routes::policy_rules)??;
    Ok(rules
        .into_iter()
        .map(|rule| {
            Finding::new(
                format!("the namespace has a routing rule of its own: {rule}"),
                "whether a destination is local, and which source address it gets, is read from the tables local, main \
                 and default alone",
                "where this rule applies, use `--backend iptables` for this workload",
            )
        })
        .collect())
}

impl Patient<'_> {
    /// Whether every hook is in place.
    fn is_whole(&self) -> bool {
        let hooks = &self.status.hooks;
        self.workload.steered && !hooks.is_empty() && hooks.iter().all(|hook| hook.attached)
    }
}
