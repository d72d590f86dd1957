//! Putting fragments together (RFC 791, RFC 8200, RFC 5722), as the kernel does
//! for a host: in memory of bounded size, within a bounded time.
//!
//! The module is pure: octets and the present time go in, datagrams come out.

mod piece;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};

use ipvs_core::time::{Instant, Millis};
use ipvs_core::verdict::Reason;
use ipvs_wire::checksum::Sum;
use ipvs_wire::ipv4::DONT_FRAGMENT;

use crate::frame::Frame;
use piece::{FRAGMENT_HEADER, Key, Piece};

/// How long fragments of IPv4 wait for the rest (`ipfrag_time`) …
const PATIENCE_V4: Millis = Millis(30_000);
/// … and those of IPv6 (RFC 8200, section 4.5).
const PATIENCE_V6: Millis = Millis(60_000);
/// Octets that all waiting fragments may take (`ipfrag_high_thresh`).
const ROOM: usize = 4 << 20;
/// What a fragment takes besides its octets.
const OVERHEAD: usize = 256;
/// Congestion experienced, among the congestion bits.
const CE: u8 = 3;
/// Place of type of service, length, flags and checksum in an IPv4 header.
const TOS: usize = 1;
const TOTAL_LEN: usize = 2;
const FLAGS: usize = 6;
const CHECKSUM: usize = 10;
/// Place of the payload's length in an IPv6 header.
const PAYLOAD_LEN: usize = 4;

/// Fragments that wait for the rest of their datagrams.
#[derive(Debug)]
pub struct Reassembly {
    queues: HashMap<Key, Queue>,
    /// The queues by age.
    ages: BTreeMap<u64, Key>,
    next_age: u64,
    held: usize,
    room: usize,
}

/// A datagram that did not become whole in time.
#[derive(Debug)]
pub struct Expired {
    /// Its first fragment, if that is there.
    pub first: Option<Frame>,
    /// The interface that it came in by.
    pub ifindex: u32,
}

/// What is there of one datagram.
#[derive(Debug)]
struct Queue {
    age: u64,
    until: Instant,
    ifindex: u32,
    /// By offset; they do not overlap.
    pieces: BTreeMap<usize, (Frame, Piece)>,
    /// Octets of the datagram that are there.
    present: usize,
    /// Octets that it has, once the last fragment is there.
    end: Option<usize>,
}

/// How a fragment fits to those that are there.
#[derive(Debug, PartialEq, Eq)]
enum Fit {
    New,
    Known,
    Contradicts,
}

impl Default for Reassembly {
    fn default() -> Self {
        Self::with_room(ROOM)
    }
}

impl Reassembly {
    /// With room for `room` octets.
    pub fn with_room(room: usize) -> Self {
        Self { queues: HashMap::new(), ages: BTreeMap::new(), next_age: 0, held: 0, room }
    }

    /// Takes in the fragment in `frame`, which came in by interface `ifindex`;
    /// returns the datagram if it is whole now. Hands the reason of every
    /// fragment that is dropped to `count`.
    pub fn take(
        &mut self,
        frame: &Frame,
        ifindex: u32,
        now: Instant,
        mut count: impl FnMut(Reason),
    ) -> Option<Frame> {
        let Some(piece) = Piece::of(frame) else {
            count(Reason::FragmentBad);
            return None;
        };
        let key = piece.key;
        let patience = if key.version == 6 { PATIENCE_V6 } else { PATIENCE_V4 };
        if self.queues.get(&key).is_some_and(|queue| queue.until <= now) {
            // Nobody has looked at the time yet.
            self.remove(&key)
                .into_iter()
                .for_each(|it| it.drop_all(Reason::FragmentTimeout, &mut count));
        }
        let queue = self.queues.entry(key).or_insert_with(|| {
            let age = self.next_age;
            self.next_age += 1;
            self.ages.insert(age, key);
            Queue {
                age,
                until: now.after(patience),
                ifindex,
                pieces: BTreeMap::new(),
                present: 0,
                end: None,
            }
        });
        match queue.fit(&piece) {
            Fit::Known => {
                count(Reason::FragmentBad);
                return None;
            }
            Fit::Contradicts => {
                count(Reason::FragmentBad);
                self.remove(&key)
                    .into_iter()
                    .for_each(|it| it.drop_all(Reason::FragmentBad, &mut count));
                return None;
            }
            Fit::New => {}
        }
        queue.ifindex = ifindex;
        queue.add(Frame::new(frame.octets().to_vec()), piece);
        self.held += frame.octets().len() + OVERHEAD;
        if queue.is_whole() {
            let queue = self.remove(&key)?;
            let number = queue.pieces.len();
            let whole = queue.into_datagram();
            if whole.is_none() {
                (0..number).for_each(|_| count(Reason::FragmentBad));
            }
            return whole;
        }
        while self.held > self.room
            && let Some((_, oldest)) = self.ages.first_key_value()
        {
            let oldest = *oldest;
            self.remove(&oldest)
                .into_iter()
                .for_each(|it| it.drop_all(Reason::FragmentPushedOut, &mut count));
        }
        None
    }

    /// Gives up what has waited too long.
    pub fn expire(&mut self, now: Instant, mut count: impl FnMut(Reason)) -> Vec<Expired> {
        let due = self.queues.iter().filter(|(_, queue)| queue.until <= now);
        let mut due: Vec<(u64, Key)> = due.map(|(key, queue)| (queue.age, *key)).collect();
        due.sort_unstable_by_key(|(age, _)| *age);
        let due = due.into_iter().filter_map(|(_, key)| self.remove(&key));
        due.map(|mut queue| {
            let first = queue.pieces.remove(&0).map(|(frame, _)| frame);
            if first.is_some() {
                count(Reason::FragmentTimeout);
            }
            let ifindex = queue.ifindex;
            queue.drop_all(Reason::FragmentTimeout, &mut count);
            Expired { first, ifindex }
        })
        .collect()
    }

    /// Whether no fragment waits.
    pub fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }

    fn remove(&mut self, key: &Key) -> Option<Queue> {
        let queue = self.queues.remove(key)?;
        self.ages.remove(&queue.age);
        self.held -=
            queue.pieces.values().map(|(frame, _)| frame.octets().len() + OVERHEAD).sum::<usize>();
        Some(queue)
    }
}

impl Queue {
    fn fit(&self, piece: &Piece) -> Fit {
        let (start, end) = (piece.offset, piece.offset + piece.payload.len());
        let beyond =
            self.end.is_some_and(|known| if piece.more { end > known } else { end != known });
        let before = self.pieces.last_key_value().map_or(0, |(at, (_, it))| at + it.payload.len());
        if beyond || (!piece.more && end < before) {
            return Fit::Contradicts;
        }
        // From the last that begins at or before it.
        let from = self.pieces.range(..=start).next_back().map_or(start, |(at, _)| *at);
        let mut covered = start;
        let mut meets = false;
        for (at, (_, other)) in self.pieces.range(from..end) {
            let other_end = at + other.payload.len();
            if other_end <= start {
                continue;
            }
            meets = true;
            if *at > covered {
                return Fit::Contradicts;
            }
            covered = other_end;
        }
        match meets {
            false => Fit::New,
            true if covered >= end => Fit::Known,
            true => Fit::Contradicts,
        }
    }

    fn add(&mut self, frame: Frame, piece: Piece) {
        self.present += piece.payload.len();
        if !piece.more {
            self.end = Some(piece.offset + piece.payload.len());
        }
        self.pieces.insert(piece.offset, (frame, piece));
    }

    fn is_whole(&self) -> bool {
        self.end == Some(self.present)
    }

    fn drop_all(self, reason: Reason, count: &mut impl FnMut(Reason)) {
        self.pieces.into_iter().for_each(|_| count(reason));
    }

    /// The datagram, with the headers of the first fragment; `None` if no
    /// datagram can be made of them.
    fn into_datagram(self) -> Option<Frame> {
        let (first, head) = self.pieces.first_key_value()?.1;
        let ecn = congestion(self.pieces.values().map(|(_, piece)| piece.ecn))?;
        let pieces = || self.pieces.values().map(|(_, piece)| piece);
        let longest = pieces().map(|piece| piece.total_len).max()?;
        // The sender wants to know of a shorter path if it said so of the longest.
        let keep = |piece: &Piece| piece.dont_fragment && piece.total_len == longest;
        let dont_fragment = pieces().any(keep);
        let headers_end = head.payload.start;
        let mut octets = Vec::with_capacity(headers_end + self.present);
        let headers = first.octets().get(..headers_end)?;
        if head.key.version == 6 {
            let at = headers_end - FRAGMENT_HEADER;
            let (kept, fragment) = headers.split_at_checked(at)?;
            octets.extend_from_slice(kept);
            *octets.get_mut(head.named_at)? = *fragment.first()?;
        } else {
            octets.extend_from_slice(headers);
        }
        for (frame, piece) in self.pieces.values() {
            octets.extend_from_slice(frame.octets().get(piece.payload.clone())?);
        }
        let packet_len = octets.len() - head.l3;
        let header = octets.get_mut(head.l3..)?;
        if head.key.version == 6 {
            let len = u16::try_from(packet_len - 40).ok()?;
            put(header, PAYLOAD_LEN, len.to_be_bytes())?;
            // The congestion bits are the fifth and sixth of the second nibble pair.
            *header.get_mut(TOS)? |= ecn << 4;
        } else {
            put(header, TOTAL_LEN, u16::try_from(packet_len).ok()?.to_be_bytes())?;
            let flags = if dont_fragment { DONT_FRAGMENT } else { 0 };
            put(header, FLAGS, flags.to_be_bytes())?;
            *header.get_mut(TOS)? |= ecn;
            put(header, CHECKSUM, [0; 2])?;
            let sum = Sum::ZERO.octets(header.get(..headers_end - head.l3)?).checksum();
            put(header, CHECKSUM, sum.to_ne_bytes())?;
        }
        let mut whole = Frame::new(octets);
        whole.longest_piece = longest;
        whole.pieces = pieces().map(|piece| piece.payload.len()).collect();
        Some(whole)
    }
}

fn put<const N: usize>(octets: &mut [u8], at: usize, new: [u8; N]) -> Option<()> {
    *octets.get_mut(at..)?.first_chunk_mut()? = new;
    Some(())
}

/// The congestion bits of a datagram, to be added to those of its first
/// fragment: one experienced congestion, all of it did. `None`: some can say
/// so and others cannot, so that it would be lost (RFC 3168, section 5.3).
fn congestion(pieces: impl Iterator<Item = u8>) -> Option<u8> {
    let seen = pieces.fold(0_u8, |seen, ecn| seen | 1 << (ecn & 3));
    let incapable = seen & 1 != 0;
    if incapable && seen != 1 {
        return None;
    }
    Some(if seen & 1 << CE != 0 { CE } else { 0 })
}
