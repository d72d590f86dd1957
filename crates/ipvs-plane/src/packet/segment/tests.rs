//! Trains of any kind in tunnels of any kind: cut, and put together again.

use ipvs_wire::Outer;
use ipvs_wire::ipv4::Ipv4Fields;
use ipvs_wire::ipv6::Ipv6Fields;
use proptest::prelude::*;

use super::*;
use crate::packet::testing::{CLIENT4, CLIENT6, Kind, VIP4, VIP6, checked, packet, words};

const CARRIERS: [Carrier; 5] = [
    Carrier::Bare,
    Carrier::Gue { summed: false },
    Carrier::Gue { summed: true },
    Carrier::Gre { summed: false },
    Carrier::Gre { summed: true },
];

/// A way into a tunnel: the packet's kind, the outer family, what carries it.
type Way = (Kind, bool, Carrier);

/// The packet, tunnelled as the core does it.
fn tunnelled((kind, outer_v6, carrier): Way, payload: &[u8]) -> Frame {
    let mut frame = Frame::default();
    frame.refill(&[&packet(kind, payload)]);
    let packet_len = frame.len() - 14;
    let inner_len = u16::try_from(packet_len + carrier.header_len()).unwrap();
    let next = carrier.protocol(kind.is_v6());
    if outer_v6 {
        frame.insert(14, 40 + carrier.header_len(), Outer::TunnelV6(carrier)).unwrap();
        let (source, destination) = (words(&CLIENT6), words(&VIP6));
        Ipv6Fields { class: 0, payload_len: inner_len, next, hop_limit: 63, source, destination }
            .store(&mut frame, 14)
            .unwrap();
        ethernet::set_ethertype(&mut frame, 14, ethernet::IPV6).unwrap();
    } else {
        frame.insert(14, 20 + carrier.header_len(), Outer::TunnelV4(carrier)).unwrap();
        let fields = Ipv4Fields {
            tos: 0,
            total_len: inner_len + 20,
            id: 7,
            flags: 0,
            ttl: 63,
            protocol: next,
            source: words(&CLIENT4)[0],
            destination: words(&VIP4)[0],
        };
        frame.store(14, fields.octets()).unwrap();
        ethernet::set_ethertype(&mut frame, 14, ethernet::IPV4).unwrap();
    }
    let at = if outer_v6 { 54 } else { 34 };
    carrier.store(&mut frame, at, kind.is_v6(), packet_len, [40000, 6080]).unwrap();
    carrier.fill_checksum(&mut frame, 14, at, at + carrier.header_len() + packet_len).unwrap();
    frame
}

/// What the real server gets: the packet inside, in an Ethernet frame. Reads the outer headers
/// as their standards have them.
fn unpacked(frame: &Frame) -> Frame {
    let octets = frame.octets();
    let outer_v6 = octets[14] >> 4 == 6;
    let (mut at, protocol) = if outer_v6 { (54, octets[20]) } else { (34, octets[23]) };
    match protocol {
        17 => {
            let datagram = &octets[at..];
            assert_eq!(usize::from(u16::from_be_bytes([datagram[4], datagram[5]])), datagram.len());
            if datagram[6..8] != [0, 0] {
                let addresses = if outer_v6 { &octets[22..54] } else { &octets[26..34] };
                let sum = Sum::ZERO
                    .octets(addresses)
                    .add16(17_u16.to_be())
                    .add32(u32::try_from(datagram.len()).unwrap().to_be())
                    .octets(datagram);
                assert_eq!(sum.checksum(), 0, "checksum of UDP");
            }
            assert_eq!(datagram[8], 0, "GUE without options");
            at += 12;
        }
        47 => {
            let summed = octets[at] == 0x80;
            if summed {
                assert_eq!(Sum::ZERO.octets(&octets[at..]).checksum(), 0, "checksum of GRE");
            }
            at += if summed { 8 } else { 4 };
        }
        other => assert!(matches!(other, 4 | 41)),
    }
    let ethertype: &[u8] = if octets[at] >> 4 == 6 { &[0x86, 0xdd] } else { &[8, 0] };
    Frame::new([&[0; 12], ethertype, &octets[at..]].concat())
}

/// The outer header is whole and says the right length.
fn check_outer(frame: &Frame) {
    let octets = &frame.octets()[14..];
    let len = u16::from_be_bytes(if octets[0] >> 4 == 6 {
        [octets[4], octets[5]]
    } else {
        assert_eq!(Sum::ZERO.octets(&octets[..20]).checksum(), 0);
        [octets[2], octets[3]]
    });
    let fixed = if octets[0] >> 4 == 6 { 40 } else { 0 };
    assert_eq!(usize::from(len) + fixed, octets.len());
}

fn cut(frame: Frame) -> Vec<Frame> {
    let mut segments = Vec::new();
    finish(frame, u32::MAX, &mut Pool::default(), |segment| segments.push(segment)).unwrap();
    segments
}

fn ways() -> impl Strategy<Value = Way> {
    let kinds = prop::sample::select(Kind::ALL.to_vec());
    (kinds, any::<bool>(), prop::sample::select(CARRIERS.to_vec()))
}

proptest! {
    #[test]
    fn a_cut_train_is_the_same_stream_in_valid_segments(
        way in ways(),
        payload in prop::collection::vec(any::<u8>(), 1..20_000),
        segment_len in 1_u32..3_000,
    ) {
        let kind = way.0;
        let mut train = tunnelled(way, &payload);
        train.segment_len = segment_len;
        train.checksum_pending = true;
        let segments = cut(train);
        prop_assert_eq!(segments.len(), payload.len().div_ceil(segment_len as usize));
        let mut joined: Vec<u8> = Vec::new();
        let mut flags_seen = Vec::new();
        for (number, segment) in segments.iter().enumerate() {
            prop_assert!(!segment.checksum_pending && segment.segment_len == 0);
            check_outer(segment);
            let inner = unpacked(segment);
            let h = checked(&inner);
            let header_len = if kind.is_tcp() { 20 } else { 8 };
            let octets = inner.octets();
            if kind.is_tcp() {
                let at = h.l4 as usize;
                let sequence = u32::from_be_bytes(octets[at + 4..at + 8].try_into().unwrap());
                let offset = u32::try_from(joined.len()).unwrap();
                prop_assert_eq!(sequence, 0xffff_f000_u32.wrapping_add(offset));
                flags_seen.push(h.event);
            }
            if !kind.is_v6() {
                let id = u16::from_be_bytes([octets[18], octets[19]]);
                prop_assert_eq!(id, 0xfffe_u16.wrapping_add(u16::try_from(number).unwrap()));
            }
            joined.extend(&octets[(h.l4 + header_len) as usize..]);
        }
        prop_assert_eq!(joined, payload);
        for (number, flags) in flags_seen.iter().enumerate() {
            let (first, last) = (number == 0, number + 1 == segments.len());
            prop_assert_eq!(flags & 0x80 != 0, first);
            prop_assert_eq!(flags & 0x09, if last { 0x09 } else { 0 });
            prop_assert_eq!(flags & 0x10, 0x10);
        }
    }

    #[test]
    fn an_unfilled_checksum_is_filled_in_and_nothing_else_changes(
        way in ways(),
        payload in prop::collection::vec(any::<u8>(), 0..3_000),
    ) {
        let whole = tunnelled(way, &payload);
        let mut unfilled = whole.clone();
        let at = Layout::of(&unfilled).unwrap();
        let place = at.l4 + if at.tcp { tcp::CHECKSUM } else { udp::CHECKSUM };
        unfilled.store(place, [0x12, 0x34]).unwrap();
        unfilled.checksum_pending = true;
        prop_assert_eq!(cut(unfilled), [whole]);
    }

    #[test]
    fn no_packet_can_harm(
        octets in prop::collection::vec(any::<u8>(), 0..200),
        segment_len in 0_u32..100,
    ) {
        for outer in CARRIERS.into_iter().flat_map(|it| [Outer::TunnelV4(it), Outer::TunnelV6(it)]) {
            let mut frame = Frame::new(octets.clone());
            if frame.insert(14, 20, outer).is_some() {
                frame.segment_len = segment_len;
                finish(frame, 100, &mut Pool::default(), |_| {});
            }
        }
    }
}

#[test]
fn segments_of_tcp_fit_with_the_tunnels_header() {
    let kind = *Kind::ALL.iter().find(|kind| kind.is_tcp()).unwrap();
    let mut train = tunnelled((kind, false, Carrier::Gue { summed: true }), &[7; 4000]);
    train.segment_len = 1460;
    let mut segments = Vec::new();
    finish(train, 1500, &mut Pool::default(), |segment| segments.push(segment)).unwrap();
    assert!(segments.iter().all(|segment| segment.octets().len() <= 1514));
    assert!(segments.len() >= 3);
}
