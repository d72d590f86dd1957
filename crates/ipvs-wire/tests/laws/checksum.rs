//! Laws of checksums.

use ipvs_wire::checksum::{Delta, Sum, patched};
use ipvs_wire::crc32c;
use proptest::prelude::*;
use proptest::sample::Index;

/// The checksum of RFC 1071, word by word in network order.
fn afresh(octets: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in octets.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(!sum & 0xffff).unwrap()
}

/// Data of which the first word is not zero. All-zero data has two checksums,
/// 0 and 0xffff, and no packet is all zero: a header's version and a pseudo
/// header's protocol are not.
fn data() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 4..80).prop_map(|mut octets| {
        octets[0] |= 0x40;
        octets
    })
}

/// Often all ones or all zeros, where the two zeros of the sum are near.
fn word() -> impl Strategy<Value = u32> {
    prop_oneof![Just(0), Just(u32::MAX), Just(0xffff), Just(0xffff_0000), any::<u32>()]
}

fn memory(octets: &[u8]) -> u32 {
    u32::from_ne_bytes(octets.try_into().unwrap())
}

proptest! {
    /// The sum in memory order is the one in network order (RFC 1071,
    /// section 2 B), odd lengths included.
    #[test]
    fn the_sum_does_not_depend_on_byte_order(octets in data()) {
        prop_assert_eq!(Sum::ZERO.octets(&octets).checksum().to_ne_bytes(), afresh(&octets).to_be_bytes());
    }

    /// A sum is that of its parts, however wide they are added.
    #[test]
    fn words_of_any_width_add_up(words in prop::array::uniform4(word()), more: u16) {
        let mut octets: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        octets.extend(more.to_ne_bytes());
        let sum = Sum::ZERO.addr(words).add16(more);
        prop_assert_eq!(sum.fold(), Sum::ZERO.octets(&octets).fold());
    }

    /// Patching for changed words gives what summing afresh gives, bit by bit
    /// (RFC 1624 against RFC 1071).
    #[test]
    fn patching_is_summing_afresh(
        mut octets in data(),
        changes in prop::collection::vec((any::<Index>(), word()), 0..5),
        (at, short) in (any::<Index>(), any::<u16>()),
    ) {
        let before = afresh(&octets);
        let mut delta = Delta::NONE;
        // The first word stays, so that data never gets all zero.
        let words = octets.len() / 4 - 1;
        for (at, new) in changes.into_iter().filter(|_| words > 0) {
            let at = 4 + at.index(words) * 4;
            let place = &mut octets[at..at + 4];
            delta = delta.word32(memory(place), new);
            place.copy_from_slice(&new.to_ne_bytes());
        }
        let halves = octets.len() / 2 - 1;
        let at = 2 + at.index(halves) * 2;
        let old = u16::from_ne_bytes([octets[at], octets[at + 1]]);
        octets[at..at + 2].copy_from_slice(&short.to_ne_bytes());
        let delta = Delta::NONE.word16(old, short).plus(delta);
        let new = patched(u16::from_ne_bytes(before.to_be_bytes()), delta);
        prop_assert_eq!(new.to_ne_bytes(), afresh(&octets).to_be_bytes());
    }

    /// A changed address is four changed words.
    #[test]
    fn an_address_is_patched_as_its_words(
        old in prop::array::uniform4(word()),
        new in prop::array::uniform4(word()),
        checksum: u16,
    ) {
        let by_words = old.into_iter().zip(new).fold(Delta::NONE, |d, (old, new)| d.word32(old, new));
        prop_assert_eq!(patched(checksum, Delta::NONE.addr(old, new)), patched(checksum, by_words));
    }

    /// The table gives what dividing bit by bit gives (RFC 9260, appendix A).
    #[test]
    fn the_crc_table_divides_bit_by_bit(octets in prop::collection::vec(any::<u8>(), 0..100)) {
        let mut state = !0u32;
        for octet in &octets {
            state ^= u32::from(*octet);
            for _ in 0..8 {
                state = if state & 1 == 1 { (state >> 1) ^ 0x82f6_3b78 } else { state >> 1 };
            }
        }
        let table = octets.iter().fold(crc32c::START, |state, octet| crc32c::step(state, *octet));
        prop_assert_eq!(crc32c::finish(table), !state);
    }
}
