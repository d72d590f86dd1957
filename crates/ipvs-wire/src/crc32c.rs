//! The 32-bit CRC by Castagnoli as SCTP uses it (RFC 9260, appendix A).

/// Reflected generator polynomial.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// The remainder of each octet.
pub static TABLE: [u32; 256] = table();

/// The state before the first octet.
pub const START: u32 = !0;

/// Takes one octet into the state.
///
/// The compiler would mask before it mixes, and the verifier of 6.1 does not
/// follow bounds through an exclusive or: hence the black box.
#[inline(always)]
#[must_use]
#[expect(clippy::indexing_slicing, reason = "the index is one octet, the table has 256 entries")]
pub fn step(state: u32, octet: u8) -> u32 {
    let place = core::hint::black_box(state ^ u32::from(octet)) & 0xff;
    TABLE[place as usize] ^ (state >> 8)
}

/// The CRC after the last octet, as a number whose little-endian octets go
/// into the SCTP header.
#[inline(always)]
#[must_use]
pub const fn finish(state: u32) -> u32 {
    !state
}

#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler")]
const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut octet: u32 = 0;
    while octet < 256 {
        let mut state = octet;
        let mut bit = 0;
        while bit < 8 {
            state = (state >> 1) ^ (if state & 1 == 1 { POLYNOMIAL } else { 0 });
            bit += 1;
        }
        table[octet as usize] = state;
        octet += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc32c_of_the_check_string_is_the_catalogued_one() {
        let state = b"123456789".iter().fold(START, |state, octet| step(state, *octet));
        assert_eq!(finish(state), 0xe306_9283);
    }
}
