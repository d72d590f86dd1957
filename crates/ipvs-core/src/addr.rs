//! Addresses and address families as every table of the director holds them.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Address family of a service, a destination or a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    #[default]
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The octet that stands for this family in keys and records: 4 or 6.
    #[inline(always)]
    pub const fn tag(self) -> u8 {
        match self {
            Self::V4 => 4,
            Self::V6 => 6,
        }
    }

    /// The family that `tag` stands for; whatever is not 6 is IPv4.
    #[inline(always)]
    pub const fn from_tag(tag: u8) -> Self {
        if tag == 6 { Self::V6 } else { Self::V4 }
    }
}

/// An address of either family, 16 octets in network order.
///
/// An IPv4 address fills the first four octets and the rest is zero, as in the
/// IPVS netlink family. The words are kept as they lie in the packet, so that
/// equality and hashing need no byte swap.
#[derive(
    Clone, Copy, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Addr {
    words: [u32; 4],
}

impl Addr {
    /// The address `0.0.0.0` and `::`.
    pub const UNSPECIFIED: Self = Self { words: [0; 4] };

    /// `::1`, by which an IPv6 host speaks to itself.
    pub const LOOPBACK_V6: Self = Self { words: [0, 0, 0, 1_u32.to_be()] };

    /// An IPv4 address from its octets.
    #[inline(always)]
    pub const fn v4(octets: [u8; 4]) -> Self {
        Self { words: [u32::from_ne_bytes(octets), 0, 0, 0] }
    }

    /// An IPv6 address from its octets.
    #[inline(always)]
    pub const fn v6(o: [u8; 16]) -> Self {
        Self {
            words: [
                u32::from_ne_bytes([o[0], o[1], o[2], o[3]]),
                u32::from_ne_bytes([o[4], o[5], o[6], o[7]]),
                u32::from_ne_bytes([o[8], o[9], o[10], o[11]]),
                u32::from_ne_bytes([o[12], o[13], o[14], o[15]]),
            ],
        }
    }

    /// The four octets of an IPv4 address.
    #[inline(always)]
    pub const fn v4_octets(self) -> [u8; 4] {
        self.words[0].to_ne_bytes()
    }

    /// All sixteen octets.
    #[inline(always)]
    pub const fn octets(self) -> [u8; 16] {
        let [a, b, c, d] = [
            self.words[0].to_ne_bytes(),
            self.words[1].to_ne_bytes(),
            self.words[2].to_ne_bytes(),
            self.words[3].to_ne_bytes(),
        ];
        [
            a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3], c[0], c[1], c[2], c[3], d[0], d[1],
            d[2], d[3],
        ]
    }

    /// The words as they lie in the packet.
    #[inline(always)]
    pub const fn words(self) -> [u32; 4] {
        self.words
    }

    /// Builds an address from words as they lie in the packet.
    #[inline(always)]
    pub const fn from_words(words: [u32; 4]) -> Self {
        Self { words }
    }

    /// Whether this is `0.0.0.0` or `::`.
    pub const fn is_unspecified(self) -> bool {
        (self.words[0] | self.words[1] | self.words[2] | self.words[3]) == 0
    }

    /// The address as the standard library has it.
    pub fn to_ip(self, family: Family) -> IpAddr {
        match family {
            Family::V4 => IpAddr::V4(Ipv4Addr::from(self.v4_octets())),
            Family::V6 => IpAddr::V6(Ipv6Addr::from(self.octets())),
        }
    }

    /// Splits a standard address into family and address.
    pub fn from_ip(ip: IpAddr) -> (Family, Self) {
        match ip {
            IpAddr::V4(ip) => (Family::V4, Self::v4(ip.octets())),
            IpAddr::V6(ip) => (Family::V6, Self::v6(ip.octets())),
        }
    }
}

impl fmt::Debug for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.words[1] | self.words[2] | self.words[3] == 0 {
            write!(f, "{}", Ipv4Addr::from(self.v4_octets()))
        } else {
            write!(f, "{}", Ipv6Addr::from(self.octets()))
        }
    }
}

/// An address with its family, as a key.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct AddrKey {
    /// The address.
    pub addr: Addr,
    /// [`Family::tag`].
    pub family: u32,
}

impl AddrKey {
    /// The key of this address.
    #[inline(always)]
    pub const fn new(family: Family, addr: Addr) -> Self {
        Self { addr, family: family.tag() as u32 }
    }
}

/// Bits that say what an address is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddrUse;

impl AddrUse {
    /// A service has it.
    pub const SERVICE: u32 = 1;
    /// A destination has it whose replies are translated.
    pub const TRANSLATED: u32 = 2;
}
