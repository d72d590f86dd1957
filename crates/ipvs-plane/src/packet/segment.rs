//! Does in software what a virtio header cannot ask for: cuts a train of
//! segments that is inside a tunnel, and fills in the checksums.
//!
//! The kernel cuts trains by the same rules (`tcp_gso_segment`): sequence
//! numbers and IP identifications go on, FIN and PSH are the last segment's,
//! CWR is the first one's.

use ipvs_wire::checksum::{Sum, udp_wire};
use ipvs_wire::transport::{protocol, tcp, udp};
use ipvs_wire::tunnel::Carrier;
use ipvs_wire::{Buffer, ethernet, ipv4, ipv6};

use super::pool::Pool;
use crate::frame::Frame;

/// IPv6 extension headers that are followed, at most.
const MAX_EXTENSIONS: u32 = 8;
/// Place of TCP's sequence number, header length and flags.
const SEQUENCE: u32 = 4;
const DATA_OFFSET: u32 = 12;
const FLAGS: u32 = 13;
/// TCP flags that only the last segment has, …
const LAST_ONLY: u8 = 0x01 | 0x08;
/// … and that only the first one has.
const FIRST_ONLY: u8 = 0x80;

/// Where the headers of a tunnelled packet stand.
#[derive(Clone, Copy, Debug)]
struct Layout {
    /// The tunnel's header.
    outer: u32,
    /// The header of the packet inside.
    inner: u32,
    /// What carries that packet, and where its headers stand.
    carrier: Carrier,
    carrier_at: u32,
    /// Its transport header …
    l4: u32,
    /// … and what follows that.
    payload: u32,
    /// The end of the packet.
    end: u32,
    tcp: bool,
}

/// Makes of the tunnelled packet in `frame` one or more that can be sent as
/// they are, and hands each to `each`. `None`: it is no TCP or UDP packet, or
/// not whole.
///
/// Segments of TCP are made so short that they fit into `mtu` octets with the
/// tunnel's header: where one ends is nobody's business. Those of UDP are
/// datagrams.
pub(crate) fn finish(
    frame: Frame,
    mtu: u32,
    pool: &mut Pool,
    mut each: impl FnMut(Frame),
) -> Option<()> {
    let Some(layout) = Layout::of(&frame) else {
        pool.give(frame);
        return None;
    };
    let room = mtu.saturating_sub(layout.payload - layout.outer);
    let segment_len =
        if layout.tcp && room != 0 { frame.segment_len.min(room) } else { frame.segment_len };
    let payload_len = layout.end - layout.payload;
    if segment_len == 0 || payload_len <= segment_len {
        let mut frame = frame;
        complete(&mut frame, &layout)?;
        frame.checksum_pending = false;
        frame.segment_len = 0;
        each(frame);
        return Some(());
    }
    let mut cut = || {
        let mut at = layout.payload;
        let mut number: u16 = 0;
        while at < layout.end {
            let to = layout.end.min(at + segment_len);
            let mut segment = pool.take();
            let headers = frame.octets().get(..layout.payload as usize)?;
            let payload = frame.octets().get(at as usize..to as usize)?;
            segment.refill(&[headers, payload]);
            let own = Layout { end: layout.payload + (to - at), ..layout };
            number_segment(&mut segment, &own, number, at - layout.payload, to == layout.end)?;
            complete(&mut segment, &own)?;
            each(segment);
            at = to;
            number = number.wrapping_add(1);
        }
        Some(())
    };
    let done = cut();
    pool.give(frame);
    done
}

impl Layout {
    fn of(frame: &Frame) -> Option<Self> {
        let outer = ethernet::parse(frame)?.payload;
        let inner = outer + frame.outer_len();
        let carrier = frame.carrier();
        let carrier_at = inner.checked_sub(carrier.header_len())?;
        let [first]: [u8; 1] = frame.load(inner)?;
        let (next, l4, total_len) = if first >> 4 == 6 {
            let [high, low]: [u8; 2] = frame.load(inner + 4)?;
            let (next, l4) = behind_extensions(frame, inner)?;
            let payload_len = u32::from(u16::from_be_bytes([high, low]));
            (next, l4, if payload_len == 0 { 0 } else { payload_len + ipv6::HEADER_LEN })
        } else {
            let [high, low]: [u8; 2] = frame.load(inner + 2)?;
            let [next]: [u8; 1] = frame.load(inner + 9)?;
            let total_len = u32::from(u16::from_be_bytes([high, low]));
            (next, inner + u32::from(first & 0x0f) * 4, total_len)
        };
        // A train longer than the field can say has 0 there.
        let end = if total_len == 0 { frame.len() } else { inner + total_len };
        let (tcp, header_len) = match next {
            protocol::TCP => {
                let [offset]: [u8; 1] = frame.load(l4 + DATA_OFFSET)?;
                (true, u32::from(offset >> 4) * 4)
            }
            protocol::UDP => (false, udp::HEADER_LEN),
            _ => return None,
        };
        let payload = l4 + header_len;
        (payload <= end && end <= frame.len()).then_some(Self {
            outer,
            inner,
            carrier,
            carrier_at,
            l4,
            payload,
            end,
            tcp,
        })
    }
}

/// The protocol behind the extension headers, and where it begins.
fn behind_extensions(frame: &Frame, l3: u32) -> Option<(u8, u32)> {
    let [mut next]: [u8; 1] = frame.load(l3 + 6)?;
    let mut at = l3 + ipv6::HEADER_LEN;
    for _ in 0..MAX_EXTENSIONS {
        match next {
            ipv6::extension::HOP_BY_HOP
            | ipv6::extension::ROUTING
            | ipv6::extension::DESTINATION_OPTIONS => {
                let [following, len]: [u8; 2] = frame.load(at)?;
                next = following;
                at += (u32::from(len) + 1) * 8;
            }
            _ => return Some((next, at)),
        }
    }
    None
}

/// Writes what tells one segment from the next: lengths, identifications,
/// sequence number and flags.
fn number_segment(
    segment: &mut Frame,
    layout: &Layout,
    number: u16,
    offset: u32,
    last: bool,
) -> Option<()> {
    set_length(segment, layout.outer, layout.end, number)?;
    layout.carrier.set_length(segment, layout.carrier_at, layout.end)?;
    set_length(segment, layout.inner, layout.end, number)?;
    if layout.tcp {
        let sequence = u32::from_be_bytes(segment.load(layout.l4 + SEQUENCE)?);
        segment.store(layout.l4 + SEQUENCE, sequence.wrapping_add(offset).to_be_bytes())?;
        let [mut flags]: [u8; 1] = segment.load(layout.l4 + FLAGS)?;
        if !last {
            flags &= !LAST_ONLY;
        }
        if number != 0 {
            flags &= !FIRST_ONLY;
        }
        segment.store(layout.l4 + FLAGS, [flags])
    } else {
        let len = u16::try_from(layout.end - layout.l4).ok()?;
        segment.store(layout.l4 + udp::LEN, len.to_be_bytes())
    }
}

/// Sets length, identification and checksum of the IP header at `l3`.
fn set_length(segment: &mut Frame, l3: u32, end: u32, number: u16) -> Option<()> {
    let [first]: [u8; 1] = segment.load(l3)?;
    let len = end.checked_sub(l3)?;
    if first >> 4 == 6 {
        let len = u16::try_from(len.checked_sub(ipv6::HEADER_LEN)?).ok()?;
        return segment.store(l3 + 4, len.to_be_bytes());
    }
    segment.store(l3 + 2, u16::try_from(len).ok()?.to_be_bytes())?;
    let id = u16::from_be_bytes(segment.load(l3 + 4)?);
    segment.store(l3 + 4, id.wrapping_add(number).to_be_bytes())?;
    segment.store(l3 + 10, [0; 2])?;
    let sum = Sum::ZERO.add16(segment.sum(l3, u32::from(first & 0x0f) * 4)?);
    segment.store(l3 + 10, sum.checksum().to_ne_bytes())
}

/// Fills in the checksums: the packet's, and then the one that covers it.
fn complete(frame: &mut Frame, layout: &Layout) -> Option<()> {
    fill(frame, layout)?;
    layout.carrier.fill_checksum(frame, layout.outer, layout.carrier_at, layout.end)
}

/// Fills the transport checksum in.
fn fill(frame: &mut Frame, layout: &Layout) -> Option<()> {
    let [first]: [u8; 1] = frame.load(layout.inner)?;
    let pseudo = if first >> 4 == 6 {
        let source = frame.load_words(layout.inner + ipv6::SOURCE)?;
        let destination = frame.load_words(layout.inner + ipv6::DESTINATION)?;
        Sum::ZERO.addr(source).addr(destination)
    } else {
        let source = u32::from_ne_bytes(frame.load(layout.inner + ipv4::SOURCE)?);
        let destination = u32::from_ne_bytes(frame.load(layout.inner + ipv4::DESTINATION)?);
        Sum::ZERO.add32(source).add32(destination)
    };
    let (next, place) = if layout.tcp {
        (protocol::TCP, layout.l4 + tcp::CHECKSUM)
    } else {
        (protocol::UDP, layout.l4 + udp::CHECKSUM)
    };
    let len = layout.end - layout.l4;
    frame.store(place, [0; 2])?;
    let sum = pseudo
        .add16(u16::from_ne_bytes([0, next]))
        .add32(len.to_be())
        .add16(frame.sum(layout.l4, len)?)
        .checksum();
    frame.store(place, if layout.tcp { sum } else { udp_wire(sum) }.to_ne_bytes())
}

#[cfg(test)]
mod tests;
