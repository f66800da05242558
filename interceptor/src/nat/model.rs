//! Rules as data.

use std::{borrow::Cow, fmt};

use ipnet::IpNet;

use crate::capture::PortRange;

/// The rules of both families, each in the order in which they are to be loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleSet {
    /// IPv4 rules.
    pub v4: Vec<Entry>,
    /// IPv6 rules.
    pub v6: Vec<Entry>,
}

impl RuleSet {
    /// The rules of one family.
    #[must_use]
    pub fn family(&self, family: Family) -> &[Entry] {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }
}

/// An address family. iptables keeps their rules apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// Whether `cidr` is of this family.
    #[must_use]
    pub fn has(self, cidr: &IpNet) -> bool {
        matches!((self, cidr), (Self::V4, IpNet::V4(_)) | (Self::V6, IpNet::V6(_)))
    }
}

/// One rule and where it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The table.
    pub table: Table,
    /// The chain in the table.
    pub chain: Chain,
    /// The place the rule takes in its chain, counted from 1; `None` for the end.
    pub place: Option<usize>,
    /// The rule.
    pub rule: Rule,
}

/// A table, in the order Istio loads them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// Drops packets.
    Filter,
    /// Marks packets.
    Mangle,
    /// Rewrites addresses.
    Nat,
    /// Comes before conntrack.
    Raw,
}

impl Table {
    /// Every table that Istio uses.
    pub const ALL: [Self; 4] = [Self::Filter, Self::Mangle, Self::Nat, Self::Raw];

    /// The name iptables knows.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::Mangle => "mangle",
            Self::Nat => "nat",
            Self::Raw => "raw",
        }
    }

    /// The chains the kernel calls, in the order iptables lists them.
    #[must_use]
    pub const fn built_in(self) -> &'static [&'static str] {
        match self {
            Self::Filter => &["INPUT", "FORWARD", "OUTPUT"],
            Self::Mangle => &["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"],
            Self::Nat => &["PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"],
            Self::Raw => &["PREROUTING", "OUTPUT"],
        }
    }
}

/// The name of a chain.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Chain(Cow<'static, str>);

impl Chain {
    /// Called for packets that arrive.
    pub const PREROUTING: Self = Self(Cow::Borrowed("PREROUTING"));
    /// Called for packets that leave, sent by this host.
    pub const OUTPUT: Self = Self(Cow::Borrowed("OUTPUT"));
    /// Istio's decision on inbound connections.
    pub const INBOUND: Self = Self(Cow::Borrowed("ISTIO_INBOUND"));
    /// Istio's decision on outbound connections.
    pub const ISTIO_OUTPUT: Self = Self(Cow::Borrowed("ISTIO_OUTPUT"));
    /// To the outbound port.
    pub const REDIRECT: Self = Self(Cow::Borrowed("ISTIO_REDIRECT"));
    /// To the inbound port.
    pub const IN_REDIRECT: Self = Self(Cow::Borrowed("ISTIO_IN_REDIRECT"));
    /// Istio's decision on DNS queries.
    pub const DNS: Self = Self(Cow::Borrowed("ISTIO_OUTPUT_DNS"));
    /// Marks packets of connections the proxy has accepted.
    pub const DIVERT: Self = Self(Cow::Borrowed("ISTIO_DIVERT"));
    /// To the inbound port, addresses unchanged.
    pub const TPROXY: Self = Self(Cow::Borrowed("ISTIO_TPROXY"));
    /// Drops packets that conntrack calls INVALID.
    pub const INVALID: Self = Self(Cow::Borrowed("ISTIO_DROP"));

    /// A chain by its name.
    #[must_use]
    pub fn named(name: impl Into<String>) -> Self {
        Self(Cow::Owned(name.into()))
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0
    }

    /// Whether the kernel calls a chain of this name in some table.
    #[must_use]
    pub fn is_built_in(&self) -> bool {
        matches!(self.name(), "INPUT" | "OUTPUT" | "FORWARD" | "PREROUTING" | "POSTROUTING")
    }

    /// Whether the name says that Istio made the chain.
    #[must_use]
    pub fn is_istio(&self) -> bool {
        self.name().starts_with("ISTIO_")
    }
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// If every match holds, do what the target says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What must hold, in the order written.
    pub matches: Vec<Match>,
    /// What happens then.
    pub target: Target,
}

impl Rule {
    /// A rule of these parts.
    #[must_use]
    pub fn new(matches: impl Into<Vec<Match>>, target: Target) -> Self {
        Self { matches: matches.into(), target }
    }

    /// The protocol it is for, if it names one.
    #[must_use]
    pub fn protocol(&self) -> Option<Protocol> {
        let protocol =
            |part: &Match| if let Test::Protocol(protocol) = part.test { Some(protocol) } else { None };
        self.matches.iter().find_map(protocol)
    }
}

/// A test on a packet, or its opposite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Match {
    /// Whether the test must fail.
    pub negated: bool,
    /// The test.
    pub test: Test,
}

/// What a packet can be tested for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Test {
    /// It comes from an address in the range.
    Source(IpNet),
    /// It goes to an address in the range.
    Destination(IpNet),
    /// It came in through the interface; a trailing `+` stands for any ending.
    InInterface(String),
    /// It goes out through the interface; a trailing `+` stands for any ending.
    OutInterface(String),
    /// It is of the protocol.
    Protocol(Protocol),
    /// It comes from a port in the range.
    SourcePorts(PortRange),
    /// It goes to a port in the range.
    DestinationPorts(PortRange),
    /// It goes to a port in one of the ranges.
    AnyDestinationPorts(Vec<PortRange>),
    /// Its socket was made by the user.
    Uid(u32),
    /// Its socket was made by the group.
    Gid(u32),
    /// Conntrack has its connection in one of the states.
    ConntrackState(Vec<String>),
    /// Its mark under the mask is the value.
    Mark(Mark),
    /// Its connection's mark under the mask is the value.
    ConnectionMark(Mark),
    /// Always true; a note for the reader.
    Comment(String),
    /// A test this program cannot evaluate, as iptables writes it.
    Other(String),
}

impl Test {
    /// The ranges of destination ports it is about; none if it is about something else.
    #[must_use]
    pub fn destination_ports(&self) -> &[PortRange] {
        if let Self::DestinationPorts(range) = self {
            std::slice::from_ref(range)
        } else if let Self::AnyDestinationPorts(ranges) = self {
            ranges
        } else {
            &[]
        }
    }

    /// The match that holds when the test does.
    #[must_use]
    pub const fn is(self) -> Match {
        Match { negated: false, test: self }
    }

    /// The match that holds when the test does not.
    #[must_use]
    pub const fn is_not(self) -> Match {
        Match { negated: true, test: self }
    }
}

/// A value of a firewall mark and the bits that count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The value.
    pub value: u32,
    /// The bits that count.
    pub mask: u32,
}

impl From<u32> for Mark {
    fn from(value: u32) -> Self {
        Self { value, mask: u32::MAX }
    }
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// Another one, by IANA number.
    Other(u8),
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp => f.write_str("tcp"),
            Self::Udp => f.write_str("udp"),
            Self::Other(number) => write!(f, "{number}"),
        }
    }
}

/// What a rule does with a packet that matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Go back to the calling chain; in a built-in chain, accept.
    Return,
    /// Accept: no further rule of this table.
    Accept,
    /// Drop.
    Drop,
    /// Go on in another chain.
    Jump(Chain),
    /// Rewrite the destination to the local address of the interface, with this port.
    Redirect(u16),
    /// Give the packet to a local socket at this port and set the mark.
    Tproxy {
        /// The socket's port.
        port: u16,
        /// The mark the packet gets.
        mark: u32,
    },
    /// Set the packet's mark and go on.
    SetMark(u32),
    /// Copy the packet's mark to its connection and go on.
    SaveMark,
    /// Copy the connection's mark to the packet and go on.
    RestoreMark,
    /// Keep the connection apart from those of other zones, and go on.
    Zone(u16),
    /// Count and go on.
    None,
    /// A target this program cannot evaluate, as iptables writes it, `-j` or `-g` included.
    Other(String),
}

impl Target {
    /// The chain in which to go on, if any.
    #[must_use]
    pub fn jump(&self) -> Option<&Chain> {
        if let Self::Jump(chain) = self { Some(chain) } else { None }
    }
}
