//! Resets: how TCP connections end whose destination was drained until its deadline.
//!
//! Nobody keeps sequence numbers here. But a segment has those with which a reset is taken: its
//! own is what the other side expects next, and the one it acknowledges is what its sender
//! expects next (RFC 9293, section 3.10.7.4; RFC 5961, section 3.2). So a client's first segment
//! after the deadline goes on as a reset, and every later one is answered by a reset.

use ipvs_wire::checksum::Sum;
use ipvs_wire::ipv4::Ipv4Fields;
use ipvs_wire::ipv6::Ipv6Fields;
use ipvs_wire::transport::{protocol, tcp};
use ipvs_wire::{Buffer, Headers, Outer, ipv4, ipv6};

use crate::addr::{Addr, Family};
use crate::conn::ConnFlags;
use crate::director::{self, Packet, Scratch};
use crate::hop::WayKind;
use crate::near;
use crate::tables::Tables;
use crate::time::Instant;
use crate::verdict::{Outcome, Reason};

/// Time to live of what the host makes itself.
const TTL: u8 = 64;

/// What a reset says: between which addresses and ports, and with which numbers.
#[derive(Default)]
struct Reset {
    source: [u32; 4],
    destination: [u32; 4],
    /// Of both, in the same order.
    ports: [u16; 2],
    sequence: u32,
    acknowledged: u32,
    flags: u8,
    ttl: u8,
}

/// Leads on a segment of a client whose connection is to be reset.
pub(crate) fn lead<B: Buffer, T: Tables>(
    buf: &mut B,
    tables: &T,
    scratch: &mut Scratch,
    ifindex: u32,
    now: Instant,
) -> Outcome {
    let unwritable = Outcome::drop(Reason::Unwritable);
    let Some(found) = near::find(tables, &scratch.tuple) else { return unwritable };
    let Some(conn) = tables.conn(found.id) else { return unwritable };
    if conn.has(ConnFlags::RESET) {
        return answer(&mut scratch.packet(buf, ifindex, now), tables);
    }
    if turn_into(buf, &scratch.headers).is_none() || scratch.headers.read(buf).is_err() {
        return unwritable;
    }
    let flags = conn.flags.get();
    // If another CPU was faster, this was one reset more.
    tables.replace(&conn.flags, flags, flags | ConnFlags::RESET);
    director::carry(&mut scratch.packet(buf, ifindex, now), tables, found)
}

/// Makes of the segment a reset that goes the same way.
fn turn_into<B: Buffer>(buf: &mut B, h: &Headers) -> Option<()> {
    let reset = Reset {
        source: h.source,
        destination: h.destination,
        ports: [h.source_port, h.destination_port],
        sequence: u32::from_be_bytes(buf.load(h.l4 + 4)?),
        acknowledged: u32::from_be_bytes(buf.load(h.l4 + 8)?),
        flags: tcp::RST | h.event & tcp::ACK,
        ttl: h.ttl,
    };
    write(buf, h, &reset)
}

/// Answers the segment by a reset.
fn answer<B: Buffer, T: Tables>(packet: &mut Packet<'_, B>, tables: &T) -> Outcome {
    let h = packet.headers;
    packet.room.query.family = Family::from_tag(h.version);
    packet.room.query.destination = Addr::from_words(h.source);
    packet.room.query.source = Addr::from_words(h.destination);
    tables.route(&packet.room.query, &mut packet.room.way);
    if !matches!(packet.room.way.kind, WayKind::Known | WayKind::Unresolved) {
        return Outcome::drop(Reason::NoRoute);
    }
    if answering(packet.buf, h).is_none() {
        return Outcome::drop(Reason::Unwritable);
    }
    tables.count(Reason::SentReset);
    super::leave(packet)
}

fn answering<B: Buffer>(buf: &mut B, h: &Headers) -> Option<()> {
    let sequence = u32::from_be_bytes(buf.load(h.l4 + 4)?);
    let acknowledged = u32::from_be_bytes(buf.load(h.l4 + 8)?);
    let reset = Reset {
        source: h.destination,
        destination: h.source,
        ports: [h.destination_port, h.source_port],
        ttl: TTL,
        ..Reset::default()
    };
    let reset = if h.event & tcp::ACK != 0 {
        Reset { sequence: acknowledged, flags: tcp::RST, ..reset }
    } else {
        // Its sender expects nothing yet, and takes a reset by what that acknowledges.
        let acknowledged = sequence.wrapping_add(length(buf, h)?);
        Reset { acknowledged, flags: tcp::RST | tcp::ACK, ..reset }
    };
    write(buf, h, &reset)
}

/// The sequence numbers that the segment takes.
fn length<B: Buffer>(buf: &B, h: &Headers) -> Option<u32> {
    let [offset] = buf.load(h.l4 + 12)?;
    let header = u32::from(offset >> 4) * 4;
    let payload = (h.l3 + h.total_len).checked_sub(h.l4 + header)?;
    let flags = [tcp::SYN, tcp::FIN].into_iter().filter(|flag| h.event & flag != 0);
    Some(payload + u32::try_from(flags.count()).unwrap_or(0))
}

/// Writes the reset in place of the packet, without options or extension headers.
fn write<B: Buffer>(buf: &mut B, h: &Headers, reset: &Reset) -> Option<()> {
    let ip = if h.version == 6 { ipv6::HEADER_LEN } else { ipv4::HEADER_LEN };
    let l4 = h.l3 + ip;
    buf.truncate(h.l3)?;
    buf.insert(h.l3, ip + tcp::HEADER_LEN, Outer::Own)?;
    let Reset { source, destination, .. } = *reset;
    if h.version == 6 {
        let fields = Ipv6Fields {
            class: h.tos,
            payload_len: u16::try_from(tcp::HEADER_LEN).unwrap_or(0),
            next: protocol::TCP,
            hop_limit: reset.ttl,
            source,
            destination,
        };
        fields.store(buf, h.l3)?;
    } else {
        let fields = Ipv4Fields {
            tos: h.tos,
            total_len: u16::try_from(ip + tcp::HEADER_LEN).unwrap_or(0),
            id: 0,
            flags: ipv4::DONT_FRAGMENT,
            ttl: reset.ttl,
            protocol: protocol::TCP,
            source: source[0],
            destination: destination[0],
        };
        buf.store(h.l3, fields.octets())?;
    }
    let [from, to] = reset.ports;
    buf.store(l4, from.to_be_bytes())?;
    buf.store(l4 + 2, to.to_be_bytes())?;
    buf.store(l4 + 4, reset.sequence.to_be_bytes())?;
    buf.store(l4 + 8, reset.acknowledged.to_be_bytes())?;
    // The header's length in words of four octets, the flags; no window, no urgent data.
    buf.store(l4 + 12, [5 << 4, reset.flags, 0, 0, 0, 0, 0, 0])?;
    let sum = Sum::ZERO
        .addr(source)
        .addr(destination)
        .add32(tcp::HEADER_LEN.to_be())
        .add16(u16::from_ne_bytes([0, protocol::TCP]))
        .add16(buf.sum(l4, tcp::HEADER_LEN)?);
    buf.store(l4 + tcp::CHECKSUM, sum.checksum().to_ne_bytes())
}
