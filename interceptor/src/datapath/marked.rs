//! What TPROXY needs in a workload's namespace: that packets with its mark are local, and answers have the mark.

use interceptor_ebpf::abi::Workload;

use super::DatapathError;
use crate::{
    capture::{Capture, InboundMode, InboundPorts},
    netns::Netns,
    routes,
};

/// A mark whose packets are local, by a routing table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Marked {
    mark: u32,
    table: u32,
}

impl Marked {
    /// What a capture needs: nothing but in mode TPROXY, and there nothing if no port is intercepted.
    pub(super) fn of(capture: &Capture) -> Option<Self> {
        let needed =
            capture.inbound_mode == InboundMode::Tproxy && capture.inbound_ports != InboundPorts::None;
        needed.then_some(Self { mark: capture.tproxy_mark, table: capture.tproxy_table })
    }

    /// What a workload was given.
    pub(super) fn noted(workload: &Workload) -> Option<Self> {
        let Workload { tproxy_mark: mark, tproxy_table: table, .. } = *workload;
        (table != 0).then_some(Self { mark, table })
    }

    /// The routing table.
    pub(super) fn table(self) -> u32 {
        self.table
    }

    /// Adds what is missing. Returns what was switched on for it, for the workload's record.
    pub(super) fn add(self, netns: &Netns, ipv6: bool) -> Result<u32, DatapathError> {
        Ok(netns.run(|| routes::add_marked(self.mark, self.table, ipv6))??)
    }

    /// Takes it out again, and switches off what was switched on.
    pub(super) fn remove(self, netns: &Netns, switched_on: u32) -> Result<(), DatapathError> {
        Ok(netns.run(|| routes::remove_marked(self.mark, self.table, switched_on))??)
    }
}
