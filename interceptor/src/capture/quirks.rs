//! Behaviour of older Istio releases that today's flags cannot express.

/// What an older Istio release did differently. The default is what every release since 1.18 does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quirks {
    /// Whose connections to a local address other than loopback are redirected, and where to.
    pub self_calls: SelfCalls,
    /// Inbound connections to the tunnel port are left alone (since 1.7).
    pub inbound_tunnel_exempt: bool,
    /// The proxy's own connections to a local tunnel port are left alone (since 1.18).
    pub self_call_tunnel_exempt: bool,
    /// Connections from 127.0.0.6 and `::6` to a local address are left alone (since 1.3).
    pub passthrough_source_exempt: bool,
}

impl Default for Quirks {
    fn default() -> Self {
        Self {
            self_calls: SelfCalls::ProxyToInbound,
            inbound_tunnel_exempt: true,
            self_call_tunnel_exempt: true,
            passthrough_source_exempt: true,
        }
    }
}

/// Whose connections to a local address other than loopback are redirected, and where to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SelfCalls {
    /// The proxy's, to the inbound port; everybody else's are left alone (since 1.5).
    ProxyToInbound,
    /// Everybody's, to the inbound port (1.3 and 1.4).
    EveryoneToInbound,
    /// Everybody's, to the outbound port (before 1.3).
    EveryoneToOutbound,
}
