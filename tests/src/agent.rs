//! An agent at work in a world.

use std::{
    fs,
    io::ErrorKind,
    net::SocketAddr,
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use interceptor::{
    agent::{Client, Kept, WorkloadId},
    parity::{
        plan::Place,
        world::{Namespace, World},
    },
};
use tempfile::TempDir;

use crate::Product;

/// How long a report is waited for before the agent itself is looked at.
const MOMENT: Duration = Duration::from_millis(50);
/// A hang becomes a failure after this. Under the load of some tests an agent gets a small part of a processor.
const DEADLINE: Duration = Duration::from_secs(180);

/// Where agents of a world keep what must outlive them: run folder, workload files, and the socket they report to.
pub struct Home {
    folder: TempDir,
    reports: UnixDatagram,
}

/// A running agent; killed when dropped.
pub struct Agent {
    child: Arc<Mutex<Child>>,
}

impl Home {
    /// Makes an empty one.
    pub fn new() -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("interceptor-agent-").tempdir()?;
        fs::create_dir(folder.path().join("workloads"))?;
        let reports = UnixDatagram::bind(folder.path().join("notify"))?;
        reports.set_read_timeout(Some(MOMENT))?;
        Ok(Self { folder, reports })
    }

    /// The run folder.
    #[must_use]
    pub fn run(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    /// The folder of workload files.
    #[must_use]
    pub fn workloads(&self) -> PathBuf {
        self.folder.path().join("workloads")
    }

    /// A place for anything else.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a workload file in one step.
    pub fn declare(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let draft = self.workloads().join(".draft");
        fs::write(&draft, text)?;
        Ok(fs::rename(draft, self.workloads().join(name))?)
    }

    /// Removes a workload file.
    pub fn withdraw(&self, name: &str) -> anyhow::Result<()> {
        Ok(fs::remove_file(self.workloads().join(name))?)
    }

    /// Starts an agent of the product's own build and returns when it is ready.
    pub fn start(&self, world: &World, product: &Product<'_>) -> anyhow::Result<Agent> {
        self.start_build(world, product, &crate::interceptor())
    }

    /// Starts an agent of another build.
    pub fn start_build(&self, world: &World, product: &Product<'_>, build: &Path) -> anyhow::Result<Agent> {
        let agent = self.spawn(world, product, build)?;
        let deadline = Instant::now() + DEADLINE;
        while !self.hears("READY=1")? {
            let ended = agent.child().try_wait()?;
            ensure!(ended.is_none(), "the agent ended ({ended:?}); its log:\n{}", self.log());
            ensure!(Instant::now() < deadline, "the agent does not get ready; its log:\n{}", self.log());
        }
        Ok(agent)
    }

    /// Starts an agent and does not wait.
    pub fn spawn(&self, world: &World, product: &Product<'_>, build: &Path) -> anyhow::Result<Agent> {
        let mut command = product.command(&["--run-dir"]);
        let log = fs::File::options().create(true).append(true).open(self.folder.path().join("log"))?;
        command
            .arg(self.run())
            .args(["agent", "--metrics", "127.0.0.1:0", "--log-level", "debug", "--workloads"])
            .arg(self.workloads())
            .arg("--cgroup")
            .arg(world.cgroup())
            .env("NOTIFY_SOCKET", self.folder.path().join("notify"))
            .stdin(Stdio::null())
            .stderr(log);
        let mut of_build = std::process::Command::new(build);
        of_build.env_clear().args(command.get_args());
        of_build.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let log = fs::File::options().create(true).append(true).open(self.folder.path().join("log"))?;
        let child = world.spawn(of_build.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log))?;
        let agent = Agent { child: Arc::clone(&child) };
        // Before anything is uninstalled, which a running agent forbids.
        world.on_close(Box::new(move || Agent { child }.kill()))?;
        Ok(agent)
    }

    /// Whether an agent reports this to its service manager next, or within a moment.
    pub fn hears(&self, report: &str) -> anyhow::Result<bool> {
        let mut buffer = [0; 1024];
        match self.reports.recv(&mut buffer) {
            Ok(length) => Ok(String::from_utf8_lossy(&buffer[..length]).lines().any(|line| line == report)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Forgets what agents that have ended reported.
    pub fn forget_reports(&self) -> anyhow::Result<()> {
        self.reports.set_nonblocking(true)?;
        while self.reports.recv(&mut [0; 1024]).is_ok() {}
        Ok(self.reports.set_nonblocking(false)?)
    }

    /// What agents have logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Where the latest agent serves metrics, as it has logged.
    pub fn metrics(&self) -> anyhow::Result<SocketAddr> {
        let log = self.log();
        let address = log.rsplit_once("metrics=").context("no agent serves metrics")?.1;
        Ok(address.split_whitespace().next().unwrap_or_default().parse()?)
    }

    /// The running agent's control socket.
    pub fn client(&self, product: &Product<'_>) -> anyhow::Result<Client> {
        Client::find(&self.run(), &product.state_dir())?.context("no agent serves the control socket")
    }

    /// Waits until the agent's list of workloads fits. The list has no events, so this asks again.
    pub fn wait_until(
        &self,
        product: &Product<'_>,
        mut fits: impl FnMut(&[Kept]) -> bool,
    ) -> anyhow::Result<Vec<Kept>> {
        let deadline = Instant::now() + DEADLINE;
        let client = self.client(product)?;
        loop {
            let kept = client.workloads()?;
            if fits(&kept) {
                return Ok(kept);
            }
            ensure!(Instant::now() < deadline, "still {kept:?}; log:\n{}", self.log());
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Agent {
    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child().id()
    }

    /// Its resident memory in KiB.
    pub fn resident_kib(&self) -> anyhow::Result<usize> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS is missing")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    }

    /// CPU time it has used so far.
    pub fn cpu_time(&self) -> anyhow::Result<Duration> {
        // Ticks of user and system time, see proc_pid_stat(5); the name in parentheses before them may hold blanks.
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid()))?;
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = fields.get(11..13).context("no times in the agent's stat")?;
        let ticks = ticks.iter().map(|ticks| ticks.parse::<u64>()).sum::<Result<u64, _>>()?;
        Ok(Duration::from_millis(10 * ticks))
    }

    /// How many descriptors it has open.
    pub fn descriptors(&self) -> anyhow::Result<usize> {
        Ok(fs::read_dir(format!("/proc/{}/fd", self.pid()))?.count())
    }

    /// Waits until it has no more descriptors open than `at_rest`. A connection to its control socket that we have closed
    /// is closed on its side a moment later, and nothing tells us when.
    pub fn wait_for_descriptors(&self, at_rest: usize) -> anyhow::Result<()> {
        let deadline = Instant::now() + DEADLINE;
        while self.descriptors()? > at_rest {
            ensure!(Instant::now() < deadline, "{} descriptors, {at_rest} at rest", self.descriptors()?);
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Ends it at once, as a crash would.
    pub fn kill(&self) -> anyhow::Result<()> {
        let mut child = self.child();
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Asks it to end, and waits until it has.
    pub fn stop(&self) -> anyhow::Result<std::process::ExitStatus> {
        let mut child = self.child();
        let pid = i32::try_from(child.id())?;
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM)?;
        Ok(child.wait()?)
    }

    /// Waits until it ends by itself.
    pub fn wait(&self) -> anyhow::Result<std::process::ExitStatus> {
        Ok(self.child().wait()?)
    }

    fn child(&self) -> std::sync::MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The workload with this name.
#[must_use]
pub fn of<'k>(kept: &'k [Kept], id: &str) -> Option<&'k Kept> {
    let id: WorkloadId = id.parse().ok()?;
    kept.iter().find(|kept| kept.id == id)
}

/// A workload file's text for a pod: everything intercepted but the ports given as excluded.
pub fn workload_file(world: &World, pod: Place, excluded_ports: &str) -> anyhow::Result<String> {
    let excluded = format!("istio-local-outbound-ports-exclude = \"{excluded_ports}\"\n");
    Ok(workload_text(world.namespace(pod)?, &excluded))
}

/// A workload file's text: everything intercepted, but for what `settings` of the capture say.
#[must_use]
pub fn workload_text(pod: &Namespace, settings: &str) -> String {
    format!(
        "netns = \"{}\"\n[capture]\nistio-service-cidr = \"*\"\nistio-inbound-ports = \"*\"\n\
         istio-local-exclude-ports = \"15090,15021,15020\"\nipv6 = \"on\"\n{settings}",
        pod.path().display()
    )
}
