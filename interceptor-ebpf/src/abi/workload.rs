//! One network namespace under interception.

use core::ops::{BitOr, BitOrAssign};

use super::{Endpoint, Entry, Listener, OriginalDestination, Target, assert_size};
use crate::policy::Reason;

/// A workload's capture in numbers: the entry of [`super::Subject::Workload`] in its policy table, which has the lists.
///
/// Its words are 32 bits wide, because a trie's values are not aligned for more.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Workload {
    /// Digest of everything the table was made from, low word first, so that `apply` can tell that nothing changes.
    pub digest: [u32; 2],
    /// What is switched on.
    pub switches: Switches,
    /// First user id of the proxy: its rules hide later ones' on `lo`, as in Istio.
    pub proxy_user: u32,
    /// First group id of the proxy.
    pub proxy_group: u32,
    /// Port of the outbound listener.
    pub outbound_port: u16,
    /// Port of the inbound listener.
    pub inbound_port: u16,
    /// Port that is never redirected inbound, nor outbound to the workload itself.
    pub tunnel_port: u16,
    /// Port of the DNS listener.
    pub dns_port: u16,
    /// The mark of packets that TPROXY must leave alone (`-t`).
    pub tproxy_mark: u32,
    /// The routing table of those packets (`-r`). No program reads it.
    pub tproxy_table: u32,
    /// What enrolment switched on in the namespace beside, for `release` to switch off. No program reads it.
    pub switched_on: u32,
}

/// What a workload has switched on, so that look-ups with no possible answer are not made.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Switches(pub u32);

/// Connections of one workload by reason, one set a CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counters {
    /// Indexed by [`Reason`].
    pub by_reason: [u64; Reason::COUNT],
}

assert_size!(Workload, 40);
const _: () = assert!(align_of::<Workload>() == align_of::<Entry>());

impl Workload {
    /// Reads the workload out of the entry of [`super::Subject::Workload`].
    #[inline(always)]
    #[must_use]
    pub const fn of_entry(entry: &Entry) -> &Self {
        // SAFETY: both types are plain integers of the same size and alignment (asserted above), any bits are valid.
        unsafe { &*core::ptr::from_ref(entry).cast::<Self>() }
    }

    /// Whether any of these is switched on.
    ///
    /// Read anew each time, as [`Entry::has`] does.
    #[inline(always)]
    #[must_use]
    pub fn any(&self, switches: Switches) -> bool {
        // SAFETY: the reference is valid for reads.
        unsafe { (&raw const self.switches).read_volatile() }.any(switches)
    }

    /// The port of a listener, in host order.
    #[inline(always)]
    #[must_use]
    pub const fn port_of(&self, listener: Listener) -> u16 {
        match listener {
            Listener::INBOUND | Listener::INBOUND_LOCAL => self.inbound_port,
            Listener::DNS => self.dns_port,
            _ => self.outbound_port,
        }
    }

    /// Where a connection to `original` is rewritten to for a listener. TPROXY rewrites nothing.
    #[inline(always)]
    #[must_use]
    pub fn target(&self, original: &OriginalDestination, listener: Listener) -> Target {
        if listener.is_transparent() {
            return Target(original.0);
        }
        let spread = if original.0.address.is_v4() { Switches::SPREAD } else { Switches::SPREAD_V6 };
        let address = if self.any(spread) {
            original.spread_address()
        } else {
            original.0.address.loopback_of_family()
        };
        Target(Endpoint::new(address, self.port_of(listener)))
    }

    /// Where a DNS query over UDP to `original` is rewritten to.
    #[inline(always)]
    #[must_use]
    pub const fn datagram_target(&self, original: &OriginalDestination) -> Endpoint {
        Endpoint::new(original.0.address.loopback_of_family(), self.dns_port)
    }

    /// Whether one of the proxy's listeners has this port (host order).
    #[inline(always)]
    #[must_use]
    pub const fn is_proxy_port(&self, port: u16) -> bool {
        port == self.outbound_port || port == self.inbound_port || port == self.dns_port
    }

    /// The entry to store under [`super::Subject::Workload`].
    #[must_use]
    pub const fn to_entry(&self) -> Entry {
        // SAFETY: as in `of_entry`.
        unsafe { *core::ptr::from_ref(self).cast::<Entry>() }
    }
}

impl Switches {
    /// Inbound ports are intercepted unless excluded (`-b '*'`).
    pub const INBOUND_ALL: Self = Self(1);
    /// The policy table has inbound ports.
    pub const INBOUND_PORTS: Self = Self(1 << 1);
    /// Every outbound destination is intercepted unless excluded (`-i '*'`).
    pub const OUTBOUND_ALL: Self = Self(1 << 2);
    /// The policy table has outbound ports (`-o`, `-q`).
    pub const OUTBOUND_PORTS: Self = Self(1 << 3);
    /// The proxy has user ids: `proxy_user` is meant.
    pub const PROXY_USERS: Self = Self(1 << 4);
    /// The policy table has further proxy users.
    pub const MORE_USERS: Self = Self(1 << 5);
    /// The proxy has group ids: `proxy_group` is meant.
    pub const PROXY_GROUPS: Self = Self(1 << 6);
    /// The policy table has further proxy groups.
    pub const MORE_GROUPS: Self = Self(1 << 7);
    /// Owner groups in the policy table are excluded.
    pub const OWNER_GROUPS_EXCLUDED: Self = Self(1 << 8);
    /// Only owner groups in the policy table are intercepted.
    pub const OWNER_GROUPS_ONLY: Self = Self(1 << 9);
    /// DNS queries to some servers are captured.
    pub const DNS: Self = Self(1 << 10);
    /// DNS queries to every server are captured.
    pub const DNS_ALL: Self = Self(1 << 11);
    /// A loopback range is included on purpose: local calls of others are not let pass (`-i 127.0.0.0/8`).
    pub const LOOPBACK_INCLUDED: Self = Self(1 << 12);
    /// IPv6 is intercepted too.
    pub const IPV6: Self = Self(1 << 13);
    /// The policy table has excluded interfaces (`-c`).
    pub const EXCLUDED_INTERFACES: Self = Self(1 << 14);
    /// Inbound connections keep their addresses on the proxy's socket (`-m TPROXY`).
    pub const TPROXY: Self = Self(1 << 15);
    /// Redirected IPv4 destinations are spread over 127.128.0.0/9.
    pub const SPREAD: Self = Self(1 << 16);
    /// Redirected IPv6 destinations are spread over the prefix of [`super::SPREAD_V6`].
    pub const SPREAD_V6: Self = Self(1 << 24);
    /// A connection whose original destination cannot be kept passes unintercepted instead of failing.
    pub const BYPASS_ON_ERROR: Self = Self(1 << 17);

    /// The policy table has interfaces whose arriving traffic is outbound (`-k`).
    pub const REROUTED_INTERFACES: Self = Self(1 << 18);
    /// Everybody's calls of the workload to itself go to the inbound listener, as in Istio 1.3 and 1.4.
    pub const SELF_CALLS_INBOUND: Self = Self(1 << 19);
    /// Everybody's calls of the workload to itself go to the outbound listener, as before Istio 1.3.
    pub const SELF_CALLS_OUTBOUND: Self = Self(1 << 20);
    /// The tunnel port is an inbound port like any other, as before Istio 1.7.
    pub const INBOUND_TUNNEL: Self = Self(1 << 21);
    /// The tunnel port is like any other in calls of the workload to itself, as before Istio 1.18.
    pub const SELF_CALL_TUNNEL: Self = Self(1 << 22);
    /// 127.0.0.6 and `::6` are source addresses like any other, as before Istio 1.3.
    pub const PASSTHROUGH_SOURCE: Self = Self(1 << 23);
    /// DNS queries over UDP are decided before anything but the interface, as before Istio 1.23.
    pub const UDP_DNS_FIRST: Self = Self(1 << 25);

    /// Whether any of `switches` is on.
    #[inline(always)]
    #[must_use]
    pub const fn any(self, switches: Self) -> bool {
        self.0 & switches.0 != 0
    }
}

impl BitOr for Switches {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for Switches {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

impl Default for Counters {
    fn default() -> Self {
        Self { by_reason: [0; Reason::COUNT] }
    }
}
