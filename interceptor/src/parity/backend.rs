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
    world::World,
};
use crate::{
    capture::{CaptureArgs, Detected},
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
    /// Puts a pod under interception. `interceptor` is the path of the `interceptor` command.
    pub fn apply(
        self,
        world: &World,
        interceptor: &Path,
        pod: Place,
        capture: &[&str],
    ) -> anyhow::Result<()> {
        match self {
            Self::None => Ok(()),
            Self::IptablesNft => restore(world, pod, capture, "nft"),
            Self::IptablesLegacy => restore(world, pod, capture, "legacy"),
            Self::Ebpf | Self::Iptables | Self::Nft => enrol(self, world, interceptor, pod, capture),
        }
    }
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

/// Loads Istio's rules for the capture with the tools of one kind.
fn restore(world: &World, pod: Place, flags: &[&str], kind: &str) -> anyhow::Result<()> {
    let capture = Flags::try_parse_from(flags).context("the scenario's capture flags are wrong")?.capture;
    let detected =
        world.namespace(pod)?.enter(|| Ok(Detected { environment: BTreeMap::new(), ..Detected::here()? }))?;
    let capture = capture.capture(&detected)?;
    if capture.ipv6 {
        // istio-iptables does so too: unlike 127.0.0.6, the IPv6 source of the proxy is no address of its own accord.
        world.add_to_loopback(pod, Host::Loopback(6).address(Family::V6))?;
    }
    let rules = nat::generate(&capture);
    for (program, entries) in [("iptables", &rules.v4), ("ip6tables", &rules.v6)] {
        if !entries.is_empty() {
            let mut command = Command::new(format!("{program}-{kind}-restore"));
            // The legacy tools share one lock on the whole machine; waiting for it is bounded.
            command.args(["--noflush", "--wait", "30"]);
            run(world, Some(pod), &mut command, &nat::restore::text(entries))?;
        }
    }
    Ok(())
}

fn enrol(
    backend: Backend,
    world: &World,
    interceptor: &Path,
    pod: Place,
    capture: &[&str],
) -> anyhow::Result<()> {
    let state = state_dir(world);
    let mut uninstall = Command::new(interceptor);
    uninstall.arg("--state-dir").arg(&state).arg("uninstall");
    world.on_close(Box::new(move || succeed(&uninstall.output()?, "interceptor uninstall")))?;

    let mut apply = Command::new(interceptor);
    apply.arg("--state-dir").arg(&state).arg("apply").args(capture).args(["--backend", &backend.to_string()]);
    // The environment of whoever runs this is no part of the scenario, but for the way to the tools.
    apply.env_clear().envs(env::var_os("PATH").map(|path| ("PATH", path)));
    apply.arg("--netns").arg(world.namespace(pod)?.path()).arg("--cgroup").arg(world.cgroup());
    run(world, None, &mut apply, "")
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
