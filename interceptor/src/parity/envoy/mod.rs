//! Envoy as the sidecar of a world's pod, with the listeners Istio gives it.

mod access;
mod bootstrap;

use std::{
    collections::{BTreeMap, HashSet},
    io::{BufRead as _, BufReader, Read},
    path::Path,
    process::{Child, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow, bail};

pub use self::{
    access::Access,
    bootstrap::{ADMIN_PORT, Service},
};
use super::{
    actor::protocol::Sighting,
    plan::Place,
    proxy::{OWNER, Proxy},
    world::{Namespace, World},
};

/// How long Envoy may take for a step that it does in milliseconds when the machine is idle.
const DEADLINE: Duration = Duration::from_secs(30);

/// Envoy's words for "the workers are started and their sockets listen", from `InstanceBase::run` in its
/// `source/server/server.cc`.
const READY: &str = "starting main dispatch loop";

/// A running Envoy. It ends with its world, or earlier by [`Envoy::stop`].
pub struct Envoy {
    child: Arc<Mutex<Child>>,
    pod: Namespace,
    log: Receiver<String>,
    /// Connections that `log` told of so far.
    told: HashSet<u64>,
}

impl Envoy {
    /// Starts the Envoy at `binary` in a pod, and waits until it listens.
    ///
    /// `interceptor` is the path of the `interceptor` command, see [`World::command`].
    pub fn start(
        world: &World,
        interceptor: &Path,
        pod: Place,
        binary: &Path,
        services: &[Service],
    ) -> anyhow::Result<Self> {
        let mut command = world.command(interceptor, pod, OWNER, binary)?;
        command.arg("--config-yaml").arg(bootstrap::bootstrap(services).to_string());
        // Hot restart would share memory and a socket name with every other Envoy of this machine.
        command.args(["--disable-hot-restart", "--concurrency", "2"]);
        command.args(["--log-level", "warning", "--component-log-level", "main:info"]);
        command.args(["--file-flush-interval-msec", "20"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child =
            world.spawn(&mut command).with_context(|| format!("cannot start {}", binary.display()))?;

        let (stdout, stderr) = {
            let mut child = child.lock().unwrap_or_else(PoisonError::into_inner);
            (child.stdout.take(), child.stderr.take())
        };
        let log = lines(stdout.context("Envoy's standard output was piped")?);
        wait_until_ready(&lines(stderr.context("Envoy's standard error was piped")?))?;
        Ok(Self { child, pod: world.namespace(pod)?.clone(), log, told: HashSet::new() })
    }

    /// Every connection Envoy was handed since the last call, in the order of their arrival.
    ///
    /// It waits until each of them is connected onwards or has ended, so their clients must have sent something.
    pub fn accesses(&mut self) -> anyhow::Result<Vec<Access>> {
        let handed = self.handed()?;
        let mut accesses = Vec::new();
        while (self.told.len() as u64) < handed {
            let line = self.log.recv_timeout(DEADLINE).map_err(|error| match error {
                RecvTimeoutError::Timeout => {
                    anyhow!("Envoy was handed {handed} connections and tells of {} only", self.told.len())
                }
                RecvTimeoutError::Disconnected => anyhow!("Envoy ended"),
            })?;
            let access: Access = serde_json::from_str(&line)
                .with_context(|| format!("Envoy's access log has an unknown form: {line}"))?;
            // A connection that was told of when it was connected is told of again at its end.
            if self.told.insert(access.id) {
                accesses.push(access);
            }
        }
        accesses.sort_by_key(|access| access.id);
        Ok(accesses)
    }

    /// Envoy's counters and gauges by their full names.
    pub fn stats(&self) -> anyhow::Result<BTreeMap<String, u64>> {
        let url = format!("http://127.0.0.1:{ADMIN_PORT}/stats");
        let text = self.pod.enter(|| {
            let answer = minreq::get(&url).with_timeout(DEADLINE.as_secs()).send();
            Ok(answer.with_context(|| format!("cannot ask {url}"))?.as_str()?.to_owned())
        })?;
        // Texts and histograms are listed too; their values are no numbers.
        let numbers = text.lines().filter_map(|line| line.split_once(": "));
        Ok(numbers.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))).collect())
    }

    /// Ends Envoy at once and waits until it is gone: what it listened on refuses connections from then on.
    pub fn stop(self) -> anyhow::Result<()> {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        child.kill().and_then(|()| child.wait()).context("cannot end Envoy")?;
        Ok(())
    }

    /// How many connections reached a TCP proxy filter: each is told of in the access log.
    fn handed(&self) -> anyhow::Result<u64> {
        let is_count = |name: &str| name.starts_with("tcp.") && name.ends_with(".downstream_cx_total");
        Ok(self.stats()?.iter().filter(|(name, _)| is_count(name)).map(|(_, value)| value).sum())
    }
}

impl Proxy for Envoy {
    fn sightings(&mut self) -> anyhow::Result<Vec<Sighting>> {
        Ok(self.accesses()?.iter().map(Access::sighting).collect())
    }

    fn kill(self: Box<Self>) -> anyhow::Result<()> {
        self.stop()
    }
}

/// Reads Envoy's own log until it is ready; an end before that is told with what it had said.
fn wait_until_ready(log: &Receiver<String>) -> anyhow::Result<()> {
    let deadline = Instant::now() + DEADLINE;
    let mut said = String::new();
    loop {
        let line = match log.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => {
                bail!("Envoy did not start within {} s; it said:\n{said}", DEADLINE.as_secs())
            }
            Err(RecvTimeoutError::Disconnected) => bail!("Envoy did not start; it said:\n{said}"),
        };
        if line.contains(READY) {
            return Ok(());
        }
        said.push_str(&line);
        said.push('\n');
    }
}

/// Sends every line of `pipe` on, and reads to its end even if nobody listens, lest the writer block.
fn lines(pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver): (Sender<String>, _) = channel();
    thread::spawn(move || {
        for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
            // A receiver that is gone has lost interest.
            let _ = sender.send(String::from_utf8_lossy(&line).into_owned());
        }
    });
    receiver
}
