//! The hash functions of schedulers, bit by bit those of Linux on a 64-bit
//! machine: so a flow meets the same destination on a kernel's director and on ours.

use crate::addr::Addr;

/// The multiplier of [`multiplicative`].
const GOLDEN_RATIO: u32 = 0x61c8_8647;
/// The initial state of `SipHash`.
const SIP: [u64; 4] =
    [0x736f_6d65_7073_6575, 0x646f_7261_6e64_6f6d, 0x6c79_6765_6e65_7261, 0x7465_6462_7974_6573];

/// An address as one number: an IPv4 address itself, an IPv6 address as the
/// exclusive or of its four words.
#[inline(always)]
pub(super) const fn folded(addr: Addr) -> u32 {
    // The words behind an IPv4 address are zero.
    let [a, b, c, d] = addr.words();
    u32::from_be(a ^ b ^ c ^ d)
}

/// The upper `bits` of a product.
#[inline(always)]
pub(super) const fn multiplicative(value: u32, bits: u32) -> u32 {
    value.wrapping_mul(GOLDEN_RATIO) >> (32 - bits)
}

/// `SipHash`-1-3 of the four octets of `value`, the key twice the same word; the
/// lower half of it.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the lower half is wanted")]
pub(super) const fn sip(key: u64, value: u32) -> u32 {
    // The one block: the octets, and their number in the last.
    let block = 4 << 56 | value as u64;
    let mut state = [SIP[0] ^ key, SIP[1] ^ key, SIP[2] ^ key, SIP[3] ^ key ^ block];
    state = sip_round(state);
    state[0] ^= block;
    state[2] ^= 0xff;
    let [a, b, c, d] = sip_round(sip_round(sip_round(state)));
    (a ^ b ^ c ^ d) as u32
}

#[inline(always)]
const fn sip_round(state: [u64; 4]) -> [u64; 4] {
    let [mut a, mut b, mut c, mut d] = state;
    a = a.wrapping_add(b);
    c = c.wrapping_add(d);
    b = b.rotate_left(13) ^ a;
    d = d.rotate_left(16) ^ c;
    a = a.rotate_left(32).wrapping_add(d);
    c = c.wrapping_add(b);
    b = b.rotate_left(17) ^ c;
    d = d.rotate_left(21) ^ a;
    c = c.rotate_left(32);
    [a, b, c, d]
}

/// A number whose bits look drawn by lot, from one that changes with each use
/// (the finish of `SplitMix64`).
#[inline(always)]
pub(super) const fn scattered(seed: u64) -> u64 {
    let seed = (seed ^ seed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let seed = (seed ^ seed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    seed ^ seed >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn siphash_has_the_known_values() {
        let known = [
            (0x0000_0000, 0x1d5a_77c2, 0xf882_433f),
            (0x0000_0001, 0x16ec_66b2, 0x8210_aad1),
            (0x0a00_0001, 0x0308_0ce4, 0x48f9_d0c1),
            (0x0a00_0051, 0x439c_0cbe, 0x97b3_dc47),
            (0xffff_ffff, 0x22c5_d719, 0xf75a_0f5d),
        ];
        for (value, first, second) in known {
            assert_eq!(sip(2_654_435_761, value), first, "{value:08x}");
            assert_eq!(sip(2_654_446_892, value), second, "{value:08x}");
        }
    }

    #[test]
    fn the_multiplicative_hash_has_the_known_values() {
        let known = [
            ([10, 0, 0, 1], 39, 159),
            ([192, 0, 2, 10], 162, 651),
            ([198, 51, 100, 7], 171, 684),
            ([255, 255, 255, 255], 158, 632),
        ];
        for (octets, eight, ten) in known {
            let value = folded(Addr::v4(octets));
            assert_eq!((multiplicative(value, 8), multiplicative(value, 10)), (eight, ten));
        }
    }

    #[test]
    fn an_ipv6_address_is_folded_to_one_word() {
        let mut octets = [0; 16];
        octets[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
        octets[15] = 7;
        let value = folded(Addr::v6(octets));
        assert_eq!((value, multiplicative(value, 8)), (0x2001_0dbf, 137));
    }
}
