//! Our hooks, and other programs on them.

use super::{DoctorError, Finding, is_whole};
use crate::{
    datapath::{self, Neighbour, Status, WorkloadStatus},
    netns::Netns,
};

/// Beginnings of the names of programs that translate the addresses of services.
const LOAD_BALANCERS: [&str; 3] = ["cil_sock", "sock4_", "sock6_"];

pub(super) fn examine(
    status: &Status,
    workload: &WorkloadStatus,
    netns: &Netns,
) -> Result<Vec<Finding>, DoctorError> {
    let mut findings = Vec::new();
    if !is_whole(status, workload) {
        let missing = status.hooks.iter().filter(|hook| !hook.attached).map(|hook| hook.name);
        let steering = (!workload.steered).then_some("steer");
        let names: Vec<_> = missing.chain(steering).collect();
        findings.push(Finding::new(
            format!("hooks are missing: {}", names.join(", ")),
            "a part of the connections goes past the proxy, or is told wrong addresses",
            "run `interceptor apply` again; it adds what is missing",
        ));
    }
    for neighbour in datapath::neighbours(status, netns)? {
        findings.push(describe(&neighbour));
    }
    Ok(findings)
}

fn describe(neighbour: &Neighbour) -> Finding {
    let Neighbour { hook, program, name, runs_before } = neighbour;
    let order = if *runs_before { "before" } else { "after" };
    let what = format!("another program, {name} (id {program}), is on {hook} and runs {order} ours");
    if LOAD_BALANCERS.iter().any(|start| name.starts_with(start)) {
        let why = "it translates service addresses; where it runs before ours, the proxy is told the address of an \
                   endpoint in place of the service's";
        let advice = if *runs_before {
            "attach below its cgroup: `interceptor uninstall`, then `apply --cgroup` with a child cgroup"
        } else {
            "nothing, as long as it runs after ours"
        };
        return Finding::new(what, why, advice);
    }
    Finding::new(
        what,
        "what it rewrites or refuses is seen by whichever program comes later",
        "find out whose it is with `bpftool prog show id ID`, and whether it changes addresses",
    )
}
