//! The IPv6 header (RFC 8200).

use crate::buffer::Buffer;

/// Octets of the fixed header.
pub const HEADER_LEN: u32 = 40;
/// Place of the hop limit.
const HOP_LIMIT: u32 = 7;
/// Place of the payload's length.
const PAYLOAD_LEN: u32 = 4;
/// Place of the source address.
pub const SOURCE: u32 = 8;
/// Place of the destination address.
pub const DESTINATION: u32 = 24;

/// Extension headers that stand between the fixed header and the transport.
pub mod extension {
    /// Hop-by-hop options.
    pub const HOP_BY_HOP: u8 = 0;
    /// Routing.
    pub const ROUTING: u8 = 43;
    /// Fragment.
    pub const FRAGMENT: u8 = 44;
    /// Destination options.
    pub const DESTINATION_OPTIONS: u8 = 60;
}

/// The fields of a fixed header to be written; the flow label is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv6Fields {
    /// Traffic class, with the ECN bits.
    pub class: u8,
    /// Octets behind the fixed header.
    pub payload_len: u16,
    /// Next header.
    pub next: u8,
    /// Hop limit.
    pub hop_limit: u8,
    /// Source, as it lies in memory.
    pub source: [u32; 4],
    /// Destination, as it lies in memory.
    pub destination: [u32; 4],
}

impl Ipv6Fields {
    /// Writes the header at `l3`.
    #[inline(always)]
    pub fn store<B: Buffer>(&self, buf: &mut B, l3: u32) -> Option<()> {
        let len = self.payload_len.to_be_bytes();
        let first = [
            0x60 | (self.class >> 4),
            self.class << 4,
            0,
            0,
            len[0],
            len[1],
            self.next,
            self.hop_limit,
        ];
        buf.store(l3, first)?;
        set_address(buf, l3, SOURCE, self.source)?;
        set_address(buf, l3, DESTINATION, self.destination)
    }
}

/// Replaces the address at `place` ([`SOURCE`] or [`DESTINATION`]).
#[inline(always)]
pub fn set_address<B: Buffer>(buf: &mut B, l3: u32, place: u32, new: [u32; 4]) -> Option<()> {
    buf.store_words(l3 + place, new)
}

/// Sets the length of what follows the header at `l3`.
#[inline(always)]
pub fn set_payload_len<B: Buffer>(buf: &mut B, l3: u32, len: u16) -> Option<()> {
    buf.store(l3 + PAYLOAD_LEN, len.to_be_bytes())
}

/// Lowers the hop limit of the header at `l3` by one.
#[inline(always)]
pub fn decrement_hop_limit<B: Buffer>(buf: &mut B, l3: u32) -> Option<()> {
    let [limit] = buf.load(l3 + HOP_LIMIT)?;
    buf.store(l3 + HOP_LIMIT, [limit.wrapping_sub(1)])
}

/// Raises the hop limit of the header at `l3` by one.
#[inline(always)]
pub fn increment_hop_limit<B: Buffer>(buf: &mut B, l3: u32) -> Option<()> {
    let [limit] = buf.load(l3 + HOP_LIMIT)?;
    buf.store(l3 + HOP_LIMIT, [limit.wrapping_add(1)])
}
