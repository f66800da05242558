//! Who intercepts in a world.

use std::{
    fmt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::bail;
use clap::ValueEnum;
use serde::Serialize;

use super::{plan::Place, world::World};

/// Folder of the BPF filesystem in which every world gets a state directory of its own.
const BPF_FILESYSTEM: &str = "/sys/fs/bpf";

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
            Self::None => Ok(()),
            Self::IptablesNft => restore(world, pod, "iptables-nft-restore"),
            Self::IptablesLegacy => restore(world, pod, "iptables-legacy-restore"),
            Self::Ebpf => enrol(world, interceptor, pod, capture),
        }
    }
}

/// Where the eBPF backend keeps a world's state.
#[must_use]
pub fn state_dir(world: &World) -> PathBuf {
    Path::new(BPF_FILESYSTEM).join(world.name())
}

fn restore(world: &World, pod: Place, program: &str) -> anyhow::Result<()> {
    // The legacy tools share one lock on the whole machine; waiting for it is bounded.
    let mut command = Command::new(program);
    run(world, Some(pod), command.args(["--noflush", "--wait", "30"]), ISTIO_DEFAULT)
}

fn enrol(world: &World, interceptor: &Path, pod: Place, capture: &[&str]) -> anyhow::Result<()> {
    let state = state_dir(world);
    let mut uninstall = Command::new(interceptor);
    uninstall.arg("--state-dir").arg(&state).arg("uninstall");
    world.on_close(Box::new(move || succeed(&uninstall.output()?, "interceptor uninstall")))?;

    let mut apply = Command::new(interceptor);
    apply.arg("--state-dir").arg(&state).arg("apply").args(capture);
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

/// The rules Istio's init container loads for the injector's default flags.
const ISTIO_DEFAULT: &str = "\
* nat
-N ISTIO_INBOUND
-N ISTIO_REDIRECT
-N ISTIO_IN_REDIRECT
-N ISTIO_OUTPUT
-A ISTIO_INBOUND -p tcp --dport 15008 -j RETURN
-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001
-A ISTIO_IN_REDIRECT -p tcp -j REDIRECT --to-ports 15006
-A PREROUTING -p tcp -j ISTIO_INBOUND
-A ISTIO_INBOUND -p tcp --dport 15090 -j RETURN
-A ISTIO_INBOUND -p tcp --dport 15021 -j RETURN
-A ISTIO_INBOUND -p tcp --dport 15020 -j RETURN
-A ISTIO_INBOUND -p tcp -j ISTIO_IN_REDIRECT
-A OUTPUT -j ISTIO_OUTPUT
-A ISTIO_OUTPUT -o lo -s 127.0.0.6/32 -j RETURN
-A ISTIO_OUTPUT -o lo ! -d 127.0.0.1/32 -p tcp ! --dport 15008 -m owner --uid-owner 1337 -j ISTIO_IN_REDIRECT
-A ISTIO_OUTPUT -o lo -m owner ! --uid-owner 1337 -j RETURN
-A ISTIO_OUTPUT -m owner --uid-owner 1337 -j RETURN
-A ISTIO_OUTPUT -o lo ! -d 127.0.0.1/32 -p tcp ! --dport 15008 -m owner --gid-owner 1337 -j ISTIO_IN_REDIRECT
-A ISTIO_OUTPUT -o lo -m owner ! --gid-owner 1337 -j RETURN
-A ISTIO_OUTPUT -m owner --gid-owner 1337 -j RETURN
-A ISTIO_OUTPUT -d 127.0.0.1/32 -j RETURN
-A ISTIO_OUTPUT -j ISTIO_REDIRECT
COMMIT
";
