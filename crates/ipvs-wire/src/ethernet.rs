//! The Ethernet header, with at most one VLAN tag (IEEE 802.3, 802.1Q).

use crate::buffer::Buffer;

/// A MAC address.
pub type Mac = [u8; 6];

/// Octets of an untagged header.
pub const HEADER_LEN: u32 = 14;
/// Octets of a VLAN tag.
pub const TAG_LEN: u32 = 4;
/// `EtherType` of IPv4.
pub const IPV4: u16 = 0x0800;
/// `EtherType` of IPv6.
pub const IPV6: u16 = 0x86dd;
/// `EtherType` of ARP.
pub const ARP: u16 = 0x0806;
/// `EtherType` of a VLAN tag.
pub const VLAN: u16 = 0x8100;

/// What the header says of the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EthernetHeader {
    /// `EtherType` behind a tag, if there is one.
    pub ethertype: u16,
    /// Where the payload begins.
    pub payload: u32,
}

/// Reads the header at the start of `buf`.
#[inline(always)]
pub fn parse<B: Buffer>(buf: &B) -> Option<EthernetHeader> {
    let ethertype = u16::from_be_bytes(buf.load(12)?);
    if ethertype != VLAN {
        return Some(EthernetHeader { ethertype, payload: HEADER_LEN });
    }
    let ethertype = u16::from_be_bytes(buf.load(16)?);
    Some(EthernetHeader { ethertype, payload: HEADER_LEN + TAG_LEN })
}

/// Destination MAC address of the frame.
#[inline(always)]
pub fn destination<B: Buffer>(buf: &B) -> Option<Mac> {
    buf.load(0)
}

/// Source MAC address of the frame.
#[inline(always)]
pub fn source<B: Buffer>(buf: &B) -> Option<Mac> {
    buf.load(6)
}

/// Sets both addresses.
#[inline(always)]
pub fn set_addresses<B: Buffer>(buf: &mut B, destination: Mac, source: Mac) -> Option<()> {
    let (to, from) = (destination, source);
    let both = [
        to[0], to[1], to[2], to[3], to[4], to[5], from[0], from[1], from[2], from[3], from[4],
        from[5],
    ];
    buf.store(0, both)
}

/// Sets the `EtherType` in front of the payload at `payload`.
#[inline(always)]
pub fn set_ethertype<B: Buffer>(buf: &mut B, payload: u32, ethertype: u16) -> Option<()> {
    buf.store(payload.wrapping_sub(2), ethertype.to_be_bytes())
}
