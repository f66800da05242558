//! Is interception working here? What a workload, its processes and its neighbours look like, held against what must be.

mod hooks;
mod leftovers;
mod processes;
mod sockets;

use std::path::Path;

use serde::Serialize;
use thiserror::Error;

use crate::{
    datapath::{self, DatapathError, Status, WorkloadStatus},
    netns::{Netns, NetnsError},
    routes::{self, RoutesError},
};

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

/// Examines a namespace. Changes nothing and makes no connection.
pub fn examine(state: &Path, netns: &Netns) -> Result<Vec<Finding>, DoctorError> {
    let status = datapath::status(state)?;
    let cookie = netns.cookie()?;
    let Some(workload) = status.workloads.iter().find(|workload| workload.cookie == cookie) else {
        let mut findings = leftovers::rules(netns)?;
        if findings.is_empty() {
            findings.push(Finding::new(
                format!("{} is not under interception", netns.path().display()),
                "its connections go past the proxy",
                "run `interceptor apply` for it",
            ));
        }
        return Ok(findings);
    };
    let mut findings = hooks::examine(&status, workload, netns)?;
    findings.extend(leftovers::rules(netns)?.into_iter().map(doubled));
    findings.extend(sockets::examine(workload, netns)?);
    findings.extend(processes::examine(workload, netns)?);
    findings.extend(policy_routes(netns)?);
    Ok(findings)
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

/// The hooks' part of a status, for the checks.
fn is_whole(status: &Status, workload: &WorkloadStatus) -> bool {
    workload.steered && !status.hooks.is_empty() && status.hooks.iter().all(|hook| hook.attached)
}
