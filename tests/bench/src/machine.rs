//! What the numbers were measured on.

use std::{fmt, fs};

use anyhow::Context as _;
use nix::sys::utsname::uname;
use serde::{Deserialize, Serialize};

/// A machine, without anything by which it could be told from others of its kind.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Machine {
    kernel: String,
    architecture: String,
    processors: usize,
    model: String,
    is_virtual: bool,
    memory_gibibytes: u64,
    /// Connections conntrack can keep on the whole machine; none where it is not there.
    conntrack_maximum: Option<u64>,
}

impl Machine {
    /// This one.
    pub(crate) fn here() -> anyhow::Result<Self> {
        let system = uname()?;
        let processors = fs::read_to_string("/proc/cpuinfo").context("cannot read /proc/cpuinfo")?;
        let memory = fs::read_to_string("/proc/meminfo").context("cannot read /proc/meminfo")?;
        let kibibytes: u64 = field(&memory, "MemTotal")
            .and_then(|total| total.split_whitespace().next())
            .and_then(|kibibytes| kibibytes.parse().ok())
            .context("/proc/meminfo tells no total")?;
        let conntrack = fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_max");
        Ok(Self {
            kernel: system.release().to_string_lossy().into_owned(),
            architecture: system.machine().to_string_lossy().into_owned(),
            processors: processors.lines().filter(|line| line.starts_with("processor")).count(),
            // Not every architecture names its processors there.
            model: field(&processors, "model name").unwrap_or("unnamed processor").to_owned(),
            is_virtual: processors.contains(" hypervisor "),
            memory_gibibytes: kibibytes >> 20,
            conntrack_maximum: conntrack.ok().and_then(|maximum| maximum.trim().parse().ok()),
        })
    }
}

/// As a Markdown list.
impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.is_virtual { " (virtual machine)" } else { "" };
        writeln!(f, "- Linux {}, {}", self.kernel, self.architecture)?;
        writeln!(f, "- {} × {}{kind}", self.processors, self.model)?;
        writeln!(f, "- {} GiB of memory", self.memory_gibibytes)?;
        match self.conntrack_maximum {
            Some(maximum) => writeln!(f, "- room for {maximum} connections in conntrack"),
            None => writeln!(f, "- no conntrack"),
        }
    }
}

fn field<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_once(':').map(|(_, value)| value.trim())
}
