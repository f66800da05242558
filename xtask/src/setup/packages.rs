//! Packages of the system, on Debian and its kin.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use indicatif::ProgressBar;
use nix::unistd::geteuid;

use super::Tool;
use crate::process;

/// System packages, each with a command that only it brings: by name, or by path if it is in no folder of commands.
pub(super) struct Packages(&'static [(&'static str, &'static str)]);

impl Packages {
    /// What worlds of namespaces are made of, and the rules that eBPF is compared with.
    pub(super) const FOR_WORLDS: Self =
        Self(&[("iproute2", "ip"), ("iptables", "iptables-nft-restore"), ("nftables", "nft")]);

    /// The CNI plugins that ours is chained after.
    pub(super) const FOR_CNI: Self = Self(&[("containernetworking-plugins", "/usr/lib/cni/bridge")]);

    /// A resolver, and those who ask one.
    pub(super) const FOR_DNS: Self =
        Self(&[("dnsmasq-base", "dnsmasq"), ("bind9-dnsutils", "dig"), ("musl-tools", "musl-gcc")]);

    fn names(&self) -> Vec<&'static str> {
        self.0.iter().filter(|(_, command)| process::find(command).is_none()).map(|(name, _)| *name).collect()
    }
}

impl Tool for Packages {
    fn missing(&self) -> Option<String> {
        let names = self.names();
        (!names.is_empty()).then(|| names.join(", "))
    }

    fn purpose(&self) -> &'static str {
        "make test networks, the rules that eBPF is compared with, the containers that CNI plugins serve, and DNS"
    }

    fn install(&self, progress: &ProgressBar) -> Result<()> {
        install(&self.names(), progress)
    }
}

/// Installs packages of Debian or Ubuntu.
pub(super) fn install(names: &[&str], progress: &ProgressBar) -> Result<()> {
    let list = names.join(" ");
    let apt = process::find("apt-get").with_context(|| {
        format!(
            "packages can only be installed on Debian and Ubuntu (no apt-get here): install {list} by hand"
        )
    })?;
    ensure!(geteuid().is_root(), "only root may install packages: run `apt-get install {list}` as root");
    let apt_get = || {
        let mut command = Command::new(&apt);
        command.env("DEBIAN_FRONTEND", "noninteractive").arg("--quiet");
        command
    };
    let mut update = apt_get();
    update.arg("update");
    process::run_quietly(update, progress)?;
    let mut install = apt_get();
    install.args(["install", "--yes", "--no-install-recommends"]).args(names);
    process::run_quietly(install, progress)
}
