//! Cutting a packet that is longer than its way, or than the fragments it came
//! in (RFC 791, section 3.2; RFC 8200, section 4.5).

use ipvs_wire::checksum::Sum;
use ipvs_wire::ipv4::{DONT_FRAGMENT, MORE_FRAGMENTS, OFFSET_MASK};
use ipvs_wire::ipv6::extension;
use ipvs_wire::{Buffer as _, ethernet};

use crate::frame::Frame;

/// Octets of an IPv4 header without options.
const HEADER: usize = 20;
/// Option type: end of the list.
const END: u8 = 0;
/// Option type: no operation.
const NOP: u8 = 1;
/// The bit of an option's type that has it copied into every fragment.
const COPIED: u8 = 0x80;

/// Place of the fixed IPv6 header's next-header field, and of the length.
const V6_NEXT: usize = 6;
const V6_LEN: usize = 4;
/// The least MTU of IPv6 (RFC 8200, section 5).
const V6_LEAST_MTU: u32 = 1280;
/// Octets of the fixed IPv6 header.
const V6_HEADER: usize = 40;
/// IPv6 extension headers that are followed, at most.
const MAX_EXTENSIONS: u32 = 8;
/// Octets of the fragment header (RFC 8200, section 4.5).
const FRAGMENT_HEADER: usize = 8;

/// Whether the packet in the frame, whose IP header is at `l3`, leaves in pieces on a way
/// that takes `mtu` octets: what came in fragments leaves in none that is longer (recorded).
pub fn must_cut(frame: &Frame, l3: u32, mtu: u32) -> bool {
    let longest = if frame.longest_piece == 0 { mtu } else { mtu.min(frame.longest_piece) };
    frame.segment_len == 0 && frame.len() > longest.saturating_add(l3)
}

/// Cuts the packet in the frame into frames for a way that takes `mtu` octets. Those of IPv6
/// get `id` for an identification.
///
/// `None`: the frame holds no packet that may be cut.
pub fn cut(frame: &Frame, mtu: u32, id: u32) -> Option<Vec<Vec<u8>>> {
    let at = ethernet::parse(frame)?.payload as usize;
    let (ethernet, packet) = frame.octets().split_at_checked(at)?;
    match packet.first()? >> 4 {
        4 => cut_v4(ethernet, packet, mtu, frame),
        6 => cut_v6(ethernet, packet, mtu, frame, id),
        _ => None,
    }
}

/// How long the pieces of `payload` octets are, `room` at most: as they came in if they fit
/// still, else as few as can be. `None` if there is no room.
///
/// A tunnel puts the headers of the packet in it into the first.
fn lengths(payload: usize, room: usize, came: &[usize]) -> Option<Vec<usize>> {
    let mut kept = came.to_vec();
    let all_but_first = came.get(1..).map(|rest| rest.iter().sum::<usize>());
    if let (Some(first), Some(rest)) = (kept.first_mut(), all_but_first) {
        *first = payload.saturating_sub(rest);
    }
    let whole_units = kept.split_last().is_some_and(|(_, rest)| rest.iter().all(|it| it % 8 == 0));
    if whole_units && kept.iter().all(|len| *len <= room) && kept.iter().sum::<usize>() == payload {
        return Some(kept);
    }
    let room = room & !7;
    if room == 0 {
        return None;
    }
    Some((0..payload).step_by(room).map(|at| room.min(payload - at)).collect())
}

/// What came in fragments may say "don't fragment" for the sake of path MTU discovery.
fn cut_v4(ethernet: &[u8], packet: &[u8], mtu: u32, frame: &Frame) -> Option<Vec<Vec<u8>>> {
    let first: &[u8; HEADER] = packet.first_chunk()?;
    let header_len = usize::from(first[0] & 0x0f) * 4;
    let total_len = usize::from(u16::from_be_bytes([first[2], first[3]]));
    let header = packet.get(..header_len)?;
    let mut payload = packet.get(header_len..total_len)?;
    let flags = u16::from_be_bytes([first[6], first[7]]);
    if flags & DONT_FRAGMENT != 0 && frame.longest_piece == 0 {
        return None;
    }
    let longest = if frame.longest_piece == 0 { mtu } else { mtu.min(frame.longest_piece) };
    let room = (longest as usize).checked_sub(header_len)?;
    let later = later_header(header);
    let mut offset = usize::from(flags & OFFSET_MASK);
    let mut frames = Vec::new();
    for (number, len) in lengths(payload.len(), room, &frame.pieces)?.into_iter().enumerate() {
        let (piece, rest) = payload.split_at_checked(len)?;
        payload = rest;
        let header = if number == 0 { header } else { &later };
        let more = !rest.is_empty() || flags & MORE_FRAGMENTS != 0;
        let more = if more { MORE_FRAGMENTS } else { 0 };
        let word = u16::try_from(offset).ok()? | more | flags & DONT_FRAGMENT;
        offset += len / 8;
        frames.push([ethernet, &stamped(header, len, word)?, piece].concat());
    }
    Some(frames)
}

fn cut_v6(
    ethernet: &[u8],
    packet: &[u8],
    mtu: u32,
    frame: &Frame,
    id: u32,
) -> Option<Vec<Vec<u8>>> {
    let &[high, low] = packet.get(V6_LEN..)?.first_chunk()?;
    let packet = packet.get(..V6_HEADER + usize::from(u16::from_be_bytes([high, low])))?;
    let (named_at, at) = unfragmentable(packet)?;
    let (headers, mut payload) = packet.split_at_checked(at)?;
    let mut headers = headers.to_vec();
    let next = std::mem::replace(headers.get_mut(named_at)?, extension::FRAGMENT);
    // Every path takes the least MTU, so nobody needs shorter fragments.
    let longest = match frame.longest_piece {
        0 => mtu,
        longest => mtu.min(longest.max(V6_LEAST_MTU)),
    };
    let room = (longest as usize).checked_sub(at + FRAGMENT_HEADER)?;
    let mut offset = 0;
    let mut frames = Vec::new();
    for len in lengths(payload.len(), room, &frame.pieces)? {
        let (piece, rest) = payload.split_at_checked(len)?;
        payload = rest;
        let packet_len = u16::try_from(at - V6_HEADER + FRAGMENT_HEADER + len).ok()?;
        headers.get_mut(V6_LEN..)?.first_chunk_mut().map(|it| *it = packet_len.to_be_bytes())?;
        let word = u16::try_from(offset).ok()? | u16::from(!rest.is_empty());
        offset += len;
        let [high, low] = word.to_be_bytes();
        let fragment = [next, 0, high, low];
        frames.push([ethernet, &headers, &fragment, &id.to_be_bytes(), piece].concat());
    }
    Some(frames)
}

/// The headers of an IPv6 packet that every fragment has, since routers read
/// them: where the field stands that names the first header behind them, and
/// where that begins.
fn unfragmentable(packet: &[u8]) -> Option<(usize, usize)> {
    let mut kept = (V6_NEXT, V6_HEADER);
    let (mut named_at, mut at) = kept;
    for _ in 0..MAX_EXTENSIONS {
        let next = *packet.get(named_at)?;
        match next {
            extension::HOP_BY_HOP | extension::ROUTING | extension::DESTINATION_OPTIONS => {
                named_at = at;
                at += (usize::from(*packet.get(at + 1)?) + 1) * 8;
                // Options for the destination are read by routers if one is routed to.
                if next != extension::DESTINATION_OPTIONS {
                    kept = (named_at, at);
                }
            }
            _ => return Some(kept),
        }
    }
    None
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

/// The header of all pieces but the first: options that are not to be copied are replaced
/// by fillers (recorded).
fn later_header(header: &[u8]) -> Vec<u8> {
    let mut later = header.to_vec();
    let mut at = HEADER;
    while let Some(&kind) = later.get(at) {
        let len = match (kind, later.get(at + 1)) {
            (END, _) => break,
            (NOP, _) => 1,
            (_, Some(&len)) if len >= 2 => usize::from(len),
            _ => break,
        };
        if kind & COPIED == 0 {
            later.iter_mut().skip(at).take(len).for_each(|it| *it = NOP);
        }
        at += len;
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
        [&[0; 12][..], &[8, 0], &header, payload].concat()
    }

    fn cut_octets(octets: &[u8], longest: u32) -> Option<Vec<Vec<u8>>> {
        cut(&Frame::new(octets.to_vec()), longest, 7)
    }

    proptest! {
        /// The pieces, put together at their offsets, are the packet again, and
        /// each fits and has a right checksum.
        #[test]
        fn pieces_make_up_the_packet(
            payload in prop::collection::vec(any::<u8>(), 1..4000),
            mtu in 68u32..1500,
        ) {
            let frames = cut_octets(&frame(&payload, &[]), mtu).unwrap();
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
        let frames = cut_octets(&frame(&[1; 100], &options), 84).unwrap();
        assert_eq!(frames[0][34..46], options);
        assert_eq!(frames[1][34..46], [1, 1, 1, 1, 1, 1, 1, 148, 4, 0, 0, 0]);
    }

    #[test]
    fn pieces_leave_as_they_came_if_they_fit() {
        assert_eq!(lengths(1600, 800, &[104, 800, 696]).unwrap(), [104, 800, 696]);
        assert_eq!(lengths(1640, 840, &[800, 800]).unwrap(), [840, 800], "the first grew");
        assert_eq!(lengths(1600, 792, &[800, 800]).unwrap(), [792, 792, 16]);
        assert_eq!(lengths(1620, 900, &[800, 800]).unwrap(), [896, 724], "not in whole units");
        assert_eq!(lengths(1600, 807, &[]).unwrap(), [800, 800]);
        assert_eq!(lengths(100, 7, &[]), None);
    }

    #[test]
    fn a_packet_that_must_not_be_cut_is_not() {
        let mut octets = frame(&[0; 100], &[]);
        octets[20] = 0x40;
        assert_eq!(cut_octets(&octets, 68), None);
        // It came in fragments that said so too.
        let mut again = Frame::new(octets);
        again.longest_piece = 68;
        let pieces = cut(&again, 68, 0).unwrap();
        assert!(pieces.iter().all(|piece| piece[20] & 0x40 != 0));
    }

    #[test]
    fn headers_that_routers_read_are_in_every_fragment_and_the_others_in_the_first() {
        // Hop-by-hop, routing, destination options, UDP.
        let mut packet = vec![0x60, 0, 0, 0, 0, 124, 0, 64];
        packet.extend([1; 32]);
        packet.extend([43, 0, 1, 4, 0, 0, 0, 0]);
        packet.extend([60, 0, 4, 0, 0, 0, 0, 0]);
        packet.extend([17, 0, 1, 4, 0, 0, 0, 0]);
        packet.extend([9; 100]);
        let frames = cut_octets(&[&[0; 12][..], &[0x86, 0xdd], &packet].concat(), 120).unwrap();
        assert_eq!(frames.len(), 2);
        for (frame, (offset, len)) in frames.iter().zip([(1_u8, 56), (56, 52)]) {
            assert_eq!(frame[54..62], [43, 0, 1, 4, 0, 0, 0, 0]);
            assert_eq!(frame[62..66], [44, 0, 4, 0]);
            assert_eq!(frame[70..78], [60, 0, 0, offset, 0, 0, 0, 7]);
            assert_eq!(frame[78..].len(), len);
        }
        assert_eq!(frames[0][78..82], [17, 0, 1, 4]);
    }
}
