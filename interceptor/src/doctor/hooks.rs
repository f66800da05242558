//! Our hooks, and other programs on them.

use super::{DoctorError, Finding, Patient};
use crate::{
    cgroup,
    datapath::{self, Neighbour},
};

/// Beginnings of the names of programs that translate the addresses of services: Cilium's of all ages, and Calico's.
const LOAD_BALANCERS: [&str; 5] = ["cil_sock", "sock4_", "sock6_", "cali_", "calico_"];

pub(super) fn examine(patient: &Patient<'_>) -> Result<Vec<Finding>, DoctorError> {
    let Patient { status, workload, netns, processes, .. } = patient;
    let mut findings = Vec::new();
    if !patient.is_whole() {
        let missing = status.hooks.iter().filter(|hook| !hook.attached).map(|hook| hook.name);
        let steering = (!workload.steered).then_some("steer");
        let names: Vec<_> = missing.chain(steering).collect();
        findings.push(Finding::new(
            format!("hooks are missing: {}", names.join(", ")),
            "a part of the connections goes past the proxy, or is told wrong addresses",
            "run `interceptor apply` again; it adds what is missing",
        ));
    }
    let cgroups =
        processes.iter().filter_map(|process| cgroup::of_process(&process.pid.to_string())).collect();
    for neighbour in datapath::neighbours(status, netns, &cgroups)? {
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
