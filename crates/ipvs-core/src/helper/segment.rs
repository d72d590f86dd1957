//! A TCP segment as the helper sees it, and what it changes of one.

use ipvs_wire::checksum::{Delta, Sum};
use ipvs_wire::transport::{protocol, tcp};
use ipvs_wire::{Buffer, Headers, ipv4, ipv6};

/// Place of the sequence number in a TCP header.
pub(super) const SEQUENCE: u32 = 4;
/// Place of the acknowledgement number.
pub(super) const ACKNOWLEDGEMENT: u32 = 8;
/// Place of the header's length, in words, in the upper half of the octet.
const DATA_OFFSET: u32 = 12;

/// What the helper needs to know of a segment besides its headers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    /// Where the TCP header begins.
    pub(super) at: u32,
    /// Where the payload begins; the options end there.
    pub(super) payload: u32,
    /// Where the payload ends.
    pub(super) end: u32,
    /// Sequence number of the first octet.
    pub(super) sequence: u32,
    /// The octet that the other side is to send next.
    pub(super) acknowledged: u32,
    pub(super) flags: u8,
}

/// A part of a segment's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) from: u32,
    pub(super) to: u32,
}

impl Segment {
    /// `None`: the header is cut short, or says a length that cannot be.
    pub(super) fn read<B: Buffer>(buf: &B, h: &Headers) -> Option<Self> {
        if !h.has_transport {
            return None;
        }
        let [offset] = buf.load(h.l4 + DATA_OFFSET)?;
        let header_len = u32::from(offset >> 4) * 4;
        let end = h.l4 + h.transport_len();
        let payload = h.l4 + header_len;
        if header_len < tcp::HEADER_LEN || payload > end {
            return None;
        }
        Some(Self {
            at: h.l4,
            payload,
            end,
            sequence: u32::from_be_bytes(buf.load(h.l4 + SEQUENCE)?),
            acknowledged: u32::from_be_bytes(buf.load(h.l4 + ACKNOWLEDGEMENT)?),
            flags: h.event,
        })
    }

    /// The sequence number behind this segment.
    pub(super) fn next_sequence(&self) -> u32 {
        let marks = u32::from(self.flags & tcp::SYN != 0) + u32::from(self.flags & tcp::FIN != 0);
        self.sequence.wrapping_add(self.end - self.payload).wrapping_add(marks)
    }
}

/// Whether the checksum is right, or still to be filled in.
pub(super) fn is_sound<B: Buffer>(buf: &B, h: &Headers) -> bool {
    buf.checksum_pending() || full_sum(buf, h, h.transport_len()).is_some_and(|sum| sum == 0)
}

/// Replaces a part of the payload and sets the datagram's length; returns by
/// how much it grew. The checksum is left to [`sum_up`].
pub(super) fn rewrite<B: Buffer>(
    buf: &mut B,
    h: &Headers,
    place: Place,
    text: &[u8],
) -> Option<i32> {
    let old_len = place.to.checked_sub(place.from)?;
    let growth = i32::try_from(text.len()).ok()?.checked_sub_unsigned(old_len)?;
    let total_len = h.total_len.checked_add_signed(growth)?;
    let field = u16::try_from(match h.version {
        6 => total_len.checked_sub(ipv6::HEADER_LEN)?,
        _ => total_len,
    });
    // Only a train of segments may be longer than the field can say.
    if field.is_err() && buf.segment_len() == 0 {
        return None;
    }
    buf.splice(place.from, old_len, text)?;
    if growth != 0
        && let Ok(field) = field
    {
        if h.version == 6 {
            ipv6::set_payload_len(buf, h.l3, field)?;
        } else {
            ipv4::set_total_len(buf, h.l3, field)?;
        }
    }
    Some(growth)
}

/// Makes the checksum right after changes to the segment, which grew by `growth`.
pub(super) fn sum_up<B: Buffer>(buf: &mut B, h: &Headers, growth: i32) -> Option<()> {
    let at = h.l4 + tcp::CHECKSUM;
    let len = h.transport_len().checked_add_signed(growth)?;
    if buf.checksum_pending() {
        let pseudo = Delta::NONE.word32(h.transport_len().to_be(), len.to_be());
        return buf.patch_transport(at, pseudo, Delta::NONE, false);
    }
    buf.store(at, [0; 2])?;
    let sum = full_sum(buf, h, len)?;
    buf.store(at, sum.to_ne_bytes())
}

/// The checksum over pseudo header and segment, which is 0 where the segment
/// holds the right one.
fn full_sum<B: Buffer>(buf: &B, h: &Headers, len: u32) -> Option<u16> {
    let pseudo = Sum::ZERO
        .addr(h.source)
        .addr(h.destination)
        .add16(u16::from_ne_bytes([0, protocol::TCP]))
        .add32(len.to_be());
    Some(pseudo.add16(buf.sum(h.l4, len)?).checksum())
}
