//! What the behaviour tests share: the compiled `interceptor` command, and worlds in which it is at work.

pub mod agent;
pub mod alike;
pub mod build;
pub mod foreign;
pub mod inside;
pub mod kept;
pub mod traffic;

use std::{
    env, fmt, fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    str::FromStr,
};

use anyhow::{Context as _, bail, ensure};
use interceptor::parity::{backend, plan::Place, proxy::ProxyKind, runner::Runner, world::World};
use serde_json::Value;

/// The `interceptor` command of the same build as the running test.
///
/// # Panics
/// If it is not there, or older than its sources: `cargo test` does not build another package's command.
#[must_use]
pub fn interceptor() -> PathBuf {
    built_command().unwrap_or_else(|error| panic!("{error:#}; build it with `cargo build --workspace`"))
}

/// A runner of scenarios with the built-in proxy.
#[must_use]
pub fn runner() -> Runner {
    Runner { interceptor: interceptor(), proxy: ProxyKind::Builtin }
}

/// Tells that a test has nothing to show on this machine, and why.
pub fn skipped(reason: &anyhow::Error) {
    tell(format_args!("skipped: {reason:#}"));
}

/// Tells a figure that a test saw and does not judge.
#[expect(clippy::print_stderr, reason = "a test has no other way to tell")]
pub fn tell(seen: fmt::Arguments<'_>) {
    eprintln!("{seen}");
}

/// A number that an environment variable may set, for a run longer than the usual one.
pub fn count<T: FromStr>(variable: &str, usual: T) -> anyhow::Result<T>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    match env::var(variable) {
        Ok(count) => count.parse().with_context(|| format!("{variable} is no number")),
        Err(_) => Ok(usual),
    }
}

/// Whether this kernel runs the eBPF data path, by what the probe says of it; says why if it does not.
pub fn ebpf_runs_here() -> anyhow::Result<bool> {
    let output = Command::new(interceptor()).args(["probe", "--json"]).output()?;
    let report: Value = serde_json::from_slice(&output.stdout).context("probe --json is no JSON")?;
    let grades = report["grades"].as_array().context("the report has no grades")?;
    let ebpf = grades.iter().find(|grade| grade["backend"] == "ebpf").context("eBPF has no grade")?;
    if ebpf["grade"]["is"] == "unavailable" {
        skipped(&anyhow::anyhow!("eBPF lacks {}", ebpf["grade"]["missing"]));
        return Ok(false);
    }
    Ok(true)
}

/// Runs a script in the pod to its good end, and returns what it printed; `$0` is the command.
pub fn shell(world: &World, script: &str) -> anyhow::Result<String> {
    let mut shell = Command::new("sh");
    shell.args(["-e", "-c", script]).arg(interceptor());
    let output = world.run(Some(Place::Pod), &mut shell, "")?;
    ensure!(output.status.success(), "`{script}` failed: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

fn built_command() -> anyhow::Result<PathBuf> {
    let test = env::current_exe().context("cannot find the running test")?;
    let folder = test.parent().and_then(Path::parent).context("the test lies in target/<profile>/deps")?;
    let command = folder.join("interceptor");
    let built = fs::metadata(&command).and_then(|command| command.modified());
    let built = built.with_context(|| format!("there is no {}", command.display()))?;
    // Cargo notes there which files the command was made from: "command: file file ...".
    let sources = fs::read_to_string(folder.join("interceptor.d"))
        .context("cannot read what the command is made of")?;
    for source in sources.split_whitespace().skip(1) {
        // On a machine that runs tests built elsewhere there are no sources, so none is newer.
        let changed = fs::metadata(source).and_then(|source| source.modified());
        ensure!(
            changed.is_err() || changed.is_ok_and(|changed| changed <= built),
            "the command is older than {source}"
        );
    }
    Ok(command)
}

/// The product at work in a world, with a state directory of its own.
pub struct Product<'w> {
    world: &'w World,
    command: PathBuf,
}

impl<'w> Product<'w> {
    /// Prepares for `world`; nothing is installed yet. Whatever is later, goes with the world at the latest.
    pub fn new(world: &'w World) -> anyhow::Result<Self> {
        let product = Self { world, command: interceptor() };
        let mut uninstall = product.command(&["uninstall"]);
        world.on_close(Box::new(move || {
            let output = uninstall.output()?;
            ensure!(output.status.success(), "uninstall failed: {}", String::from_utf8_lossy(&output.stderr));
            Ok(())
        }))?;
        Ok(product)
    }

    /// Where the product keeps its state in this world.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        backend::state_dir(self.world)
    }

    /// Runs `interceptor --state-dir DIR ARGUMENTS` to its end, whatever comes of it.
    pub fn run(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        self.world.run(None, &mut self.command(arguments), "")
    }

    /// The same, from inside a namespace.
    pub fn run_in(&self, place: Place, arguments: &[&str]) -> anyhow::Result<Output> {
        self.world.run(Some(place), &mut self.command(arguments), "")
    }

    /// Enrols a pod under a capture, given as flags.
    pub fn apply(&self, pod: Place, capture: &[&str]) -> anyhow::Result<()> {
        let output = self.world.run(None, &mut self.apply_command(pod, capture)?, "")?;
        succeed("apply", &output)
    }

    /// The command line that enrols a pod.
    pub fn apply_command(&self, pod: Place, capture: &[&str]) -> anyhow::Result<Command> {
        let mut command = self.command(&["apply", "--backend", "ebpf"]);
        command.args(capture).arg("--netns").arg(self.world.namespace(pod)?.path());
        command.arg("--cgroup").arg(self.world.cgroup());
        Ok(command)
    }

    /// Releases a pod.
    pub fn release(&self, pod: Place) -> anyhow::Result<()> {
        let mut command = self.command(&["release"]);
        command.arg("--netns").arg(self.world.namespace(pod)?.path());
        succeed("release", &self.world.run(None, &mut command, "")?)
    }

    /// Takes everything out.
    pub fn uninstall(&self) -> anyhow::Result<()> {
        succeed("uninstall", &self.run(&["uninstall"])?)
    }

    /// What `status --json` says.
    pub fn status(&self) -> anyhow::Result<Value> {
        let output = self.run(&["status", "--json"])?;
        succeed("status", &output)?;
        serde_json::from_slice(&output.stdout).context("status --json is no JSON")
    }

    /// The command line of the product with these arguments.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.command);
        command.env_clear().arg("--state-dir").arg(self.state_dir()).args(arguments);
        command
    }
}

fn succeed(what: &str, output: &Output) -> anyhow::Result<()> {
    if !output.status.success() {
        bail!("{what} failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
