//! What a workload's capture and routes say of one address, port or id.

use core::ops::{BitOr, BitOrAssign};

use super::{Address, assert_size};

/// Key of a workload's policy table, the data of an LPM key: what is asked about, then its bytes.
///
/// One trie a workload holds addresses, ports, ids and interfaces, so that a change swaps all of them at once.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntryKey {
    subject: u32,
    value: [u32; 4],
}

/// What an [`EntryKey`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Subject {
    /// The workload itself; its entry holds a [`super::Workload`].
    Workload = 0,
    /// An address, by prefix; IPv4 mapped, so its prefix lengths are 96 more.
    Address = 1,
    /// A port of an outbound destination.
    OutboundPort = 2,
    /// A port of an inbound destination.
    InboundPort = 3,
    /// A user id of the initial user namespace.
    User = 4,
    /// A group id of the initial user namespace.
    Group = 5,
    /// An interface index.
    Interface = 6,
}

/// Value of a policy table.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Entry {
    /// What holds of the subject.
    pub marks: Marks,
    /// Index of the interface a route leads out of; 0 for other subjects.
    pub interface: u32,
    /// Source address the kernel chooses for the route; `::` if it has none.
    pub source: Address,
    /// For a local address, the first address of its interface: what nat's REDIRECT shows for packets from outside.
    pub primary: Address,
}

/// An [`Entry`] as plain words.
pub type EntryWords = [u32; 10];

/// Set of facts about a subject.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Marks(pub u32);

assert_size!(EntryKey, 20);
assert_size!(Entry, 40);

const _: () =
    assert!(align_of::<Entry>() == align_of::<EntryWords>() && size_of::<Entry>() == size_of::<EntryWords>());

impl Entry {
    /// The entry that these words are.
    #[inline(always)]
    #[must_use]
    pub const fn of_words(words: &EntryWords) -> &Self {
        // SAFETY: both types are plain integers of the same size and alignment (asserted above), any bits are valid.
        unsafe { &*core::ptr::from_ref(words).cast::<Self>() }
    }

    /// Whether all of these hold of the subject.
    ///
    /// Read anew each time: what the kernel's verifier learns from one test of a word that stays in a register makes
    /// ways through a program differ that would else be one.
    #[inline(always)]
    #[must_use]
    pub fn has(&self, marks: Marks) -> bool {
        // SAFETY: the reference is valid for reads.
        unsafe { (&raw const self.marks).read_volatile() }.has(marks)
    }
}

impl Marks {
    /// The address is local to the namespace: the route leads to `lo` (`-o lo`).
    pub const LOCAL: Self = Self(1);
    /// The address is the capture's loopback address (127.0.0.1/32 unless changed, `::1/128`).
    pub const LOOPBACK: Self = Self(1 << 1);
    /// Never intercepted: `-x`, `-o`, `-d`, `-c` or an excluded owner group, by subject.
    pub const EXCLUDED: Self = Self(1 << 2);
    /// Intercepted: `-i`, `-q`, `-b` or an included owner group, by subject.
    pub const INCLUDED: Self = Self(1 << 3);
    /// A DNS server whose queries are captured.
    pub const DNS_SERVER: Self = Self(1 << 4);
    /// The route leads out of an excluded interface (`-c`).
    pub const EXCLUDED_INTERFACE: Self = Self(1 << 5);
    /// The namespace has no route to the address.
    pub const NO_ROUTE: Self = Self(1 << 6);
    /// The id is one of the proxy's (`-u`, `-g`).
    pub const PROXY: Self = Self(1 << 7);
    /// What arrives on the interface counts as outbound (`-k`).
    pub const REROUTED: Self = Self(1 << 8);

    /// Whether all of `marks` are set.
    #[inline(always)]
    #[must_use]
    pub const fn has(self, marks: Self) -> bool {
        self.0 & marks.0 == marks.0
    }
}

impl BitOr for Marks {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for Marks {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

impl EntryKey {
    /// Bits every key starts with: a prefix length counts from the subject's first bit.
    pub const SUBJECT_BITS: u32 = 32;

    /// Key of the workload's own entry.
    pub const WORKLOAD: Self = Self::of(Subject::Workload, [0; 4]);

    /// Key of an address.
    #[inline(always)]
    #[must_use]
    pub const fn address(address: &Address) -> Self {
        Self::of(Subject::Address, address.words())
    }

    /// Key of a port.
    #[inline(always)]
    #[must_use]
    pub const fn port(subject: Subject, port: u16) -> Self {
        Self::of(subject, [((port as u32) << 16).to_be(), 0, 0, 0])
    }

    /// Key of a user, group or interface.
    #[inline(always)]
    #[must_use]
    pub const fn id(subject: Subject, id: u32) -> Self {
        Self::of(subject, [id.to_be(), 0, 0, 0])
    }

    /// The address of a key about one.
    #[must_use]
    pub fn as_address(&self) -> Option<Address> {
        self.value_of(Subject::Address).map(Address::from_v6)
    }

    /// The port of a key about one, in host order; the first one of a prefix.
    #[must_use]
    pub fn as_port(&self, subject: Subject) -> Option<u16> {
        let [high, low, ..] = self.value_of(subject)?[0].to_ne_bytes();
        Some(u16::from_be_bytes([high, low]))
    }

    /// The id of a key about a user, group or interface.
    #[must_use]
    pub fn as_id(&self, subject: Subject) -> Option<u32> {
        self.value_of(subject).map(|[word, ..]| u32::from_be(word))
    }

    fn value_of(&self, subject: Subject) -> Option<[u32; 4]> {
        (self.subject == (subject as u32).to_be()).then_some(self.value)
    }

    /// Length in bits of a key that names one single value of `subject`.
    #[inline(always)]
    #[must_use]
    pub const fn full_bits(subject: Subject) -> u32 {
        Self::SUBJECT_BITS
            + match subject {
                Subject::Workload => 0,
                Subject::Address => 128,
                Subject::OutboundPort | Subject::InboundPort => 16,
                Subject::User | Subject::Group | Subject::Interface => 32,
            }
    }

    /// A trie compares bytes from the first on, so the value's words are in network order.
    #[inline(always)]
    const fn of(subject: Subject, value: [u32; 4]) -> Self {
        Self { subject: (subject as u32).to_be(), value }
    }
}
