//! Tunnelling: the client's packet, whole, inside one to the destination
//! (IP in IP: RFC 2003, RFC 2473; either family in either).

use ipvs_wire::ipv4::Ipv4Fields;
use ipvs_wire::ipv6::Ipv6Fields;
use ipvs_wire::transport::protocol;
use ipvs_wire::{Buffer, Outer, ethernet, ipv4, ipv6};

use crate::addr::Family;
use crate::dest::Dest;
use crate::director::Packet;
use crate::tables::Tables;

/// ECN field: congestion experienced.
const ECN_CE: u8 = 0b11;
/// ECN field: capable, codepoint 0.
const ECN_ECT0: u8 = 0b10;

/// Tunnel type ipip in [`crate::dest::DestSpec::tunnel_type`].
const IPIP: u8 = 0;

/// Octets that the tunnel adds to a packet.
#[inline(always)]
pub(crate) const fn overhead(dest: &Dest) -> u32 {
    match dest.key.family() {
        Family::V4 => ipv4::HEADER_LEN,
        Family::V6 => ipv6::HEADER_LEN,
    }
}

/// Puts the outer header in front. The TTL was lowered before, and the outer
/// one is the lowered one.
#[inline(always)]
pub(crate) fn encapsulate<B: Buffer, T: Tables>(
    packet: &mut Packet<'_, B>,
    tables: &T,
    dest: &Dest,
) -> Option<()> {
    if dest.spec.tunnel_type != IPIP {
        return None;
    }
    let h = packet.headers;
    let (protocol, inner_v4) =
        if h.version == 6 { (protocol::IPV6, false) } else { (protocol::IPIP, true) };
    let ttl = h.ttl.wrapping_sub(1);
    // The full-functionality rule of RFC 3168, section 9.1.1.
    let tos = if h.tos & ECN_CE == ECN_CE { h.tos & !ECN_CE | ECN_ECT0 } else { h.tos };
    let inner_len = h.total_len;
    match dest.key.family() {
        Family::V4 => {
            packet.buf.insert(h.l3, ipv4::HEADER_LEN, Outer::TunnelV4)?;
            let copies_df = inner_v4 && tables.settings().pmtu_disc != 0 && h.dont_fragment;
            let fields = Ipv4Fields {
                tos,
                total_len: u16::try_from(inner_len + ipv4::HEADER_LEN).unwrap_or(0),
                // With DF set the identification means nothing (RFC 6864); without, it must vary.
                id: if copies_df { 0 } else { packet.identification() },
                flags: if copies_df { ipv4::DONT_FRAGMENT } else { 0 },
                ttl,
                protocol,
                source: dest.tunnel_source.words()[0],
                destination: dest.key.addr.words()[0],
            };
            packet.buf.store(h.l3, fields.octets())?;
            ethernet::set_ethertype(packet.buf, h.l3, ethernet::IPV4)
        }
        Family::V6 => {
            packet.buf.insert(h.l3, ipv6::HEADER_LEN, Outer::TunnelV6)?;
            let fields = Ipv6Fields {
                class: tos,
                payload_len: u16::try_from(inner_len).unwrap_or(0),
                next: protocol,
                hop_limit: ttl,
                source: dest.tunnel_source.words(),
                destination: dest.key.addr.words(),
            };
            fields.store(packet.buf, h.l3)?;
            ethernet::set_ethertype(packet.buf, h.l3, ethernet::IPV6)
        }
    }
}
