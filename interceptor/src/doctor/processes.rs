//! The workload's processes: who runs as the proxy's user, in which sandbox, in which v1 cgroup.

use std::collections::BTreeSet;

use procfs::process::{FDTarget, Process, all_processes};

use super::{DoctorError, Finding, Patient};
use crate::{datapath::WorkloadStatus, netns::Netns};

/// Programs that run a workload on a network stack, or a kernel, of its own.
const SANDBOXES: [(&str, &str); 5] = [
    ("runsc", "gVisor"),
    ("qemu-system", "Kata Containers"),
    ("cloud-hypervisor", "Kata Containers"),
    ("firecracker", "Kata Containers"),
    ("kata-shim", "Kata Containers"),
];

pub(super) fn examine(patient: &Patient<'_>) -> Result<Vec<Finding>, DoctorError> {
    let Patient { workload, netns, processes, .. } = patient;
    let mut findings: Vec<_> = impostors(workload, processes, netns)?.into_iter().collect();
    findings.extend(sandbox(processes));
    findings.extend(network_classes(processes));
    Ok(findings)
}

/// The processes of the namespace.
pub(super) fn inside(netns: &Netns) -> Result<Vec<Process>, DoctorError> {
    let Ok(inode) = netns.inode() else { return Ok(Vec::new()) };
    let is_inside = |process: &Process| {
        process.namespaces().is_ok_and(|all| {
            all.0.get(std::ffi::OsStr::new("net")).is_some_and(|namespace| namespace.identifier == inode)
        })
    };
    // A process may end while we look.
    Ok(all_processes()?.flatten().filter(is_inside).collect())
}

/// Processes with the proxy's user id that hold none of its listeners.
fn impostors(
    workload: &WorkloadStatus,
    inside: &[Process],
    netns: &Netns,
) -> Result<Option<Finding>, DoctorError> {
    let Some(proxy_user) = workload.proxy_user else { return Ok(None) };
    let listeners = netns.run(|| listeners(workload))??;
    if listeners.is_empty() {
        return Ok(None);
    }
    let is_proxy = |process: &&Process| {
        process.fd().is_ok_and(|all| {
            all.flatten()
                .any(|one| matches!(one.target, FDTarget::Socket(inode) if listeners.contains(&inode)))
        })
    };
    let proxies: BTreeSet<i32> = inside.iter().filter(is_proxy).map(|process| process.pid).collect();
    let has_user = |process: &&Process| process.status().is_ok_and(|status| status.ruid == proxy_user);
    // What the proxy's own supervisor and helpers start belongs to it.
    let is_kin = |process: &&Process| {
        process.stat().is_ok_and(|stat| {
            proxies.contains(&stat.ppid)
                || proxies.iter().any(|proxy| {
                    Process::new(*proxy).and_then(|one| one.stat()).is_ok_and(|one| one.ppid == process.pid)
                })
        })
    };
    let others = inside.iter().filter(has_user).filter(|process| !proxies.contains(&process.pid));
    let names: Vec<_> = others
        .filter(|process| !is_kin(process))
        .filter_map(|process| process.stat().ok())
        .map(|stat| format!("{} ({})", stat.comm, stat.pid))
        .collect();
    Ok((!names.is_empty()).then(|| {
        Finding::new(
            format!("processes beside the proxy run as its user {proxy_user}: {}", names.join(", ")),
            "their connections are taken for the proxy's and are not redirected",
            "run them as another user",
        )
    }))
}

/// Inodes of the proxy's listeners in the calling thread's namespace.
fn listeners(workload: &WorkloadStatus) -> Result<BTreeSet<u64>, DoctorError> {
    let ports = [workload.outbound_port, workload.inbound_port];
    let listening = super::sockets::tcp()?.into_iter().filter(|entry| {
        entry.state == procfs::net::TcpState::Listen && ports.contains(&entry.local_address.port())
    });
    Ok(listening.map(|entry| entry.inode).collect())
}

fn sandbox(inside: &[Process]) -> Option<Finding> {
    let mut names = inside.iter().filter_map(|process| process.stat().ok()).map(|stat| stat.comm);
    let (name, kind) = names.find_map(|name| {
        SANDBOXES.iter().find(|(start, _)| name.starts_with(start)).map(|(_, kind)| (name, *kind))
    })?;
    Some(Finding::new(
        format!("the workload runs in {kind} ({name})"),
        "its sockets belong to a kernel or network stack of its own, where our hooks do not run",
        "let its own network set-up load the nat rules, inside of the sandbox",
    ))
}

/// Processes in a cgroup of `net_cls` or `net_prio` other than the root.
fn network_classes(inside: &[Process]) -> Option<Finding> {
    let process = inside.iter().find(|process| {
        process.cgroups().is_ok_and(|all| {
            all.0.iter().any(|one| {
                one.pathname != "/"
                    && one.controllers.iter().any(|name| name == "net_cls" || name == "net_prio")
            })
        })
    })?;
    Some(Finding::new(
        format!("process {} is in a v1 cgroup of net_cls or net_prio", process.pid),
        "kernels before 5.15 then lose its cgroup v2, and the hooks pass its sockets",
        "take the controllers out of use, or use `--backend iptables` for this workload",
    ))
}
