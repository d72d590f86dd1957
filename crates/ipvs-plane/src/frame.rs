//! A frame in ordinary memory: the [`Buffer`] of user space and of tests.

use ipvs_wire::buffer::{Buffer, Outer};
use ipvs_wire::checksum::{self, Delta, Sum};
use ipvs_wire::crc32c;

/// A frame in a vector, with what its virtio header said of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    octets: Vec<u8>,
    /// The transport checksum holds the pseudo header's sum only; whoever
    /// sends the frame on fills in the rest.
    pub checksum_pending: bool,
    /// Transport payload of one segment if the frame is a train of segments.
    pub segment_len: u32,
}

impl Frame {
    /// A frame with complete checksums.
    pub fn new(octets: Vec<u8>) -> Self {
        Self { octets, checksum_pending: false, segment_len: 0 }
    }

    /// Its octets.
    pub fn octets(&self) -> &[u8] {
        &self.octets
    }

    /// Gives the octets back.
    pub fn into_octets(self) -> Vec<u8> {
        self.octets
    }

    fn range(&self, at: u32, count: u32) -> Option<&[u8]> {
        let at = at as usize;
        self.octets.get(at..at.checked_add(count as usize)?)
    }
}

impl Buffer for Frame {
    fn load<const N: usize>(&self, at: u32) -> Option<[u8; N]> {
        self.octets.get(at as usize..)?.first_chunk().copied()
    }

    fn store<const N: usize>(&mut self, at: u32, octets: [u8; N]) -> Option<()> {
        *self.octets.get_mut(at as usize..)?.first_chunk_mut()? = octets;
        Some(())
    }

    #[expect(clippy::cast_possible_truncation, reason = "no frame has 2^32 octets")]
    fn len(&self) -> u32 {
        self.octets.len() as u32
    }

    fn segment_len(&self) -> u32 {
        self.segment_len
    }

    fn insert(&mut self, at: u32, count: u32, _outer: Outer) -> Option<()> {
        let at = at as usize;
        self.octets.get(at..)?;
        self.octets.splice(at..at, core::iter::repeat_n(0, count as usize));
        Some(())
    }

    fn truncate(&mut self, len: u32) -> Option<()> {
        self.octets.truncate(len as usize);
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
