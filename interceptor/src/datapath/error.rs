//! What can go wrong with the eBPF data path.

use std::{io, path::PathBuf};

use thiserror::Error;

use crate::{cgroup::CgroupError, netns::NetnsError, routes::RoutesError};

/// Why the data path could not do what was asked. Nothing is left half-done.
#[derive(Debug, Error)]
pub enum DatapathError {
    /// The namespace cannot be used.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// The cgroup cannot be used.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// The routes cannot be read.
    #[error(transparent)]
    Routes(#[from] RoutesError),
    /// The caller lacks rights.
    #[error("the eBPF data path needs {missing}; run it as root or grant them")]
    Rights {
        /// The capabilities missing.
        missing: String,
    },
    /// The state folder cannot lie where it should.
    #[error(
        "no bpffs for {folder}: {reason}; mount one (mount -t bpf bpf /sys/fs/bpf) and name a folder in it \
         with --state-dir"
    )]
    NoBpffs {
        /// The state folder.
        folder: PathBuf,
        /// What stands in the way.
        reason: String,
    },
    /// The state folder cannot be read or written.
    #[error("cannot use the state folder {folder}: {source}")]
    State {
        /// The folder.
        folder: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The capture asks for something that no hook at a socket can do.
    #[error("{option}: {reason}; use --backend iptables for this workload")]
    OutOfReach {
        /// The option, as the operator would write it.
        option: &'static str,
        /// Why it is out of reach.
        reason: &'static str,
    },
    /// The state folder holds state of a layout this build does not know.
    #[error(
        "{folder} holds state of layout v{found}, this interceptor knows v{known}: use the interceptor that made it, \
         or uninstall and apply again"
    )]
    OtherLayout {
        /// The state folder.
        folder: PathBuf,
        /// The layout found.
        found: u32,
        /// The layout of this build.
        known: u32,
    },
    /// Pins are missing from the state folder.
    #[error(
        "{pin} is missing, somebody removed it: `interceptor apply` or the agent repairs what is left, \
         `interceptor uninstall` removes it"
    )]
    Damaged {
        /// The pin that should be there.
        pin: PathBuf,
    },
    /// An agent keeps the state folder.
    #[error("an agent ({}) keeps {folder}: stop it first", holder(*.pid))]
    AgentRuns {
        /// The state folder.
        folder: PathBuf,
        /// The agent's process id, if the kernel tells it.
        pid: Option<i32>,
    },
    /// A program in a link cannot be replaced by this build's.
    #[error("cannot bring {pin} up to this version: {source}; the program in force stays")]
    Upgrade {
        /// The link's pin.
        pin: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The object's maps cannot be made or opened.
    #[error("cannot make or open the BPF maps: {}", sources(.0))]
    Object(Box<aya::EbpfError>),
    /// The kernel refused a program.
    #[error("the kernel refused the BPF program {name}: {}", last_line(.error))]
    Refused {
        /// The program.
        name: &'static str,
        /// What the kernel said, with the verifier's log.
        error: Box<aya::programs::ProgramError>,
    },
    /// The object lacks a program this version attaches.
    #[error("the BPF object has no program {name}: this build is broken")]
    NoProgram {
        /// The program.
        name: &'static str,
    },
    /// A program cannot be attached or its link not pinned.
    #[error("cannot attach {name} to {target}: {source}{}", exclusive_hint(.source))]
    Attach {
        /// The program.
        name: &'static str,
        /// What it was to be attached to.
        target: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The hooks are attached to another cgroup.
    #[error(
        "the hooks of {folder} are attached to another cgroup than {cgroup}; leave --cgroup out, or give a \
         --state-dir of its own to this one"
    )]
    OtherCgroup {
        /// The state folder.
        folder: PathBuf,
        /// The cgroup asked for.
        cgroup: PathBuf,
    },
    /// The sockets of the namespace cannot be listed.
    #[error("cannot list the listening sockets of the namespace: {source}")]
    Sockets {
        /// What went wrong.
        source: io::Error,
    },
    /// The interfaces of the namespace cannot be listed.
    #[error("cannot list the interfaces of the namespace: {source}")]
    Interfaces {
        /// What the system said.
        source: io::Error,
    },
    /// A map cannot be read or written.
    #[error("cannot {action}: {source}")]
    Map {
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        source: Box<aya::maps::MapError>,
    },
    /// The maps have no place for one more workload.
    #[error(
        "65,536 workloads are under interception, and there can be no more: `interceptor release` one that is not \
         needed any longer"
    )]
    TooManyWorkloads,
    /// Nothing is installed in the state folder.
    #[error("nothing is installed under {folder}; `interceptor apply` puts a workload under interception")]
    NotInstalled {
        /// The state folder.
        folder: PathBuf,
    },
    /// Decisions are being read by another process.
    #[error(
        "another `interceptor trace` is reading, and a decision is told once; end it, and wait 3 seconds if it was killed"
    )]
    TraceRuns,
    /// The namespace is not under interception.
    #[error(
        "the network namespace {path} is not under interception; `interceptor status` lists those that are"
    )]
    NotEnrolled {
        /// The path of the namespace.
        path: PathBuf,
    },
}

/// An error with its causes, in one line.
fn sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

fn holder(pid: Option<i32>) -> String {
    pid.map_or_else(|| "of another pid namespace".to_owned(), |pid| format!("process {pid}"))
}

/// What the verifier said last: its log ends with the reason and a line of statistics.
fn last_line(error: &aya::programs::ProgramError) -> String {
    if let aya::programs::ProgramError::LoadError { io_error, verifier_log } = error {
        let log = verifier_log.to_string();
        let mut lines = log.lines().rev().map(str::trim);
        let reason = lines.find(|line| !line.is_empty() && !is_statistics(line));
        return reason.map_or_else(|| io_error.to_string(), |reason| format!("{reason} ({io_error})"));
    }
    sources(error)
}

fn is_statistics(line: &str) -> bool {
    ["processed ", "stack depth ", "verification time "].iter().any(|start| line.starts_with(start))
}

/// EPERM on attaching means that a program attached without sharing holds the hook.
fn exclusive_hint(error: &io::Error) -> &'static str {
    if error.kind() == io::ErrorKind::PermissionDenied {
        "; another program may hold this hook for itself, `bpftool cgroup tree` shows which"
    } else {
        ""
    }
}
