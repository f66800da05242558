//! The workload's sockets: the proxy's listeners, and connections that are older than the interception.

use std::net::SocketAddr;

use procfs::{
    net::{TcpNetEntry, TcpState},
    process::Process,
};

use super::{DoctorError, Finding};
use crate::{datapath::WorkloadStatus, netns::Netns};

/// How many connections are named.
const NAMED: usize = 3;

pub(super) fn examine(workload: &WorkloadStatus, netns: &Netns) -> Result<Vec<Finding>, DoctorError> {
    let entries = netns.run(tcp)??;
    let mut findings = Vec::new();
    for (port, direction) in [(workload.outbound_port, "outgoing"), (workload.inbound_port, "arriving")] {
        if !listens(&entries, port) {
            findings.push(Finding::new(
                format!("nobody listens on port {port}, the proxy's for {direction} connections"),
                "redirected connections are refused",
                "start the proxy, or compare its listeners with the ports of `interceptor status`",
            ));
        }
    }
    findings.extend(older(workload, &entries));
    Ok(findings)
}

/// The TCP sockets of the calling thread's namespace.
pub(super) fn tcp() -> Result<Vec<TcpNetEntry>, DoctorError> {
    // procfs follows no links, so /proc/thread-self must be spelt out.
    let thread = Process::new_with_root(format!("/proc/self/task/{}", nix::unistd::gettid()).into())?;
    // A kernel without IPv6 has no second file.
    Ok(thread.tcp()?.into_iter().chain(thread.tcp6().unwrap_or_default()).collect())
}

fn listens(entries: &[TcpNetEntry], port: u16) -> bool {
    entries.iter().any(|entry| entry.state == TcpState::Listen && entry.local_address.port() == port)
}

/// Connections of an application straight to elsewhere. Those the kernel was told of after `apply` go to the proxy
/// unless the capture excludes them, and the kernel does not tell a connection's age.
fn older(workload: &WorkloadStatus, entries: &[TcpNetEntry]) -> Option<Finding> {
    let is_direct = |entry: &&TcpNetEntry| {
        entry.state == TcpState::Established
            && !entry.remote_address.ip().to_canonical().is_loopback()
            && workload.proxy_user != Some(entry.uid)
            && !listens(entries, entry.local_address.port())
            && ![workload.outbound_port, workload.inbound_port].contains(&entry.remote_address.port())
    };
    let direct: Vec<SocketAddr> =
        entries.iter().filter(is_direct).map(|entry| entry.remote_address).collect();
    let first = direct.first()?;
    let named: Vec<_> = direct.iter().take(NAMED).map(ToString::to_string).collect();
    let more = direct.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    Some(Finding::new(
        format!("connections that do not go through the proxy: {}{more}", named.join(", ")),
        "they are older than the interception, or the capture leaves their destination alone",
        format!("ask `interceptor explain` about {first}; if it says `redirect`, restart the application"),
    ))
}
