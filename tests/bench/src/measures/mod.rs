//! What is measured.

mod application;
mod calls;
mod capacity;
mod established;
mod growth;
mod memory;
mod set_up;

use clap::ValueEnum;

use crate::bench::Bench;

/// A group of measures that share their worlds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Measure {
    /// Connections made: rate, latency, CPU time.
    SetUp,
    /// Connections in use: round trips and throughput.
    Established,
    /// Set-up with more and more excluded CIDRs.
    Cidrs,
    /// Set-up with more and more excluded ports.
    Ports,
    /// Set-up with more and more workloads on the node.
    Workloads,
    /// Set-up with more and more open connections.
    Connections,
    /// How many connections a pod can hold, and make in a row.
    Capacity,
    /// Single system calls, of bystanders and inside.
    Calls,
    /// Putting a workload under interception and taking it out.
    Apply,
    /// Memory of a workload and of a connection.
    Memory,
}

impl Measure {
    /// Takes it.
    pub(crate) fn take(self, bench: &mut Bench) -> anyhow::Result<()> {
        match self {
            Self::SetUp => set_up::measure(bench),
            Self::Established => established::measure(bench),
            Self::Cidrs => growth::cidrs(bench),
            Self::Ports => growth::ports(bench),
            Self::Workloads => growth::workloads(bench),
            Self::Connections => growth::connections(bench),
            Self::Capacity => capacity::measure(bench),
            Self::Calls => calls::measure(bench),
            Self::Apply => application::measure(bench),
            Self::Memory => memory::measure(bench),
        }
    }
}
