//! Who intercepts in a world.

use std::{
    collections::BTreeMap,
    fmt,
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
    capture::{Capture, CaptureArgs, Detected},
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
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::IptablesNft => "iptables-nft",
            Self::IptablesLegacy => "iptables-legacy",
            Self::Ebpf => "ebpf",
        })
    }
}

impl Backend {
    /// Puts a pod under interception. `interceptor` is the path of the `interceptor` command.
    pub fn apply(
        self,
        world: &World,
        interceptor: &Path,
        pod: Place,
        capture: &[&str],
    ) -> anyhow::Result<()> {
        match self {
            Self::None => {}
            Self::IptablesNft | Self::IptablesLegacy => {
                if settle(world.namespace(pod)?, capture)?.ipv6 {
                    // istio-iptables does so too: unlike 127.0.0.6, the IPv6 source of the proxy is no address of its
                    // own accord.
                    world.add_to_loopback(pod, Host::Loopback(6).address(Family::V6))?;
                }
            }
            Self::Ebpf => {
                let mut uninstall = Command::new(interceptor);
                uninstall.arg("--state-dir").arg(state_dir(world)).arg("uninstall");
                world.on_close(Box::new(move || succeed(&uninstall.output()?, "interceptor uninstall")))?;
            }
        }
        for mut step in self.steps(world, interceptor, world.namespace(pod)?, capture)? {
            let name = step.command.get_program().to_string_lossy().into_owned();
            let output = world.run(step.inside.then_some(pod), &mut step.command, &step.input)?;
            succeed(&output, &name)?;
        }
        Ok(())
    }

    /// The commands that put a namespace under interception, in their order.
    pub fn steps(
        self,
        world: &World,
        interceptor: &Path,
        namespace: &Namespace,
        capture: &[&str],
    ) -> anyhow::Result<Vec<Step>> {
        match self {
            Self::None => Ok(Vec::new()),
            Self::IptablesNft => Ok(restore(&settle(namespace, capture)?, "nft")),
            Self::IptablesLegacy => Ok(restore(&settle(namespace, capture)?, "legacy")),
            Self::Ebpf => Ok(vec![enrol(world, interceptor, namespace, capture)]),
        }
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

/// The capture that flags mean in a namespace.
fn settle(namespace: &Namespace, flags: &[&str]) -> anyhow::Result<Capture> {
    let capture = Flags::try_parse_from(flags).context("the scenario's capture flags are wrong")?.capture;
    let detected = namespace.enter(|| Ok(Detected { environment: BTreeMap::new(), ..Detected::here()? }))?;
    Ok(capture.capture(&detected)?)
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

fn enrol(world: &World, interceptor: &Path, namespace: &Namespace, capture: &[&str]) -> Step {
    let mut command = Command::new(interceptor);
    command.arg("--state-dir").arg(state_dir(world)).arg("apply").args(capture);
    // The environment of whoever runs this is no part of the scenario.
    command.env_clear();
    command.arg("--netns").arg(namespace.path()).arg("--cgroup").arg(world.cgroup());
    Step { command, input: String::new(), inside: false }
}

fn succeed(output: &std::process::Output, name: &str) -> anyhow::Result<()> {
    if !output.status.success() {
        bail!("{name} failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
