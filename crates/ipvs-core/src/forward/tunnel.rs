//! Tunnelling: the client's packet, whole, inside one to the destination
//! (IP in IP, GUE or GRE; either family in either).

use ipvs_wire::ipv4::Ipv4Fields;
use ipvs_wire::ipv6::Ipv6Fields;
use ipvs_wire::{Buffer, Outer, ethernet, ipv4, ipv6};

use crate::addr::Family;
use crate::dest::Dest;
use crate::director::Packet;
use crate::near;
use crate::tables::Tables;

/// ECN field: congestion experienced.
const ECN_CE: u8 = 0b11;
/// ECN field: capable, codepoint 0.
const ECN_ECT0: u8 = 0b10;
/// The least that a tunnel must take, by the family of its own packets (recorded).
const LEAST_V4: u32 = 68;
const LEAST_V6: u32 = 1280;
/// The ports that tunnels of GUE send from: the first, and how many, as Linux has them
/// for what chooses its port itself.
const FIRST_PORT: u32 = 32768;
const PORTS: u32 = 28232;

/// Octets that the tunnel adds to a packet.
#[inline(always)]
pub(crate) const fn overhead(dest: &Dest) -> u32 {
    let header_len = match dest.key.family() {
        Family::V4 => ipv4::HEADER_LEN,
        Family::V6 => ipv6::HEADER_LEN,
    };
    header_len + dest.spec.carrier().header_len()
}

/// Whether a tunnel that takes packets of `mtu` octets takes too little to be used.
#[inline(always)]
pub(crate) const fn is_too_narrow(dest: &Dest, mtu: u32) -> bool {
    mtu < match dest.key.family() {
        Family::V4 => LEAST_V4,
        Family::V6 => LEAST_V6,
    }
}

/// Whether the tunnel's checksum covers what is still to be filled in or cut, so
/// that only a plane which does that itself can tunnel the packet.
#[inline(always)]
pub(crate) fn must_be_completed<B: Buffer>(packet: &Packet<'_, B>, dest: &Dest) -> bool {
    dest.spec.carrier().is_summed() && (packet.buf.segment_len() != 0 || is_unfilled(packet))
}

/// With a share of the stack of its own.
#[inline(never)]
fn is_unfilled<B: Buffer>(packet: &Packet<'_, B>) -> bool {
    packet.headers.is_unfilled(packet.buf) == Some(true)
}

/// Puts the outer headers in front. The TTL was lowered before, and the outer
/// one is the lowered one.
#[inline(always)]
pub(crate) fn encapsulate<B: Buffer, T: Tables>(
    packet: &mut Packet<'_, B>,
    tables: &T,
    dest: &Dest,
) -> Option<()> {
    let h = packet.headers;
    let carrier = dest.spec.carrier();
    let inner_v6 = h.version == 6;
    let protocol = carrier.protocol(inner_v6);
    let ttl = h.ttl.wrapping_sub(1);
    // The full-functionality rule of RFC 3168, section 9.1.1.
    let tos = if h.tos & ECN_CE == ECN_CE { h.tos & !ECN_CE | ECN_ECT0 } else { h.tos };
    // A train of segments may be longer than the fields can say; it is cut later.
    let len = h.total_len + carrier.header_len();
    let header_len = match dest.key.family() {
        Family::V4 => {
            let count = ipv4::HEADER_LEN + carrier.header_len();
            packet.buf.insert(h.l3, count, Outer::TunnelV4(carrier))?;
            let copies_df = !inner_v6 && tables.settings().pmtu_disc != 0 && h.dont_fragment;
            let fields = Ipv4Fields {
                tos,
                total_len: u16::try_from(len + ipv4::HEADER_LEN).unwrap_or(0),
                // With DF set the identification means nothing (RFC 6864); without, it must vary.
                id: if copies_df { 0 } else { packet.identification() },
                flags: if copies_df { ipv4::DONT_FRAGMENT } else { 0 },
                ttl,
                protocol,
                source: dest.tunnel_source.words()[0],
                destination: dest.key.addr.words()[0],
            };
            packet.buf.store(h.l3, fields.octets())?;
            ethernet::set_ethertype(packet.buf, h.l3, ethernet::IPV4)?;
            ipv4::HEADER_LEN
        }
        Family::V6 => {
            let count = ipv6::HEADER_LEN + carrier.header_len();
            packet.buf.insert(h.l3, count, Outer::TunnelV6(carrier))?;
            let fields = Ipv6Fields {
                class: tos,
                payload_len: u16::try_from(len).unwrap_or(0),
                next: protocol,
                hop_limit: ttl,
                source: dest.tunnel_source.words(),
                destination: dest.key.addr.words(),
            };
            fields.store(packet.buf, h.l3)?;
            ethernet::set_ethertype(packet.buf, h.l3, ethernet::IPV6)?;
            ipv6::HEADER_LEN
        }
    };
    let at = h.l3 + header_len;
    let ports = [source_port(packet), dest.spec.tunnel_port];
    carrier.store(packet.buf, at, inner_v6, h.total_len, ports)?;
    if packet.buf.checksum_pending() || packet.buf.segment_len() != 0 {
        // Whoever completes what is inside fills this checksum in after it.
        return Some(());
    }
    (!carrier.is_summed() || fill_checksum(packet, dest, at)).then_some(())
}

/// With a share of the stack of its own.
#[inline(never)]
fn fill_checksum<B: Buffer>(packet: &mut Packet<'_, B>, dest: &Dest, at: u32) -> bool {
    let carrier = dest.spec.carrier();
    let end = at + carrier.header_len() + packet.headers.total_len;
    carrier.fill_checksum(packet.buf, packet.headers.l3, at, end).is_some()
}

/// The port that a tunnel of GUE sends the packet from: the flow's, so that routers
/// on the way keep a flow on one of several paths.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the sum is a port")]
fn source_port<B>(packet: &Packet<'_, B>) -> u16 {
    let hash = near::flow_hash(packet.tuple);
    (FIRST_PORT + ((hash as u64 * PORTS as u64) >> 32) as u32) as u16
}
