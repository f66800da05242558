//! Addresses of either family in one shape.

use core::net::{IpAddr, Ipv6Addr};

use super::assert_size;

/// Leading bits of 127.128.0.0/9, the range redirected IPv4 connections are spread over.
const SPREAD_V4_BITS: u32 = 9;
const SPREAD_V4: u32 = 0x7f80_0000;
/// First two words of the /64 redirected IPv6 connections are spread over: `fd69:6e74:6572:6370::/64`, a unique local
/// prefix (RFC 4193) that spells "intercp". Unlike 127.0.0.0/8, it is local only where a route on `lo` says so.
pub const SPREAD_V6: [u32; 2] = [0xfd69_6e74_u32.to_be(), 0x6572_6370_u32.to_be()];

/// An IP address in network byte order, as four words the way they lie in memory; IPv4 as `::ffff:a.b.c.d`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, Hash)]
#[expect(clippy::derived_hash_with_manual_eq, reason = "it compares what the hash is made of, all words")]
pub struct Address {
    words: [u32; 4],
}

/// Word by word: for arrays LLVM calls a function that compares byte by byte, which costs a BPF program dearly.
impl PartialEq for Address {
    #[inline(always)]
    fn eq(&self, other: &Self) -> bool {
        let differs = |index: usize| self.words[index] ^ other.words[index];
        differs(0) | differs(1) | differs(2) | differs(3) == 0
    }
}

/// An address and a port (host order).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// The address.
    pub address: Address,
    /// The port, in host order.
    pub port: u16,
    reserved: u16,
}

/// Where an application wanted to go: what `SO_ORIGINAL_DST` must answer.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct OriginalDestination(pub Endpoint);

/// The local endpoint a connection is rewritten to.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Target(pub Endpoint);

assert_size!(Address, 16);
assert_size!(Endpoint, 20);

const MAPPED: u32 = 0x0000_ffff_u32.to_be();

impl Address {
    /// `0.0.0.0`.
    pub const UNSPECIFIED_V4: Self = Self::from_octets([0, 0, 0, 0]);
    /// `::`.
    pub const UNSPECIFIED_V6: Self = Self { words: [0; 4] };
    /// `127.0.0.1`.
    pub const LOOPBACK_V4: Self = Self::from_octets([127, 0, 0, 1]);
    /// `::1`.
    pub const LOOPBACK_V6: Self = Self { words: [0, 0, 0, 1_u32.to_be()] };
    /// `127.0.0.6`, the source Envoy's inbound side connects to the application from (Istio's "magic" address).
    pub const PASSTHROUGH_V4: Self = Self::from_octets([127, 0, 0, 6]);
    /// `::6`, the same for IPv6.
    pub const PASSTHROUGH_V6: Self = Self { words: [0, 0, 0, 6_u32.to_be()] };

    /// An IPv4 address from its four octets.
    #[must_use]
    pub const fn from_octets(octets: [u8; 4]) -> Self {
        Self::from_v4(u32::from_ne_bytes(octets))
    }

    /// An IPv4 address from a word in network order.
    #[must_use]
    pub const fn from_v4(word: u32) -> Self {
        Self { words: [0, 0, MAPPED, word] }
    }

    /// An IPv6 (or IPv4-mapped) address from words in network order.
    #[must_use]
    pub const fn from_v6(words: [u32; 4]) -> Self {
        Self { words }
    }

    /// The address as words in network order, IPv4 mapped.
    #[must_use]
    pub const fn words(&self) -> [u32; 4] {
        self.words
    }

    /// The last word in network order: the whole of an IPv4 address.
    #[must_use]
    pub const fn v4_word(&self) -> u32 {
        self.words[3]
    }

    /// Whether this is an IPv4 address.
    #[inline(always)]
    #[must_use]
    pub const fn is_v4(&self) -> bool {
        self.words[0] == 0 && self.words[1] == 0 && self.words[2] == MAPPED
    }

    /// Whether this is `0.0.0.0` or `::`.
    #[inline(always)]
    #[must_use]
    pub const fn is_unspecified(&self) -> bool {
        self.words[3] == 0
            && self.words[0] == 0
            && self.words[1] == 0
            && (self.words[2] == 0 || self.words[2] == MAPPED)
    }

    /// Whether this is `127.0.0.6` or `::6`.
    #[inline(always)]
    #[must_use]
    pub const fn is_passthrough(&self) -> bool {
        if self.is_v4() {
            self.words[3] == Self::PASSTHROUGH_V4.words[3]
        } else {
            self.words[0] == 0
                && self.words[1] == 0
                && self.words[2] == 0
                && self.words[3] == Self::PASSTHROUGH_V6.words[3]
        }
    }

    /// The loopback address of this address's family, which is what nat's REDIRECT rewrites a local packet to.
    #[inline(always)]
    #[must_use]
    pub const fn loopback_of_family(&self) -> Self {
        if self.is_v4() { Self::LOOPBACK_V4 } else { Self::LOOPBACK_V6 }
    }

    /// Whether this lies in one of the ranges where only redirected connections go.
    #[inline(always)]
    #[must_use]
    pub const fn is_spread(&self) -> bool {
        if self.is_v4() {
            u32::from_be(self.words[3]) >> (32 - SPREAD_V4_BITS) == SPREAD_V4 >> (32 - SPREAD_V4_BITS)
        } else {
            self.words[0] == SPREAD_V6[0] && self.words[1] == SPREAD_V6[1]
        }
    }
}

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::from_octets(address.octets()),
            IpAddr::V6(address) => {
                let octets = address.octets();
                let (words, _) = octets.as_chunks::<4>();
                Self::from_v6(core::array::from_fn(|index| u32::from_ne_bytes(words[index])))
            }
        }
    }
}

impl From<Address> for Ipv6Addr {
    /// An IPv4 address becomes a mapped one.
    fn from(address: Address) -> Self {
        let bits = address.words.iter().fold(0, |bits, word| bits << 32 | u128::from(u32::from_be(*word)));
        Self::from_bits(bits)
    }
}

impl Endpoint {
    /// An endpoint; `port` in host order.
    #[inline(always)]
    #[must_use]
    pub const fn new(address: Address, port: u16) -> Self {
        Self { address, port, reserved: 0 }
    }
}

impl OriginalDestination {
    /// None: nothing was rewritten.
    pub const UNKNOWN: Self = Self(Endpoint::new(Address::UNSPECIFIED_V6, 0));

    /// Whether a destination was recorded: port 0 cannot be connected to by TCP.
    #[inline(always)]
    #[must_use]
    pub const fn is_known(&self) -> bool {
        self.0.port != 0
    }

    /// The address this destination is spread to.
    ///
    /// Rewriting every destination to one address would fold them into one tuple: a source port could serve only one
    /// of them at a time. So each gets an address of its own by its hash, and two connections collide exactly when
    /// they would without interception (but for one IPv4 pair in 2^23).
    #[inline(always)]
    #[must_use]
    pub const fn spread_address(&self) -> Address {
        let [a, b, c, d] = self.0.address.words;
        let low = mix(d ^ self.0.port as u32 ^ (self.0.port as u32) << 16);
        if self.0.address.is_v4() {
            return Address::from_v4((SPREAD_V4 | low >> SPREAD_V4_BITS).to_be());
        }
        let high = mix(a ^ mix(b ^ mix(c ^ low)));
        Address { words: [SPREAD_V6[0], SPREAD_V6[1], high, low] }
    }
}

/// Mixes all bits of a word into all others, one to one (the finaliser of `MurmurHash3`, public domain).
#[inline(always)]
const fn mix(word: u32) -> u32 {
    let mut hash = word ^ word >> 16;
    hash = hash.wrapping_mul(0x85eb_ca6b);
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(0xc2b2_ae35);
    hash ^ hash >> 16
}
