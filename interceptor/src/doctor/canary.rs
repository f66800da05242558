//! Canaries: one connection in each direction and family, watched on its way to the proxy.

use std::{
    io,
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use nix::errno::Errno;

use super::{DoctorError, Finding, Patient, Report, sockets, target, target::Target};
use crate::{
    cgroup, datapath,
    netns::Netns,
    parity::actor::{Actor, protocol::Connected},
    routes,
};

/// How long an answer from the same machine may take.
const PATIENCE: Duration = Duration::from_secs(3);
const WHY: &str = "other connections of the workload fare alike";

/// Lets them fly where the proxy listens: where it does not, that has been found already.
pub(super) fn release(patient: &Patient<'_>, interceptor: &Path) -> Result<Report, DoctorError> {
    let mut report = Report::default();
    let entries = patient.netns.run(sockets::tcp)??;
    for is_v4 in [true, false] {
        if sockets::listens(&entries, patient.workload.outbound_port)
            && let Some(target) = target::outgoing(patient, is_v4)
        {
            outgoing(patient, interceptor, target, &mut report)?;
        }
        if sockets::listens(&entries, patient.workload.inbound_port)
            && let Some(target) = target::incoming(patient, is_v4)
        {
            incoming(patient, target, &mut report)?;
        }
    }
    report.unchecked.dedup();
    Ok(report)
}

/// Connects as an application of the workload.
fn outgoing(
    patient: &Patient<'_>,
    interceptor: &Path,
    target: Target,
    report: &mut Report,
) -> Result<(), DoctorError> {
    let before = counted(patient, &target)?;
    let connected = match connect_inside(patient, interceptor, &target) {
        Ok(connected) => connected,
        Err(reason) => {
            report.unchecked.push(format!("outgoing connections: {reason}"));
            return Ok(());
        }
    };
    let to = target.address;
    let what = match connected.outcome {
        Err(error) => {
            format!("a canary from the workload to {to} fails: {}", Errno::from_raw(error).desc())
        }
        Ok(()) if counted(patient, &target)? == before => {
            format!("a canary from the workload to {to} went past the proxy")
        }
        Ok(()) if connected.seen.peer != Ok(to) => {
            let peer = connected.seen.peer.map_or_else(|_| "none".to_owned(), |peer| peer.to_string());
            format!("a canary from the workload to {to} is shown another peer: {peer}")
        }
        Ok(()) => return Ok(()),
    };
    let advice = format!(
        "see the counters of `interceptor status`, the programs beside ours, and whether the proxy accepts on port {}",
        patient.workload.outbound_port
    );
    report.findings.push(Finding::new(what, WHY, advice));
    Ok(())
}

/// Connects from the caller's namespace to the workload.
fn incoming(patient: &Patient<'_>, target: Target, report: &mut Report) -> Result<(), DoctorError> {
    let to = target.address;
    let own = Netns::current()?.cookie()?;
    let obstacle = if own == patient.workload.cookie {
        Some(
            "they come from other namespaces, and this command runs inside; run it outside, with --netns"
                .to_owned(),
        )
    } else if patient.status.workloads.iter().any(|workload| workload.cookie == own) {
        Some("the caller's own namespace is under interception too".to_owned())
    } else if target::depends_on_interface(patient) {
        Some("what becomes of them depends on the interface".to_owned())
    } else if !routes::is_neighbour(to.ip())? {
        // Behind a router anybody could have the same address.
        Some(format!("the caller's namespace has no direct route to {}", to.ip()))
    } else {
        None
    };
    if let Some(obstacle) = obstacle {
        report.unchecked.push(format!("arriving connections: {obstacle}"));
        return Ok(());
    }
    let before = counted(patient, &target)?;
    let outcome = TcpStream::connect_timeout(&to, PATIENCE);
    let reached = counted(patient, &target)? != before;
    let what = match outcome {
        Ok(_) if reached => return Ok(()),
        Ok(_) => format!("a canary to the workload, to {to}, went past the proxy"),
        Err(error) if reached || error.kind() == io::ErrorKind::ConnectionRefused => {
            format!("a canary to the workload, to {to}, fails: {error}")
        }
        Err(error) => {
            report
                .unchecked
                .push(format!("arriving connections: {to} cannot be reached from here ({error})"));
            return Ok(());
        }
    };
    let advice = format!(
        "see the counters of `interceptor status`, and whether the proxy accepts on port {}",
        patient.workload.inbound_port
    );
    report.findings.push(Finding::new(what, WHY, advice));
    Ok(())
}

/// How many connections were counted for the target's reason.
fn counted(patient: &Patient<'_>, target: &Target) -> Result<u64, DoctorError> {
    let status = datapath::status(patient.state)?;
    let workload = status.workloads.iter().find(|workload| workload.cookie == patient.workload.cookie);
    let reasons = workload.map(|workload| workload.connections.as_slice()).unwrap_or_default();
    Ok(reasons.iter().filter(|counted| counted.reason == target.reason).map(|counted| counted.count).sum())
}

/// Connects from a process in the workload's namespace and in a cgroup that the hooks see, as nobody in particular.
/// The error is a sentence.
fn connect_inside(patient: &Patient<'_>, interceptor: &Path, target: &Target) -> Result<Connected, String> {
    let cgroup = cgroup(patient)?;
    let mut command = Command::new(interceptor);
    command.arg("actor").arg("--netns").arg(patient.netns.path()).arg("--cgroup").arg(&cgroup);
    command.args(["--uid", &target.owner.uid.to_string(), "--gid", &target.owner.gid.to_string()]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().map_err(|error| format!("cannot run {}: {error}", interceptor.display()))?;
    let mut canary = Canary(child);
    let connected = Actor::of(&mut canary.0).and_then(|mut actor| actor.connect(0, target.address, None));
    connected.map_err(|error| canary.last_words().unwrap_or_else(|| format!("{error:#}")))
}

/// The cgroup the canary is to be in: the caller's own if the hooks see it, else theirs.
fn cgroup(patient: &Patient<'_>) -> Result<PathBuf, String> {
    let id = patient.status.hooks.iter().find_map(|hook| hook.cgroup).ok_or("no hook is attached")?;
    let hooked = datapath::folder_of(id).ok().flatten();
    let hooked = hooked.ok_or("the cgroup of the hooks is not to be found here")?;
    Ok(cgroup::of_process("self").filter(|own| own.starts_with(&hooked)).unwrap_or(hooked))
}

/// The process that connects. It does not outlive us.
struct Canary(Child);

impl Canary {
    /// What it said if it could not even begin.
    fn last_words(&mut self) -> Option<String> {
        self.0.wait().ok()?;
        let said = io::read_to_string(self.0.stderr.take()?).ok()?;
        said.lines().next_back().map(|line| line.trim_start_matches("error: ").to_owned())
    }
}

impl Drop for Canary {
    fn drop(&mut self) {
        // It may have ended by itself; both calls then say so, which is fine.
        let _ended = self.0.kill().and_then(|()| self.0.wait());
    }
}
