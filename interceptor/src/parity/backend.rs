//! Who intercepts in a world.

use std::{
    collections::BTreeMap,
    env, fmt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};
use clap::{Parser, ValueEnum};
use serde::Serialize;

use super::{
    plan::{Family, Host, Place},
    world::{Namespace, World},
};
use crate::{
    capture::{Capture, CaptureArgs, CommandLine, Detected},
    datapath::BPFFS,
    nat,
};

/// Who intercepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Backend {
    /// Nobody.
    None,
    /// Istio's rules, by `iptables-nft`.
    IptablesNft,
    /// Istio's rules, by `iptables-legacy`.
    IptablesLegacy,
    /// This product's eBPF programs.
    Ebpf,
    /// The same rules as `iptables-nft`, loaded by this product with the iptables it finds.
    Iptables,
    /// Rules that say the same, loaded by this product with nft.
    Nft,
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::IptablesNft => "iptables-nft",
            Self::IptablesLegacy => "iptables-legacy",
            Self::Ebpf => "ebpf",
            Self::Iptables => "iptables",
            Self::Nft => "nft",
        })
    }
}

impl Backend {
    /// Whether it enforces by nat rules.
    #[must_use]
    pub fn is_nat(self) -> bool {
        match self {
            Self::IptablesNft | Self::IptablesLegacy | Self::Iptables | Self::Nft => true,
            Self::None | Self::Ebpf => false,
        }
    }

    /// Puts a pod under interception. `interceptor` is the path of the `interceptor` command.
    pub fn apply(
        self,
        world: &World,
        interceptor: &Path,
        pod: Place,
        capture: impl Into<CommandLine>,
    ) -> anyhow::Result<()> {
        let line = capture.into();
        if self.iptables().is_some() {
            if settle(world.namespace(pod)?, &line)?.ipv6 {
                // istio-iptables does so too: unlike 127.0.0.6, the IPv6 source of the proxy is no address of its own
                // accord.
                world.add_to_loopback(pod, Host::Loopback(6).address(Family::V6))?;
            }
        } else if self != Self::None {
            let mut uninstall = Command::new(interceptor);
            uninstall.arg("--state-dir").arg(state_dir(world)).arg("uninstall");
            world.on_close(Box::new(move || succeed(&uninstall.output()?, "interceptor uninstall")))?;
        }
        self.intercept(world, interceptor, pod, &line)
    }

    /// The commands that put a namespace under interception, in their order; without the routes that TPROXY needs.
    pub fn steps(
        self,
        world: &World,
        interceptor: &Path,
        namespace: &Namespace,
        capture: impl Into<CommandLine>,
    ) -> anyhow::Result<Vec<Step>> {
        let line = capture.into();
        match self.iptables() {
            Some(kind) => Ok(restore(&settle(namespace, &line)?, kind)),
            None if self == Self::None => Ok(Vec::new()),
            None => Ok(vec![self.enrol(world, interceptor, namespace, &line)]),
        }
    }

    /// Puts another capture in force on a pod that is under interception.
    pub(super) fn change(
        self,
        world: &World,
        interceptor: &Path,
        pod: Place,
        line: &CommandLine,
    ) -> anyhow::Result<()> {
        if let Some(kind) = self.iptables() {
            empty(world, pod, kind)?;
        }
        self.intercept(world, interceptor, pod, line)
    }

    /// Ends interception of a pod.
    pub(super) fn release(self, world: &World, interceptor: &Path, pod: Place) -> anyhow::Result<()> {
        match self.iptables() {
            Some(kind) => empty(world, pod, kind),
            None if self == Self::None => Ok(()),
            None => {
                let mut release = Command::new(interceptor);
                release.arg("--state-dir").arg(state_dir(world)).arg("release");
                release.arg("--netns").arg(world.namespace(pod)?.path());
                run(world, None, &mut release, "")
            }
        }
    }

    /// The kind of iptables that holds Istio's own rules, under the backends that are Istio.
    fn iptables(self) -> Option<&'static str> {
        match self {
            Self::IptablesNft => Some("nft"),
            Self::IptablesLegacy => Some("legacy"),
            Self::None | Self::Ebpf | Self::Iptables | Self::Nft => None,
        }
    }

    fn intercept(
        self,
        world: &World,
        interceptor: &Path,
        pod: Place,
        line: &CommandLine,
    ) -> anyhow::Result<()> {
        let namespace = world.namespace(pod)?;
        for mut step in self.steps(world, interceptor, namespace, line.clone())? {
            run(world, step.inside.then_some(pod), &mut step.command, &step.input)?;
        }
        if self.iptables().is_some() {
            let capture = settle(namespace, line)?;
            namespace.enter(|| Ok(nat::load::add_routes(&capture)?))?;
        }
        Ok(())
    }

    fn enrol(self, world: &World, interceptor: &Path, namespace: &Namespace, line: &CommandLine) -> Step {
        let mut apply = Command::new(interceptor);
        apply.arg("--state-dir").arg(state_dir(world)).arg("apply").args(&line.flags);
        apply.args(["--backend", &self.to_string()]);
        if self == Self::Iptables {
            apply.arg("--reconcile");
        }
        // The environment of whoever runs this is no part of the scenario, but for the way to the tools.
        apply.env_clear().envs(env::var_os("PATH").map(|path| ("PATH", path)));
        apply.envs(line.environment.iter().map(|(name, value)| (name, value)));
        apply.arg("--netns").arg(namespace.path()).arg("--cgroup").arg(world.cgroup());
        Step { command: apply, input: String::new(), inside: false }
    }
}

/// One command that changes what is intercepted.
#[derive(Debug)]
pub struct Step {
    /// The command.
    pub command: Command,
    /// What it reads from its standard input.
    pub input: String,
    /// Whether it must run inside the namespace.
    pub inside: bool,
}

/// Where the eBPF backend keeps a world's state.
#[must_use]
pub fn state_dir(world: &World) -> PathBuf {
    Path::new(BPFFS).join(world.name())
}

/// A capture's flags as a command line of their own.
#[derive(Debug, Parser)]
#[command(no_binary_name = true)]
struct Flags {
    #[command(flatten)]
    capture: CaptureArgs,
}

/// The capture that a command line makes in a namespace.
pub(super) fn settle(namespace: &Namespace, line: &CommandLine) -> anyhow::Result<Capture> {
    let flags = Flags::try_parse_from(&line.flags).context("the scenario's capture flags are wrong")?;
    let environment: BTreeMap<_, _> =
        line.environment.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    let detected = namespace.enter(|| Ok(Detected { environment, ..Detected::here()? }))?;
    Ok(flags.capture.capture(&detected)?)
}

/// Loads Istio's rules for the capture with the tools of one kind.
fn restore(capture: &Capture, kind: &str) -> Vec<Step> {
    let rules = nat::generate(capture);
    let families = [("iptables", &rules.v4), ("ip6tables", &rules.v6)];
    let steps = families.into_iter().filter(|(_, entries)| !entries.is_empty()).map(|(program, entries)| {
        let mut command = Command::new(format!("{program}-{kind}-restore"));
        // The legacy tools share one lock on the whole machine; waiting for it is bounded.
        command.args(["--noflush", "--wait", "30"]);
        Step { command, input: nat::restore::text(entries), inside: true }
    });
    steps.collect()
}

/// Removes every rule and chain.
fn empty(world: &World, pod: Place, kind: &str) -> anyhow::Result<()> {
    let text = ["raw", "mangle", "nat"].map(|table| format!("*{table}\nCOMMIT\n")).concat();
    for program in ["iptables", "ip6tables"] {
        let mut command = Command::new(format!("{program}-{kind}-restore"));
        run(world, Some(pod), command.args(["--wait", "30"]), &text)?;
    }
    Ok(())
}

fn run(world: &World, place: Option<Place>, command: &mut Command, input: &str) -> anyhow::Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = world.run(place, command, input)?;
    succeed(&output, &name)
}

fn succeed(output: &std::process::Output, name: &str) -> anyhow::Result<()> {
    if !output.status.success() {
        bail!("{name} failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
