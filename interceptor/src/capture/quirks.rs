//! Behaviour of older Istio releases that today's flags cannot express.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// What an older Istio release did differently. The default is what every release since 1.18 does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each tells of one independent change in Istio's history")]
pub struct Quirks {
    /// Whose connections to a local address other than loopback are redirected, and where to.
    pub self_calls: SelfCalls,
    /// Inbound connections to the tunnel port are left alone (since 1.7).
    pub inbound_tunnel_exempt: bool,
    /// The proxy's own connections to a local tunnel port are left alone (since 1.18).
    pub self_call_tunnel_exempt: bool,
    /// Connections from 127.0.0.6 and `::6` to a local address are left alone (since 1.3).
    pub passthrough_source_exempt: bool,
    /// DNS queries over UDP are decided before anything but the interface (before 1.23).
    pub udp_dns_first: bool,
}

impl Default for Quirks {
    fn default() -> Self {
        Self {
            self_calls: SelfCalls::ProxyToInbound,
            inbound_tunnel_exempt: true,
            self_call_tunnel_exempt: true,
            passthrough_source_exempt: true,
            udp_dns_first: false,
        }
    }
}

/// Whose connections to a local address other than loopback are redirected, and where to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SelfCalls {
    /// The proxy's, to the inbound port; everybody else's are left alone (since 1.5).
    #[default]
    ProxyToInbound,
    /// Everybody's, to the inbound port (1.3 and 1.4).
    EveryoneToInbound,
    /// Everybody's, to the outbound port (before 1.3).
    EveryoneToOutbound,
}

/// The name of the value as a flag's.
pub(super) fn self_calls_name(self_calls: SelfCalls) -> String {
    self_calls.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}
