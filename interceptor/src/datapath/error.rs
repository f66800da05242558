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
    /// The kernel lacks what the programs need.
    #[error("this kernel lacks {feature}, which came with Linux {since}; use --backend iptables")]
    Kernel {
        /// What is missing.
        feature: &'static str,
        /// The version it first appeared in.
        since: &'static str,
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
    /// A map cannot be read or written.
    #[error("cannot {action}: {source}")]
    Map {
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        source: Box<aya::maps::MapError>,
    },
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
