//! A frame in ordinary memory: the [`Buffer`] of user space and of tests.

use ipvs_wire::buffer::{Buffer, Outer};
use ipvs_wire::checksum::{self, Delta, Sum};
use ipvs_wire::crc32c;
use ipvs_wire::tunnel::Carrier;

/// Room in front of a frame for an outer header, so that nothing but the
/// Ethernet header has to be moved for one.
const HEADROOM: usize = 64;

/// A frame in a vector, with what its virtio header said of it.
#[derive(Clone, Debug, Default)]
pub struct Frame {
    octets: Vec<u8>,
    /// Where the frame begins in `octets`.
    start: usize,
    outer_len: u32,
    carrier: Carrier,
    /// The transport checksum holds the pseudo header's sum only; whoever
    /// sends the frame on fills in the rest.
    pub checksum_pending: bool,
    /// Octets of the longest IP packet that the datagram came in, if it came in
    /// several; else 0.
    pub longest_piece: u32,
    /// Octets of each of them, without headers; none if it came whole.
    pub pieces: Vec<usize>,
    /// Transport payload of one segment if the frame is a train of segments.
    pub segment_len: u32,
}

impl Frame {
    /// A frame with complete checksums.
    pub fn new(octets: Vec<u8>) -> Self {
        Self { octets, ..Self::default() }
    }

    /// Its octets.
    pub fn octets(&self) -> &[u8] {
        self.octets.get(self.start..).unwrap_or_default()
    }

    /// Its octets, to be changed in place.
    pub fn octets_mut(&mut self) -> &mut [u8] {
        self.octets.get_mut(self.start..).unwrap_or_default()
    }

    /// Gives the octets back.
    pub fn into_octets(mut self) -> Vec<u8> {
        self.octets.drain(..self.start);
        self.octets
    }

    /// Octets of the tunnel's header that was put in front of the packet; 0 if
    /// there is none.
    pub fn outer_len(&self) -> u32 {
        self.outer_len
    }

    /// What carries the packet in that tunnel, behind its IP header.
    pub fn carrier(&self) -> Carrier {
        self.carrier
    }

    /// Makes this another frame, of `parts` one after the other, in the memory
    /// that it has.
    pub fn refill(&mut self, parts: &[&[u8]]) {
        self.empty();
        for part in parts {
            self.octets.extend_from_slice(part);
        }
    }

    /// Makes this another frame of `len` zero octets.
    pub fn refill_zeroed(&mut self, len: usize) {
        self.empty();
        self.octets.resize(HEADROOM + len, 0);
    }

    fn empty(&mut self) {
        self.octets.clear();
        self.octets.resize(HEADROOM, 0);
        self.start = HEADROOM;
        self.outer_len = 0;
        self.carrier = Carrier::Bare;
        self.checksum_pending = false;
        self.segment_len = 0;
        self.longest_piece = 0;
        self.pieces.clear();
    }

    fn range(&self, at: u32, count: u32) -> Option<&[u8]> {
        let at = at as usize;
        self.octets().get(at..at.checked_add(count as usize)?)
    }
}

/// Equal is what would be sent, wherever it lies in memory.
impl PartialEq for Frame {
    fn eq(&self, other: &Self) -> bool {
        self.octets() == other.octets()
            && self.checksum_pending == other.checksum_pending
            && self.segment_len == other.segment_len
    }
}

impl Eq for Frame {}

impl Buffer for Frame {
    fn load<const N: usize>(&self, at: u32) -> Option<[u8; N]> {
        self.octets().get(at as usize..)?.first_chunk().copied()
    }

    fn store<const N: usize>(&mut self, at: u32, octets: [u8; N]) -> Option<()> {
        *self.octets_mut().get_mut(at as usize..)?.first_chunk_mut()? = octets;
        Some(())
    }

    fn load_words<const N: usize>(&self, at: u32) -> Option<[u32; N]> {
        let (words, _) = self.octets().get(at as usize..)?.as_chunks();
        let octets: &[[u8; 4]; N] = words.first_chunk()?;
        Some(octets.map(u32::from_ne_bytes))
    }

    fn store_words<const N: usize>(&mut self, at: u32, words: [u32; N]) -> Option<()> {
        let (octets, _) = self.octets_mut().get_mut(at as usize..)?.as_chunks_mut();
        *octets.first_chunk_mut()? = words.map(u32::to_ne_bytes);
        Some(())
    }

    #[expect(clippy::cast_possible_truncation, reason = "no frame has 2^32 octets")]
    fn len(&self) -> u32 {
        self.octets().len() as u32
    }

    fn segment_len(&self) -> u32 {
        self.segment_len
    }

    fn longest_piece(&self) -> u32 {
        self.longest_piece
    }

    fn insert(&mut self, at: u32, count: u32, outer: Outer) -> Option<()> {
        let (at, room) = (at as usize, count as usize);
        self.octets().get(at..)?;
        let place = self.start + at;
        if let Some(start) = self.start.checked_sub(room) {
            self.octets.copy_within(self.start..place, start);
            self.octets.get_mut(place - room..place)?.fill(0);
            self.start = start;
        } else {
            self.octets.splice(place..place, core::iter::repeat_n(0, room));
        }
        match outer {
            Outer::TunnelV4(carrier) | Outer::TunnelV6(carrier) => {
                self.outer_len = count;
                self.carrier = carrier;
            }
            Outer::Own => {
                // The quoted packet is payload now: nobody cuts it or fills anything in.
                self.outer_len = 0;
                self.segment_len = 0;
                self.longest_piece = 0;
                self.pieces.clear();
                self.checksum_pending = false;
            }
        }
        Some(())
    }

    fn splice(&mut self, at: u32, count: u32, with: &[u8]) -> Option<()> {
        self.range(at, count)?;
        let from = self.start + at as usize;
        self.octets.splice(from..from + count as usize, with.iter().copied());
        Some(())
    }

    fn checksum_pending(&self) -> bool {
        self.checksum_pending
    }

    fn remove(&mut self, at: u32, count: u32) -> Option<()> {
        let (at, count) = (at as usize, count as usize);
        self.octets().get(at..at.checked_add(count)?)?;
        let start = self.start + count;
        self.octets.copy_within(self.start..self.start + at, start);
        self.start = start;
        Some(())
    }

    fn truncate(&mut self, len: u32) -> Option<()> {
        self.octets.truncate(self.start + len as usize);
        Some(())
    }

    fn sum(&self, at: u32, count: u32) -> Option<u16> {
        Some(Sum::ZERO.octets(self.range(at, count)?).fold())
    }

    fn crc32c(&self, at: u32, count: u32, zeroed: u32) -> Option<u32> {
        let zeroed = zeroed.wrapping_sub(at) as usize;
        let state = self.range(at, count)?.iter().enumerate().fold(
            crc32c::START,
            |state, (place, octet)| {
                let hidden = place >= zeroed && place < zeroed + 4;
                crc32c::step(state, if hidden { 0 } else { *octet })
            },
        );
        Some(crc32c::finish(state))
    }

    fn patch_transport(&mut self, at: u32, pseudo: Delta, ports: Delta, udp: bool) -> Option<()> {
        let old = u16::from_ne_bytes(self.load(at)?);
        if self.checksum_pending {
            // The field holds the sum of the pseudo header, not its complement.
            return self.store(at, (!checksum::patched(!old, pseudo)).to_ne_bytes());
        }
        let new = checksum::patched(old, pseudo.plus(ports));
        self.store(at, if udp { checksum::udp_wire(new) } else { new }.to_ne_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame with room in front, and the same without.
    fn both(octets: &[u8]) -> [Frame; 2] {
        let mut roomy = Frame::default();
        roomy.refill(&[octets]);
        [roomy, Frame::new(octets.to_vec())]
    }

    #[test]
    fn an_outer_header_goes_between_ethernet_and_packet_with_and_without_headroom() {
        for mut frame in both(&[1, 2, 3, 4]) {
            frame.insert(2, 3, Outer::TunnelV4(Carrier::Bare)).unwrap();
            assert_eq!(frame.octets(), [1, 2, 0, 0, 0, 3, 4]);
            assert_eq!((frame.len(), frame.outer_len()), (7, 3));
            assert_eq!(frame.into_octets(), [1, 2, 0, 0, 0, 3, 4]);
        }
    }

    #[test]
    fn what_is_removed_leaves_ethernet_and_the_rest() {
        for mut frame in both(&[1, 2, 3, 4, 5]) {
            frame.remove(1, 2).unwrap();
            assert_eq!(frame.octets(), [1, 4, 5]);
            assert_eq!(frame.remove(2, 2), None);
            frame.insert(1, 1, Outer::Own).unwrap();
            assert_eq!(frame.into_octets(), [1, 0, 4, 5]);
        }
    }

    #[test]
    fn an_insertion_past_the_end_is_refused() {
        for mut frame in both(&[1, 2]) {
            assert_eq!(frame.insert(3, 4, Outer::TunnelV4(Carrier::Bare)), None);
            assert_eq!(frame.octets(), [1, 2]);
        }
    }

    #[test]
    fn a_quoted_train_is_neither_cut_nor_completed() {
        for mut frame in both(&[1, 2, 3]) {
            (frame.segment_len, frame.checksum_pending) = (1, true);
            frame.truncate(2).unwrap();
            frame.insert(1, 1, Outer::Own).unwrap();
            assert_eq!(frame, Frame::new(vec![1, 0, 2]));
        }
    }

    #[test]
    fn a_refilled_frame_has_forgotten_the_one_before() {
        let mut frame = Frame::new(vec![1; 40]);
        (frame.segment_len, frame.checksum_pending) = (1, true);
        frame.insert(2, 20, Outer::TunnelV4(Carrier::Bare)).unwrap();
        frame.refill(&[&[7], &[8, 9]]);
        assert_eq!((&frame, frame.outer_len()), (&Frame::new(vec![7, 8, 9]), 0));
    }
}
