//! Why a connection was redirected, let pass, or failed.

/// Defines [`Reason`], its count and its names from one list.
macro_rules! reasons {
    ($($(#[$doc:meta])* $reason:ident = $name:literal,)+) => {
        /// Why a connection was redirected, let pass, or failed; each has a counter.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u32)]
        pub enum Reason {
            $($(#[$doc])* $reason,)+
        }

        impl Reason {
            /// Every reason, in the order of its counter.
            pub const ALL: &[Self] = &[$(Self::$reason,)+];
            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();

            /// The name used in output and metrics.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$reason => $name,)+
                }
            }
        }
    };
}

impl Reason {
    /// What became of the connection, in iptables' words: `REDIRECT`, `RETURN` for one that passes, or `REJECT`.
    #[must_use]
    pub const fn target(self) -> &'static str {
        if self as u32 <= Self::Dns as u32 {
            "REDIRECT"
        } else if self.is_failure() {
            "REJECT"
        } else {
            "RETURN"
        }
    }

    /// Whether a connection failed for it, or should have.
    #[must_use]
    pub const fn is_failure(self) -> bool {
        self as u32 >= Self::RecordFailed as u32
    }
}

reasons! {
    /// Redirected: an included destination (`-i`).
    Outbound = "outbound",
    /// Redirected: an included port (`-q`).
    IncludedPort = "included-port",
    /// Redirected: an arriving connection (`-b`).
    Inbound = "inbound",
    /// Redirected: the proxy calling the workload it belongs to.
    ProxyToItself = "proxy-to-itself",
    /// Redirected: the workload calling itself, where an old release of Istio redirected that.
    SelfCall = "self-call",
    /// Redirected: arriving from a virtual machine, so outbound (`-k`).
    Rerouted = "rerouted",
    /// Redirected: a DNS query.
    Dns = "dns",
    /// Passed: the proxy's own connection.
    Proxy = "proxy",
    /// Passed: the application calling itself.
    LocalCall = "local-call",
    /// Passed: to the loopback address.
    Loopback = "loopback",
    /// Passed: from 127.0.0.6 or `::6` to a local address, the proxy handing an inbound connection on.
    PassthroughSource = "passthrough-source",
    /// Passed: an excluded port (`-o`, `-d`).
    ExcludedPort = "excluded-port",
    /// Passed: an excluded destination (`-x`).
    ExcludedAddress = "excluded-address",
    /// Passed: an excluded interface (`-c`).
    ExcludedInterface = "excluded-interface",
    /// Passed: arriving from a virtual machine, for a destination that is not intercepted (`-k`).
    ReroutedInterface = "rerouted-interface",
    /// Passed: an owner group that is not intercepted.
    OwnerGroup = "owner-group",
    /// Passed: not in any list of what to intercept.
    NotIncluded = "not-included",
    /// Passed: the tunnel port, inbound (`-e`).
    TunnelPort = "tunnel-port",
    /// Passed: neither TCP nor a captured DNS query.
    NotTcp = "not-tcp",
    /// Passed: IPv6, which this capture leaves alone.
    Ipv6Off = "ipv6-off",
    /// Passed: no route, so that the kernel gives its own error.
    NoRoute = "no-route",
    /// Failed: the socket's record could not be stored.
    RecordFailed = "error-record",
    /// Failed: the route's source address could not be bound.
    SourceFailed = "error-source",
    /// Failed: a DNS server could not be told from others of the same socket.
    ResolverFailed = "error-resolver",
    /// Failed: `pending` is full.
    PendingFull = "error-pending-full",
    /// Failed: the workload's policy table is missing.
    TableMissing = "error-table-missing",
    /// Refused: the proxy has no listener for it.
    NoListener = "error-no-listener",
    /// Refused: a redirected connection arrived whose original destination is not known.
    OriginalUnknown = "error-original-unknown",
    /// A listening socket of the proxy could not be kept.
    ListenerNotKept = "error-listener-not-kept",
}
