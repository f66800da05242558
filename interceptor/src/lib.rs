//! Transparent interception of a workload's traffic for a sidecar proxy, by eBPF at the socket or by nat rules.

pub mod agent;
pub mod capture;
pub mod cgroup;
pub mod cni;
pub mod datapath;
pub mod decide;
pub mod doctor;
pub mod explain;
pub mod nat;
pub mod netns;
pub mod parity;
pub mod probe;
pub mod routes;
pub mod validate;
