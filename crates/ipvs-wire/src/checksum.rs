//! The Internet checksum and its incremental update (RFC 1071, RFC 1624).
//!
//! All words are taken as they lie in memory. The one's complement sum does
//! not depend on byte order as long as sum and field use the same one, so no
//! word is ever swapped.

/// What a change of covered data does to the sum: `~old + new` of every
/// changed word (RFC 1624, equation 3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delta(u64);

impl Delta {
    /// No change.
    pub const NONE: Self = Self(0);

    /// The change of one aligned 32-bit word.
    #[inline(always)]
    #[must_use]
    pub const fn word32(self, old: u32, new: u32) -> Self {
        Self(self.0 + !old as u64 + new as u64)
    }

    /// The change of one aligned 16-bit word.
    #[inline(always)]
    #[must_use]
    pub const fn word16(self, old: u16, new: u16) -> Self {
        Self(self.0 + !old as u64 + new as u64)
    }

    /// The change of an address of four words.
    #[inline(always)]
    #[must_use]
    pub const fn addr(self, old: [u32; 4], new: [u32; 4]) -> Self {
        self.word32(old[0], new[0])
            .word32(old[1], new[1])
            .word32(old[2], new[2])
            .word32(old[3], new[3])
    }

    /// Both changes.
    #[inline(always)]
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// The change as a 32-bit partial sum, the form that kernel helpers take.
    #[inline(always)]
    #[must_use]
    pub const fn partial(self) -> u32 {
        fold32(self.0)
    }
}

/// A one's complement sum in the making.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum(u64);

impl Sum {
    /// The empty sum.
    pub const ZERO: Self = Self(0);

    /// Adds a 16-bit word, or a folded sum.
    #[inline(always)]
    #[must_use]
    pub const fn add16(self, word: u16) -> Self {
        Self(self.0 + word as u64)
    }

    /// Adds a 32-bit word.
    #[inline(always)]
    #[must_use]
    pub const fn add32(self, word: u32) -> Self {
        Self(self.0 + word as u64)
    }

    /// Adds an address of four words.
    #[inline(always)]
    #[must_use]
    pub const fn addr(self, words: [u32; 4]) -> Self {
        self.add32(words[0]).add32(words[1]).add32(words[2]).add32(words[3])
    }

    /// Adds `octets`, whose first stands at an even place of the covered data.
    #[must_use]
    pub fn octets(self, octets: &[u8]) -> Self {
        let (words, rest) = octets.as_chunks::<2>();
        let sum = words.iter().fold(self, |sum, word| sum.add16(u16::from_ne_bytes(*word)));
        match rest {
            [last] => sum.add16(u16::from_ne_bytes([*last, 0])),
            _ => sum,
        }
    }

    /// The sum folded to 16 bits.
    #[inline(always)]
    #[must_use]
    pub const fn fold(self) -> u16 {
        fold16(self.0)
    }

    /// The checksum: the complement of the folded sum.
    #[inline(always)]
    #[must_use]
    pub const fn checksum(self) -> u16 {
        !fold16(self.0)
    }
}

/// Returns `checksum` adjusted for `delta`.
///
/// Equation 3 of RFC 1624, `HC' = ~(~HC + ~m + m')`: equation 2, that of RFC
/// 1141, can yield `0xffff` where summing afresh yields `0x0000`. Carries are
/// folded after all terms are added, which keeps erratum 4782 away.
///
/// ```
/// use ipvs_wire::checksum::{Delta, patched};
/// // The worked example of RFC 1624, section 4.
/// assert_eq!(patched(0xdd2f, Delta::NONE.word16(0x5555, 0x3285)), 0x0000);
/// // Erratum 4782: an unchanged word must leave a checksum of 0 alone.
/// assert_eq!(patched(0x0000, Delta::NONE.word16(0x5555, 0x5555)), 0x0000);
/// ```
#[inline(always)]
#[must_use]
pub const fn patched(checksum: u16, delta: Delta) -> u16 {
    !fold16(!checksum as u64 + fold32(delta.0) as u64)
}

/// A computed UDP checksum as it is sent: 0 means "none" on the wire, so
/// `0xffff` stands for it (RFC 768).
#[inline(always)]
#[must_use]
pub const fn udp_wire(checksum: u16) -> u16 {
    if checksum == 0 { 0xffff } else { checksum }
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "folded below 2^32")]
const fn fold32(sum: u64) -> u32 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    sum as u32
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "folded below 2^16")]
const fn fold16(sum: u64) -> u16 {
    let sum = fold32(sum);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}
