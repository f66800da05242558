//! The workload's sockets: the proxy's listeners, and connections that are older than the interception.

use std::net::SocketAddr;

use interceptor_ebpf::abi::Switches;
use procfs::{
    net::{TcpNetEntry, TcpState},
    process::Process,
};

use super::{DoctorError, Finding, Patient};
use crate::nat::{Packet, Path, Protocol};

/// How many connections are named.
const NAMED: usize = 3;

pub(super) fn examine(patient: &Patient<'_>) -> Result<Vec<Finding>, DoctorError> {
    let entries = patient.netns.run(tcp)??;
    let numbers = patient.table.workload();
    let mut listeners =
        vec![(numbers.outbound_port, "outgoing connections"), (numbers.inbound_port, "arriving connections")];
    if numbers.any(Switches::DNS | Switches::DNS_ALL) {
        listeners.push((numbers.dns_port, "DNS queries over TCP"));
    }
    let mut silent: Vec<_> = listeners.into_iter().filter(|(port, _)| !listens(&entries, *port)).collect();
    if numbers.any(Switches::DNS | Switches::DNS_ALL) && !patient.netns.run(|| hears(numbers.dns_port))?? {
        silent.push((numbers.dns_port, "DNS queries over UDP"));
    }
    let mut findings: Vec<_> = silent
        .into_iter()
        .map(|(port, what)| {
            Finding::new(
                format!("nobody listens on port {port}, the proxy's for {what}"),
                "what is redirected there is refused",
                "start the proxy, or compare its listeners with the ports of `interceptor status`",
            )
        })
        .collect();
    findings.extend(older(patient, &entries));
    Ok(findings)
}

/// The TCP sockets of the calling thread's namespace.
pub(super) fn tcp() -> Result<Vec<TcpNetEntry>, DoctorError> {
    let thread = this_thread()?;
    // A kernel without IPv6 has no second file.
    Ok(thread.tcp()?.into_iter().chain(thread.tcp6().unwrap_or_default()).collect())
}

/// Whether a UDP socket of the calling thread's namespace is bound to a port.
fn hears(port: u16) -> Result<bool, DoctorError> {
    let thread = this_thread()?;
    let mut sockets = thread.udp()?.into_iter().chain(thread.udp6().unwrap_or_default());
    Ok(sockets.any(|socket| socket.local_address.port() == port))
}

fn this_thread() -> Result<Process, DoctorError> {
    // procfs follows no links, so /proc/thread-self must be spelt out.
    Ok(Process::new_with_root(format!("/proc/self/task/{}", nix::unistd::gettid()).into())?)
}

pub(super) fn listens(entries: &[TcpNetEntry], port: u16) -> bool {
    entries.iter().any(|entry| entry.state == TcpState::Listen && entry.local_address.port() == port)
}

/// Connections of the applications with elsewhere that would go to the proxy if they were made now. The kernel does not
/// tell a connection's age.
fn older(patient: &Patient<'_>, entries: &[TcpNetEntry]) -> Option<Finding> {
    let is_direct = |entry: &&TcpNetEntry| {
        let numbers = patient.table.workload();
        let (local, remote) = (canonical(entry.local_address), canonical(entry.remote_address));
        let is_with_proxy = [local.port(), remote.port()].iter().any(|port| numbers.is_proxy_port(*port));
        entry.state == TcpState::Established
            // One that nobody has accepted yet has no inode, and no owner that would count.
            && entry.inode != 0
            && patient.workload.proxy_user != Some(entry.uid)
            && !remote.ip().is_loopback()
            && !is_with_proxy
            && would_be_redirected(patient, local, remote, entry.uid, listens(entries, local.port()))
    };
    let direct: Vec<SocketAddr> =
        entries.iter().filter(is_direct).map(|entry| canonical(entry.remote_address)).collect();
    let first = direct.first()?;
    let named: Vec<_> = direct.iter().take(NAMED).map(ToString::to_string).collect();
    let more = direct.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    Some(Finding::new(
        format!("connections that do not go through the proxy: {}{more}", named.join(", ")),
        "they are older than the interception, or of a process outside of the hooks' cgroup",
        format!("end them, for instance by a restart of what is connected with {first}"),
    ))
}

/// What the policy says of a connection that exists. A group that is captured or spared is not known of a socket; the
/// root's is assumed.
fn would_be_redirected(
    patient: &Patient<'_>,
    local: SocketAddr,
    remote: SocketAddr,
    uid: u32,
    is_arriving: bool,
) -> bool {
    let path = |interface| {
        if is_arriving {
            Path::Incoming { interface }
        } else {
            Path::Outgoing { interface, uid, gid: 0, mark: 0 }
        }
    };
    let (source, destination) = if is_arriving { (remote, local) } else { (local, remote) };
    let packet = Packet {
        protocol: Protocol::Tcp,
        source: source.ip(),
        source_port: source.port(),
        destination: destination.ip(),
        port: destination.port(),
        path: path(String::new()),
    };
    patient.decider.decide(&packet, 0).is_some_and(|decision| !decision.passes())
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
