//! The addresses, ports and checksums in an ICMP error, translated between
//! what the client and what the destination knows (RFC 5508, section 4).

use ipvs_wire::checksum::Sum;
use ipvs_wire::transport::protocol;
use ipvs_wire::{Buffer, Headers, icmp, ipv4, ipv6};

use crate::addr::Addr;
use crate::director::Packet;

/// Which half of addresses and ports: of the error itself, and the other one
/// of the packet quoted in it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Half {
    Source,
    Destination,
}

/// Whether the checksum is right.
#[inline(always)]
pub(super) fn is_sound<B: Buffer>(packet: &Packet<'_, B>) -> bool {
    let h = packet.headers;
    sum(packet.buf, h, h.source, h.destination).is_some_and(|sum| sum.checksum() == 0)
}

/// Makes an error about a reply one that the destination understands: to its
/// address, quoting what it sent.
#[inline(always)]
pub(super) fn for_dest<B: Buffer>(
    packet: &mut Packet<'_, B>,
    quoted: &Headers,
    server: (Addr, u16),
) -> Option<()> {
    translate(packet, quoted, Half::Destination, server)
}

/// Makes an error about a translated request one that the client understands:
/// from the virtual address, quoting what it sent.
#[inline(always)]
pub(super) fn for_client<B: Buffer>(
    packet: &mut Packet<'_, B>,
    quoted: &Headers,
    service: (Addr, u16),
) -> Option<()> {
    translate(packet, quoted, Half::Source, service)
}

/// The checksums inside the quoted packet are left as they are, but that of
/// its IPv4 header (recorded on 6.1).
#[inline(always)]
fn translate<B: Buffer>(
    packet: &mut Packet<'_, B>,
    quoted: &Headers,
    half: Half,
    (addr, port): (Addr, u16),
) -> Option<()> {
    let h = packet.headers;
    let new = addr.words();
    let (source, destination) = match half {
        Half::Source => (new, h.destination),
        Half::Destination => (h.source, new),
    };
    if h.version == 6 {
        let (outer, inner) = match half {
            Half::Source => (ipv6::SOURCE, ipv6::DESTINATION),
            Half::Destination => (ipv6::DESTINATION, ipv6::SOURCE),
        };
        ipv6::set_address(packet.buf, h.l3, outer, new)?;
        ipv6::set_address(packet.buf, quoted.l3, inner, new)?;
    } else {
        let (outer, old, inner) = match half {
            Half::Source => (ipv4::SOURCE, h.source, ipv4::DESTINATION),
            Half::Destination => (ipv4::DESTINATION, h.destination, ipv4::SOURCE),
        };
        ipv4::set_address(packet.buf, h.l3, outer, old[0], new[0])?;
        packet.buf.store_words(quoted.l3 + inner, [new[0]])?;
        ipv4::set_checksum(packet.buf, quoted.l3, quoted.l4 - quoted.l3)?;
    }
    if quoted.has_ports {
        let at = match half {
            Half::Source => quoted.l4 + 2,
            Half::Destination => quoted.l4,
        };
        packet.buf.store(at, port.to_be_bytes())?;
    }
    packet.buf.store(h.l4 + icmp::CHECKSUM, [0, 0])?;
    let checksum = sum(packet.buf, h, source, destination)?.checksum();
    packet.buf.store(h.l4 + icmp::CHECKSUM, checksum.to_ne_bytes())
}

/// The sum that the checksum is made of; ICMPv6's covers addresses, too.
#[inline(always)]
fn sum<B: Buffer>(buf: &B, h: &Headers, source: [u32; 4], destination: [u32; 4]) -> Option<Sum> {
    let len = h.transport_len();
    let covered = Sum::ZERO.add16(buf.sum(h.l4, len)?);
    Some(if h.version == 6 {
        covered
            .addr(source)
            .addr(destination)
            .add32(len.to_be())
            .add16(u16::from_ne_bytes([0, protocol::ICMPV6]))
    } else {
        covered
    })
}
