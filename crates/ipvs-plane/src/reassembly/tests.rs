//! Laws of putting together: any cut, any order, any repetition gives the
//! datagram, and hostile input gives nothing and takes no more than its room.

use proptest::prelude::*;

use super::*;
use crate::fragment;
use crate::packet::testing::{Kind, packet};

fn at(seconds: u64) -> Instant {
    Instant::from_nanos(seconds * 1_000_000_000)
}

/// The frame of a datagram, as it would leave unharmed.
fn datagram(kind: Kind, len: usize) -> Frame {
    let payload: Vec<u8> = (0..len).map(|place| u8::try_from(place % 251).unwrap()).collect();
    let mut octets = packet(kind, &payload);
    if octets[14] >> 4 == 4 {
        // It may be cut.
        octets[20] = 0;
        octets[24..26].fill(0);
        let sum = Sum::ZERO.octets(&octets[14..34]).checksum();
        octets[24..26].copy_from_slice(&sum.to_ne_bytes());
    }
    Frame::new(octets)
}

fn cut(whole: &Frame, longest: u32) -> Vec<Frame> {
    fragment::cut(whole, longest, 99).unwrap().into_iter().map(Frame::new).collect()
}

/// What comes of the frames, one after the other, and what was counted.
fn put_together(frames: &[Frame]) -> (Vec<Frame>, Vec<Reason>) {
    let (mut reassembly, mut counted) = (Reassembly::default(), Vec::new());
    let mut take = |frame| reassembly.take(frame, 1, at(0), |reason| counted.push(reason));
    let whole = frames.iter().filter_map(&mut take).collect();
    (whole, counted)
}

fn kinds() -> impl Strategy<Value = Kind> {
    prop_oneof![Just(Kind::UdpV4), Just(Kind::UdpV6), Just(Kind::TcpV4), Just(Kind::TcpV6)]
}

proptest! {
    #[test]
    fn any_cut_in_any_order_is_the_datagram_again(
        kind in kinds(),
        len in 200_usize..9000,
        longest in 120_u32..1500,
        order in any::<prop::sample::Index>(),
        seed in any::<u64>(),
    ) {
        let whole = datagram(kind, len);
        let mut frames = cut(&whole, longest);
        prop_assume!(frames.len() > 1);
        // Some order that depends on two numbers.
        let mut state = seed;
        frames.sort_by_cached_key(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state >> 33
        });
        let first = order.index(frames.len());
        frames.rotate_left(first);
        let longest_sent = frames.iter().map(|it| it.octets().len() - 14).max().unwrap();
        let (put, counted) = put_together(&frames);
        prop_assert_eq!(put.len(), 1);
        prop_assert_eq!(put[0].octets(), whole.octets());
        prop_assert_eq!(put[0].longest_piece as usize, longest_sent);
        prop_assert_eq!(counted, []);
    }

    #[test]
    fn repetitions_change_nothing(
        kind in kinds(),
        again in prop::collection::vec(any::<prop::sample::Index>(), 1..4),
    ) {
        let whole = datagram(kind, 5000);
        let mut frames = cut(&whole, 900);
        let last = frames.pop().unwrap();
        let repeated: Vec<Frame> = again.iter().map(|it| it.get(&frames).clone()).collect();
        frames.extend(repeated);
        frames.push(last);
        let (put, counted) = put_together(&frames);
        prop_assert_eq!(put[0].octets(), whole.octets());
        prop_assert_eq!(counted, vec![Reason::FragmentBad; again.len()]);
    }

    #[test]
    fn fragments_of_two_cuts_that_overlap_are_dropped_together(kind in kinds()) {
        let whole = datagram(kind, 3000);
        let (coarse, fine) = (cut(&whole, 1400), cut(&whole, 1000));
        // The fine one's second lies across the border between the coarse one's first two.
        let frames = [coarse[0].clone(), fine[1].clone(), coarse[1].clone(), coarse[2].clone()];
        let (put, counted) = put_together(&frames);
        prop_assert!(put.is_empty());
        prop_assert_eq!(counted, [Reason::FragmentBad; 2]);
    }

    #[test]
    fn hostile_fragments_take_no_more_than_the_room(
        frames in prop::collection::vec(
            (0_u8..4, 0_u16..8192, any::<bool>(), 1_usize..64, any::<bool>()), 1..400),
    ) {
        let mut reassembly = Reassembly::with_room(20_000);
        let mut counted = 0;
        for (id, offset, more, len, v6) in &frames {
            let frame = fragment_at(*v6, *id, *offset, *more, len * 8);
            let whole = reassembly.take(&frame, 1, at(0), |_| counted += 1);
            prop_assert!(whole.is_none_or(|it| it.octets().len() <= 14 + 65_535 + 40));
            prop_assert!(reassembly.held <= 20_000);
            let held: usize = reassembly.queues.values().map(|queue| queue.pieces.len()).sum();
            prop_assert!(held <= 20_000 / OVERHEAD);
            prop_assert_eq!(reassembly.ages.len(), reassembly.queues.len());
        }
        reassembly.expire(at(60), |_| counted += 1);
        prop_assert!(reassembly.is_empty() && reassembly.held == 0);
        prop_assert!(counted <= frames.len());
    }
}

/// A fragment of `len` octets at `offset` units.
fn fragment_at(v6: bool, id: u8, offset: u16, more: bool, len: usize) -> Frame {
    let mut octets = vec![2; 12];
    let payload_len = u16::try_from(len).unwrap();
    if v6 {
        octets.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        octets.extend((payload_len + 8).to_be_bytes());
        octets.extend([44, 64]);
        octets.extend([1; 32]);
        octets.extend([17, 0]);
        octets.extend((offset << 3 | u16::from(more)).to_be_bytes());
        octets.extend([0, 0, 0, id]);
    } else {
        let mut header = vec![0x45, 0];
        header.extend((payload_len + 20).to_be_bytes());
        header.extend([0, id]);
        header.extend((offset | u16::from(more) << 13).to_be_bytes());
        header.extend([64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        let sum = Sum::ZERO.octets(&header).checksum();
        header[10..12].copy_from_slice(&sum.to_ne_bytes());
        octets.extend([8, 0]);
        octets.extend(header);
    }
    octets.resize(octets.len() + len, 9);
    Frame::new(octets)
}

#[test]
fn the_oldest_make_room() {
    let mut reassembly = Reassembly::with_room(3 * (OVERHEAD + 100));
    let mut counted = Vec::new();
    for id in 0..5 {
        let frame = fragment_at(false, id, 0, true, 64);
        reassembly.take(&frame, 1, at(0), |reason| counted.push(reason));
    }
    assert_eq!(counted, [Reason::FragmentPushedOut; 2]);
    let last = |id| fragment_at(false, id, 8, false, 64);
    assert!(reassembly.take(&last(1), 1, at(0), |_| ()).is_none());
    assert!(reassembly.take(&last(4), 1, at(0), |_| ()).is_some());
}

#[test]
fn fragments_wait_half_a_minute_those_of_ipv6_a_whole_one() {
    let mut reassembly = Reassembly::default();
    for v6 in [false, true] {
        reassembly.take(&fragment_at(v6, 1, 0, true, 64), 7, at(0), |_| ());
        reassembly.take(&fragment_at(v6, 2, 8, true, 64), 7, at(0), |_| ());
    }
    let mut counted = Vec::new();
    let mut expire = |seconds| reassembly.expire(at(seconds), |reason| counted.push(reason));
    assert!(expire(29).is_empty());
    let gone: Vec<_> =
        expire(30).into_iter().map(|it| it.first.map(|it| it.octets()[14])).collect();
    assert_eq!(gone, [Some(0x45), None]);
    assert!(expire(59).is_empty());
    assert_eq!(expire(60).len(), 2);
    assert_eq!(counted, [Reason::FragmentTimeout; 4]);
}

#[test]
fn a_fragment_that_is_too_late_begins_anew() {
    let mut reassembly = Reassembly::default();
    let mut counted = Vec::new();
    let (first, last) = (fragment_at(false, 1, 0, true, 64), fragment_at(false, 1, 8, false, 64));
    assert!(reassembly.take(&first, 1, at(0), |reason| counted.push(reason)).is_none());
    assert!(reassembly.take(&last, 1, at(30), |reason| counted.push(reason)).is_none());
    assert!(reassembly.take(&first, 1, at(31), |reason| counted.push(reason)).is_some());
    assert_eq!(counted, [Reason::FragmentTimeout]);
}

#[test]
fn a_datagram_has_one_end_and_fits_its_length_field() {
    for (second, more) in [(16, false), (16, true), (4, false)] {
        let frames = [fragment_at(false, 1, 8, false, 64), fragment_at(false, 1, second, more, 64)];
        let (_, counted) = put_together(&frames);
        assert_eq!(counted, [Reason::FragmentBad; 2], "{second} {more}");
    }
    for v6 in [false, true] {
        let (_, counted) = put_together(&[fragment_at(v6, 1, 8190, false, 64)]);
        assert_eq!(counted, [Reason::FragmentBad]);
    }
}

#[test]
fn congestion_that_one_fragment_met_the_datagram_met() {
    assert_eq!(congestion([0, 0].into_iter()), Some(0));
    assert_eq!(congestion([2, 2].into_iter()), Some(0));
    assert_eq!(congestion([2, 3, 1].into_iter()), Some(3));
    assert_eq!(congestion([0, 3].into_iter()), None);
}

#[test]
fn dont_fragment_is_kept_if_the_longest_fragment_has_it() {
    let with = |frame: &Frame| {
        let mut octets = frame.octets().to_vec();
        octets[20] |= 0x40;
        octets[24..26].fill(0);
        let sum = Sum::ZERO.octets(&octets[14..34]).checksum();
        octets[24..26].copy_from_slice(&sum.to_ne_bytes());
        Frame::new(octets)
    };
    let frames = cut(&datagram(Kind::UdpV4, 2000), 1000);
    let (longest, shortest) = (with(&frames[0]), with(frames.last().unwrap()));
    let (put, _) = put_together(&[&[longest], &frames[1..]].concat());
    assert_eq!(put[0].octets()[20] & 0x40, 0x40);
    let (put, _) = put_together(&[&frames[..frames.len() - 1], &[shortest]].concat());
    assert_eq!(put[0].octets()[20] & 0x40, 0);
}
