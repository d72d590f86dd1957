//! The outer header of a tunnelled frame, and how to take it off; no socket here.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Octets of the virtio-net header that packet sockets use.
const VNET_LEN: usize = size_of::<VnetHeader>();
const _: () = assert!(VNET_LEN == 10);
const ETHERNET_LEN: usize = 14;
const ETHERTYPE_AT: usize = 12;
const IPV4_TYPE: u16 = 0x0800;
const IPV6_TYPE: u16 = 0x86dd;
const IPV6_LEN: usize = 40;

/// Internet protocol numbers.
pub(crate) const IPIP: u8 = 4;
pub(crate) const IPV6: u8 = 41;
pub(crate) const GRE: u8 = 47;
const UDP: u8 = 17;
/// The port at which GUE is unpacked: the one that IANA lists.
pub(crate) const GUE_PORT: u16 = 6080;
const DESTINATION_OPTIONS: u8 = 60;
const FRAGMENT_HEADER: u8 = 44;

/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`: the checksum is to be filled in from `csum_start` on.
const NEEDS_CSUM: u8 = 1;

/// `struct virtio_net_hdr`: what is unusual about a frame that never was on a wire.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
struct VnetHeader {
    flags: u8,
    gso_type: u8,
    /// Length of all headers, or of what lies in the first piece of the packet.
    hdr_len: u16,
    gso_size: u16,
    csum_start: u16,
    csum_offset: u16,
}

impl VnetHeader {
    /// Returns the header of the same frame when `removed` octets before the transport header are
    /// gone and `len` are left, or nothing if they were not all before it.
    fn without(self, removed: usize, len: usize) -> Option<Self> {
        let removed = u16::try_from(removed).ok()?;
        let needs_csum = self.flags & NEEDS_CSUM != 0;
        let csum_start = if needs_csum { self.csum_start.checked_sub(removed)? } else { 0 };
        if needs_csum && usize::from(csum_start) <= ETHERNET_LEN {
            return None;
        }
        // The kernel refuses more headers than there are octets, and raises what is too little.
        let len = u16::try_from(len).unwrap_or(u16::MAX);
        Some(Self {
            // Whether a checksum was found valid is not for the sender to say.
            flags: self.flags & NEEDS_CSUM,
            hdr_len: self.hdr_len.saturating_sub(removed).min(len),
            csum_start,
            csum_offset: if needs_csum { self.csum_offset } else { 0 },
            ..self
        })
    }
}

/// Why a frame was not decapsulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It holds no tunnelled packet.
    NotTunnelled,
    /// The outer packet is a fragment.
    Fragment,
    /// Lengths, versions or checksums contradict each other.
    Malformed,
}

/// Takes the outer IP header off a frame that has a virtio-net header before it, and writes
/// virtio-net header, Ethernet header with `addresses` (destination, source) and inner packet
/// into `out`.
pub(crate) fn strip(frame: &[u8], addresses: [u8; 12], out: &mut Vec<u8>) -> Result<(), Refusal> {
    let (vnet, frame) =
        VnetHeader::read_from_prefix(frame).map_err(|_too_short| Refusal::Malformed)?;
    let ethertype = be16(frame, ETHERTYPE_AT).ok_or(Refusal::Malformed)?;
    let packet = frame.get(ETHERNET_LEN..).ok_or(Refusal::Malformed)?;
    let outer = match ethertype {
        IPV4_TYPE => outer_v4(packet)?,
        IPV6_TYPE => outer_v6(packet)?,
        _ => return Err(Refusal::NotTunnelled),
    };
    // What lies behind the outer packet is Ethernet padding.
    let inside = packet.get(outer.header_len..outer.packet_len).ok_or(Refusal::Malformed)?;
    let carried = match outer.protocol {
        UDP => gue(packet, &outer, inside, vnet.flags & NEEDS_CSUM == 0)?,
        GRE => gre(inside, vnet.flags & NEEDS_CSUM == 0)?,
        protocol => Carried { protocol, header_len: 0 },
    };
    let inside = inside.get(carried.header_len..).ok_or(Refusal::Malformed)?;
    let (inner_type, inner_len) = match carried.protocol {
        IPIP => (IPV4_TYPE, inner_v4_len(inside)),
        IPV6 => (IPV6_TYPE, inner_v6_len(inside)),
        _ => return Err(Refusal::NotTunnelled),
    };
    let inner = inner_len.and_then(|len| inside.get(..len)).ok_or(Refusal::Malformed)?;
    let header = vnet
        .without(outer.header_len + carried.header_len, ETHERNET_LEN + inner.len())
        .ok_or(Refusal::Malformed)?;
    out.clear();
    out.extend_from_slice(header.as_bytes());
    out.extend_from_slice(&addresses);
    out.extend_from_slice(&inner_type.to_be_bytes());
    out.extend_from_slice(inner);
    Ok(())
}

struct Outer {
    protocol: u8,
    header_len: usize,
    packet_len: usize,
}

/// What stands between the outer IP header and the packet inside.
struct Carried {
    protocol: u8,
    header_len: usize,
}

/// UDP to [`GUE_PORT`] and a GUE header without options. Its checksum is looked at if the packet
/// is complete.
fn gue(packet: &[u8], outer: &Outer, inside: &[u8], complete: bool) -> Result<Carried, Refusal> {
    if be16(inside, 2) != Some(GUE_PORT) {
        return Err(Refusal::NotTunnelled);
    }
    let &[_, _, _, _, _, _, check_high, check_low, version, protocol, flags_high, flags_low] =
        inside.first_chunk::<12>().ok_or(Refusal::Malformed)?;
    if complete && [check_high, check_low] != [0, 0] {
        let addresses = if packet.first().is_some_and(|first| first >> 4 == 6) {
            packet.get(8..IPV6_LEN)
        } else {
            packet.get(12..20)
        };
        let len = u16::try_from(inside.len()).map_err(|_too_long| Refusal::Malformed)?;
        let pseudo = [&[0, outer.protocol], &len.to_be_bytes()[..]].concat();
        let covered = [addresses.ok_or(Refusal::Malformed)?, &pseudo, inside].concat();
        if ones_complement_sum(&covered) != 0xffff {
            return Err(Refusal::Malformed);
        }
    }
    if [version, flags_high, flags_low] != [0, 0, 0] {
        return Err(Refusal::Malformed);
    }
    Ok(Carried { protocol, header_len: 12 })
}

/// A GRE header of version 0 with no field but a checksum, which is looked at if the packet is
/// complete.
fn gre(inside: &[u8], complete: bool) -> Result<Carried, Refusal> {
    let (flags, ethertype) = be16(inside, 0).zip(be16(inside, 2)).ok_or(Refusal::Malformed)?;
    let protocol = match ethertype {
        IPV4_TYPE => IPIP,
        IPV6_TYPE => IPV6,
        _ => return Err(Refusal::NotTunnelled),
    };
    match flags {
        0 => Ok(Carried { protocol, header_len: 4 }),
        0x8000 if !complete || ones_complement_sum(inside) == 0xffff => {
            Ok(Carried { protocol, header_len: 8 })
        }
        _ => Err(Refusal::Malformed),
    }
}

fn outer_v4(packet: &[u8]) -> Result<Outer, Refusal> {
    let header_len = v4_header_len(packet).ok_or(Refusal::Malformed)?;
    let header = packet.get(..header_len).ok_or(Refusal::Malformed)?;
    if ones_complement_sum(header) != 0xffff {
        return Err(Refusal::Malformed);
    }
    let fragment = be16(header, 6).ok_or(Refusal::Malformed)?;
    if fragment & 0x3fff != 0 {
        return Err(Refusal::Fragment);
    }
    let packet_len = be16(header, 2).ok_or(Refusal::Malformed)?.into();
    let protocol = *header.get(9).ok_or(Refusal::Malformed)?;
    Ok(Outer { protocol, header_len, packet_len })
}

fn outer_v6(packet: &[u8]) -> Result<Outer, Refusal> {
    let packet_len = inner_v6_len(packet).ok_or(Refusal::Malformed)?;
    let mut protocol = *packet.get(6).ok_or(Refusal::Malformed)?;
    let mut header_len = IPV6_LEN;
    // RFC 2473 section 5.1: the encapsulation limit stands in destination options.
    while protocol == DESTINATION_OPTIONS {
        let &[next, units] = packet
            .get(header_len..)
            .and_then(<[u8]>::first_chunk::<2>)
            .ok_or(Refusal::Malformed)?;
        protocol = next;
        header_len += 8 * (usize::from(units) + 1);
    }
    if protocol == FRAGMENT_HEADER {
        return Err(Refusal::Fragment);
    }
    Ok(Outer { protocol, header_len, packet_len })
}

fn v4_header_len(packet: &[u8]) -> Option<usize> {
    let first = *packet.first()?;
    let len = usize::from(first & 0xf) * 4;
    (first >> 4 == 4 && len >= 20).then_some(len)
}

fn inner_v4_len(packet: &[u8]) -> Option<usize> {
    let header_len = v4_header_len(packet)?;
    let len = usize::from(be16(packet, 2)?);
    (len >= header_len).then_some(len)
}

fn inner_v6_len(packet: &[u8]) -> Option<usize> {
    let version = packet.first()? >> 4;
    (version == 6).then_some(IPV6_LEN + usize::from(be16(packet, 4)?))
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk::<2>().map(|&pair| u16::from_be_bytes(pair))
}

fn ones_complement_sum(bytes: &[u8]) -> u16 {
    let (pairs, last) = bytes.as_chunks::<2>();
    let odd = last.first().map_or(0, |&last| u32::from(last) << 8);
    let sum: u32 = pairs.iter().map(|&pair| u32::from(u16::from_be_bytes(pair))).sum::<u32>() + odd;
    let once = (sum & 0xffff) + (sum >> 16);
    u16::try_from((once & 0xffff) + (once >> 16)).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESSES: [u8; 12] = [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];

    /// A frame as a packet socket gives it.
    fn frame(vnet: VnetHeader, ethertype: u16, packet: &[u8]) -> Vec<u8> {
        [vnet.as_bytes(), &[0xee; 12], &ethertype.to_be_bytes(), packet].concat()
    }

    fn v4(protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet =
            vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, protocol, 0, 0, 10, 1, 0, 1, 10, 1, 0, 11];
        let len = u16::try_from(packet.len() + payload.len()).unwrap();
        packet[2..4].copy_from_slice(&len.to_be_bytes());
        let sum = !ones_complement_sum(&packet);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        packet.extend_from_slice(payload);
        packet
    }

    fn v6(protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0, 0, 0, protocol, 64];
        let len = u16::try_from(payload.len()).unwrap();
        packet[4..6].copy_from_slice(&len.to_be_bytes());
        packet.resize(40, 0x20);
        packet.extend_from_slice(payload);
        packet
    }

    #[track_caller]
    fn check(frame: &[u8], expected: Result<(VnetHeader, u16, &[u8]), Refusal>) {
        let mut out = Vec::new();
        let outcome = strip(frame, ADDRESSES, &mut out);
        assert_eq!(outcome, expected.map(|_| ()));
        if let Ok((vnet, ethertype, packet)) = expected {
            let ethernet = [&ADDRESSES[..], &ethertype.to_be_bytes()].concat();
            assert_eq!(out, [vnet.as_bytes(), &ethernet, packet].concat());
        }
    }

    #[test]
    fn each_mix_of_families_comes_out_as_the_inner_packet() {
        let plain = VnetHeader::default();
        let (inner4, inner6) = (v4(17, b"datagram"), v6(17, b"datagram"));
        for (ethertype, outer, inner_type, inner) in [
            (IPV4_TYPE, v4(IPIP, &inner4), IPV4_TYPE, &inner4),
            (IPV4_TYPE, v4(IPV6, &inner6), IPV6_TYPE, &inner6),
            (IPV6_TYPE, v6(IPIP, &inner4), IPV4_TYPE, &inner4),
            (IPV6_TYPE, v6(IPV6, &inner6), IPV6_TYPE, &inner6),
        ] {
            check(&frame(plain, ethertype, &outer), Ok((plain, inner_type, inner)));
        }
    }

    #[test]
    fn an_unfilled_checksum_and_segments_move_with_the_transport_header() {
        let inner = v4(6, &[0; 4000]);
        let received = VnetHeader {
            flags: NEEDS_CSUM,
            gso_type: 1,
            hdr_len: 14 + 20 + 20 + 20,
            gso_size: 1448,
            csum_start: 14 + 20 + 20,
            csum_offset: 16,
        };
        let sent = VnetHeader { hdr_len: 54, csum_start: 34, ..received };
        check(&frame(received, IPV4_TYPE, &v4(IPIP, &inner)), Ok((sent, IPV4_TYPE, &inner)));
        let received = VnetHeader { hdr_len: 94, csum_start: 74, ..received };
        check(&frame(received, IPV6_TYPE, &v6(IPIP, &inner)), Ok((sent, IPV4_TYPE, &inner)));
    }

    #[test]
    fn header_length_never_passes_the_frame() {
        // A packet in one piece: the kernel gives its whole length, padding included.
        let inner = v4(17, b"x");
        let mut packet = v4(IPIP, &inner);
        packet.resize(46, 0);
        let received = VnetHeader { hdr_len: 60, ..VnetHeader::default() };
        let sent = VnetHeader { hdr_len: 35, ..VnetHeader::default() };
        check(&frame(received, IPV4_TYPE, &packet), Ok((sent, IPV4_TYPE, &inner)));
    }

    #[test]
    fn an_encapsulation_limit_is_passed_over() {
        let plain = VnetHeader::default();
        let inner = v6(17, b"datagram");
        let options = [&[IPV6, 0, 4, 1, 4, 1, 1, 0][..], &inner].concat();
        let outer = v6(DESTINATION_OPTIONS, &options);
        check(&frame(plain, IPV6_TYPE, &outer), Ok((plain, IPV6_TYPE, &inner)));
    }

    #[test]
    fn what_is_no_whole_tunnelled_packet_is_refused() {
        let plain = VnetHeader::default();
        let refuse = |ethertype, packet: &[u8], refusal| {
            check(&frame(plain, ethertype, packet), Err(refusal));
        };
        let good = v4(IPIP, &v4(17, b"datagram"));
        refuse(IPV4_TYPE, &v4(17, b"datagram"), Refusal::NotTunnelled);
        refuse(0x0806, &good, Refusal::NotTunnelled);
        refuse(IPV6_TYPE, &good, Refusal::Malformed);
        refuse(IPV4_TYPE, &v4(IPV6, &v4(17, b"datagram")), Refusal::Malformed);
        refuse(IPV4_TYPE, &v4(IPIP, &[]), Refusal::Malformed);
        for len in 0..good.len() {
            refuse(IPV4_TYPE, &good[..len], Refusal::Malformed);
        }
        let mut fragment = good.clone();
        fragment[6] = 0x20;
        fragment[10..12].fill(0);
        let sum = !ones_complement_sum(&fragment[..20]);
        fragment[10..12].copy_from_slice(&sum.to_be_bytes());
        refuse(IPV4_TYPE, &fragment, Refusal::Fragment);
        let mut wrong_sum = good;
        wrong_sum[10] ^= 1;
        refuse(IPV4_TYPE, &wrong_sum, Refusal::Malformed);
    }

    #[test]
    fn a_checksum_that_would_lie_in_the_outer_header_is_refused() {
        let vnet = VnetHeader { flags: NEEDS_CSUM, csum_start: 34, ..VnetHeader::default() };
        let packet = v4(IPIP, &v4(17, b"datagram"));
        check(&frame(vnet, IPV4_TYPE, &packet), Err(Refusal::Malformed));
    }
}
