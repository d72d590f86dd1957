//! Masquerading (NAT): requests get the destination's address and port,
//! replies the virtual ones.

use ipvs_wire::checksum::{Delta, Sum, udp_wire};
use ipvs_wire::transport::{protocol, sctp, udp};
use ipvs_wire::{Buffer, Headers, ipv4, ipv6};

use crate::addr::Addr;
use crate::conn::{Conn, ConnFlags, ConnId};
use crate::dest::Dest;
use crate::director::Packet;
use crate::helper;
use crate::tables::Tables;
use crate::verdict::Reason;

/// Which half of the addresses and ports is replaced.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Half {
    Source,
    Destination,
}

/// Rewrites a client's packet towards the destination, or says why it is to be
/// dropped. If its transport header is too short to be rewritten, nothing but
/// the TTL was changed.
#[inline(always)]
pub(crate) fn request<B: Buffer, T: Tables>(
    packet: &mut Packet<'_, B>,
    tables: &T,
    id: ConnId,
    conn: &Conn,
    dest: &Dest,
) -> Result<(), Reason> {
    if T::HELPS && conn.has(ConnFlags::HELPED) {
        helper::request(packet, tables, id, conn, dest)?;
    }
    let addr = conn.dest_addr(dest);
    translate(packet, Half::Destination, addr, conn.dest_port.get()).ok_or(Reason::Unwritable)
}

/// Rewrites a reply so that it comes from the virtual service.
#[inline(always)]
pub(crate) fn reply<B: Buffer>(packet: &mut Packet<'_, B>, conn: &Conn) -> Option<()> {
    let tuple = conn.tuple.get();
    set_source(packet, tuple.destination, tuple.destination_port)
}

/// Rewrites a packet so that it comes from this address and port.
#[inline(always)]
pub(crate) fn set_source<B: Buffer>(
    packet: &mut Packet<'_, B>,
    addr: Addr,
    port: u16,
) -> Option<()> {
    translate(packet, Half::Source, addr, port)
}

#[inline(always)]
fn translate<B: Buffer>(
    packet: &mut Packet<'_, B>,
    half: Half,
    addr: Addr,
    port: u16,
) -> Option<()> {
    let h = packet.headers;
    if !h.has_transport && !h.is_ipsec() {
        return None;
    }
    let (old_addr, old_port, port_at) = match half {
        Half::Source => (h.source, h.source_port, h.l4),
        Half::Destination => (h.destination, h.destination_port, h.l4 + 2),
    };
    let new_addr = addr.words();
    set_address(packet.buf, h, half, old_addr, new_addr)?;
    if !h.has_transport {
        return Some(());
    }
    packet.buf.store(port_at, port.to_be_bytes())?;
    match (h.protocol, h.checksum_at()) {
        // A checksum that need not change is left alone, even a wrong one.
        (protocol::SCTP, _) if port != old_port => set_crc32c(packet.buf, h)?,
        (protocol::UDP, Some(at)) if packet.buf.load(at)? == [0, 0] => {
            fill_udp_checksum(packet.buf, h, half, &new_addr)?;
        }
        (_, Some(at)) => {
            let pseudo = Delta::NONE.addr(old_addr, new_addr);
            let ports = Delta::NONE.word16(old_port.to_be(), port.to_be());
            packet.buf.patch_transport(at, pseudo, ports, h.protocol == protocol::UDP)?;
        }
        _ => {}
    }
    Some(())
}

#[inline(always)]
fn set_address<B: Buffer>(
    buf: &mut B,
    h: &Headers,
    half: Half,
    old: [u32; 4],
    new: [u32; 4],
) -> Option<()> {
    match (h.version, half) {
        (6, Half::Source) => ipv6::set_address(buf, h.l3, ipv6::SOURCE, new),
        (6, Half::Destination) => ipv6::set_address(buf, h.l3, ipv6::DESTINATION, new),
        (_, Half::Source) => ipv4::set_address(buf, h.l3, ipv4::SOURCE, old[0], new[0]),
        (_, Half::Destination) => ipv4::set_address(buf, h.l3, ipv4::DESTINATION, old[0], new[0]),
    }
}

/// A UDP datagram that came without a checksum leaves with one, in both
/// directions (recorded on 6.1).
#[inline(never)]
fn fill_udp_checksum<B: Buffer>(
    buf: &mut B,
    h: &Headers,
    half: Half,
    new: &[u32; 4],
) -> Option<()> {
    let kept = match half {
        Half::Source => h.destination,
        Half::Destination => h.source,
    };
    let len = h.transport_len();
    let sum = Sum::ZERO
        .addr(kept)
        .addr(*new)
        .add16(u16::from_ne_bytes([0, protocol::UDP]))
        .add32(len.to_be())
        .add16(buf.sum(h.l4, len)?);
    buf.store(h.l4 + udp::CHECKSUM, udp_wire(sum.checksum()).to_ne_bytes())
}

#[inline(never)]
fn set_crc32c<B: Buffer>(buf: &mut B, h: &Headers) -> Option<()> {
    let at = h.l4 + sctp::CHECKSUM;
    let crc = buf.crc32c(h.l4, h.transport_len(), at)?;
    buf.store(at, crc.to_le_bytes())
}
