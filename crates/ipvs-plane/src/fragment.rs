//! Cutting an IPv4 packet that is longer than its way (RFC 791, section 3.2).

use ipvs_wire::checksum::Sum;
use ipvs_wire::ethernet::HEADER_LEN as ETHERNET;
use ipvs_wire::ipv4::{DONT_FRAGMENT, MORE_FRAGMENTS, OFFSET_MASK};

/// Octets of an IPv4 header without options.
const HEADER: usize = 20;
/// Option type: end of the list.
const END: u8 = 0;
/// Option type: no operation.
const NOP: u8 = 1;
/// The bit of an option's type that has it copied into every fragment.
const COPIED: u8 = 0x80;

/// Cuts the IPv4 packet in the untagged Ethernet frame into frames whose
/// packets have at most `mtu` octets.
///
/// `None`: the frame holds no IPv4 packet that may be cut.
pub fn cut(frame: &[u8], mtu: u32) -> Option<Vec<Vec<u8>>> {
    let (ethernet, packet) = frame.split_at_checked(ETHERNET as usize)?;
    let first: &[u8; HEADER] = packet.first_chunk()?;
    let header_len = usize::from(first[0] & 0x0f) * 4;
    let total_len = usize::from(u16::from_be_bytes([first[2], first[3]]));
    let header = packet.get(..header_len)?;
    let payload = packet.get(header_len..total_len)?;
    let flags = u16::from_be_bytes([first[6], first[7]]);
    if first[0] >> 4 != 4 || flags & DONT_FRAGMENT != 0 {
        return None;
    }
    let room = (mtu as usize).checked_sub(header_len)? & !7;
    if room == 0 {
        return None;
    }
    let later = later_header(header);
    let start = flags & OFFSET_MASK;
    let count = payload.len().div_ceil(room);
    let mut frames = Vec::with_capacity(count);
    for (number, piece) in payload.chunks(room).enumerate() {
        let header = if number == 0 { header } else { &later };
        let offset = u16::try_from(number * room / 8).ok()?;
        let more = number + 1 < count || flags & MORE_FRAGMENTS != 0;
        let word = (start + offset) | if more { MORE_FRAGMENTS } else { 0 };
        frames.push([ethernet, &stamped(header, piece.len(), word)?, piece].concat());
    }
    Some(frames)
}

/// The header with length, flags and checksum of one piece.
fn stamped(header: &[u8], piece_len: usize, flags: u16) -> Option<Vec<u8>> {
    let mut header = header.to_vec();
    let total_len = u16::try_from(header.len() + piece_len).ok()?;
    header.get_mut(2..4)?.copy_from_slice(&total_len.to_be_bytes());
    header.get_mut(6..8)?.copy_from_slice(&flags.to_be_bytes());
    header.get_mut(10..12)?.fill(0);
    let checksum = Sum::ZERO.octets(&header).checksum();
    header.get_mut(10..12)?.copy_from_slice(&checksum.to_ne_bytes());
    Some(header)
}

/// The header of all pieces but the first: with those options only that say so.
fn later_header(header: &[u8]) -> Vec<u8> {
    let (fixed, mut options) = header.split_at(HEADER.min(header.len()));
    let mut later = fixed.to_vec();
    while let Some((&kind, rest)) = options.split_first() {
        let len = match (kind, rest.first()) {
            (END, _) => break,
            (NOP, _) => 1,
            (_, Some(&len)) if len >= 2 => usize::from(len),
            _ => break,
        };
        let (option, after) = options.split_at(len.min(options.len()));
        if kind & COPIED != 0 {
            later.extend_from_slice(option);
        }
        options = after;
    }
    later.resize(later.len().next_multiple_of(4), END);
    if let (Some(first), Ok(words)) = (later.first().copied(), u8::try_from(later.len() / 4)) {
        later.splice(..1, [first & 0xf0 | words]);
    }
    later
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(payload: &[u8], options: &[u8]) -> Vec<u8> {
        let mut packet = vec![
            0x45 + u8::try_from(options.len() / 4).unwrap(),
            0,
            0,
            0,
            0x12,
            0x34,
            0,
            0,
            64,
            17,
        ];
        packet.extend([0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        packet.extend(options);
        let header = stamped(&packet, payload.len(), 0).unwrap();
        [&[0; 14][..], &header, payload].concat()
    }

    proptest! {
        /// The pieces, put together at their offsets, are the packet again, and
        /// each fits and has a right checksum.
        #[test]
        fn pieces_make_up_the_packet(
            payload in prop::collection::vec(any::<u8>(), 1..4000),
            mtu in 68u32..1500,
        ) {
            let frames = cut(&frame(&payload, &[]), mtu).unwrap();
            let mut whole = Vec::new();
            for (number, frame) in frames.iter().enumerate() {
                let packet = &frame[14..];
                prop_assert!(packet.len() <= mtu as usize);
                prop_assert_eq!(Sum::ZERO.octets(&packet[..20]).checksum(), 0);
                let flags = u16::from_be_bytes([packet[6], packet[7]]);
                prop_assert_eq!(usize::from(flags & OFFSET_MASK) * 8, whole.len());
                prop_assert_eq!(flags & MORE_FRAGMENTS != 0, number + 1 < frames.len());
                whole.extend_from_slice(&packet[20..]);
            }
            prop_assert_eq!(whole, payload);
        }
    }

    #[test]
    fn later_pieces_have_only_the_options_that_are_to_be_copied() {
        // Record route (not copied), then router alert (copied).
        let options = [7, 7, 4, 0, 0, 0, 0, 148, 4, 0, 0, 0];
        let frames = cut(&frame(&[1; 100], &options), 84).unwrap();
        assert_eq!(frames[0][14], 0x48);
        assert_eq!(frames[1][14], 0x46);
        assert_eq!(frames[1][34..38], [148, 4, 0, 0]);
    }

    #[test]
    fn a_packet_that_must_not_be_cut_is_not() {
        let mut frame = frame(&[0; 100], &[]);
        frame[20] = 0x40;
        assert_eq!(cut(&frame, 68), None);
    }
}
