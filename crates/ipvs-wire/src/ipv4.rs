//! The IPv4 header (RFC 791).

use crate::buffer::Buffer;
use crate::checksum::{self, Delta, Sum};
use crate::ethernet::Mac;

/// Octets of a header without options.
pub const HEADER_LEN: u32 = 20;
/// Place of the total length.
const TOTAL_LEN: u32 = 2;
/// Place of the time to live.
const TTL: u32 = 8;
/// Place of the header checksum.
const CHECKSUM: u32 = 10;
/// Place of the source address.
pub const SOURCE: u32 = 12;
/// Place of the destination address.
pub const DESTINATION: u32 = 16;
/// "Don't fragment" in the flags-and-offset word.
pub const DONT_FRAGMENT: u16 = 0x4000;
/// "More fragments" in the flags-and-offset word.
pub const MORE_FRAGMENTS: u16 = 0x2000;
/// Fragment offset in the flags-and-offset word.
pub const OFFSET_MASK: u16 = 0x1fff;

/// The fields of a header to be written; without options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4Fields {
    /// Type of service, with the ECN bits.
    pub tos: u8,
    /// Total length, header included.
    pub total_len: u16,
    /// Identification.
    pub id: u16,
    /// Flags and fragment offset.
    pub flags: u16,
    /// Time to live.
    pub ttl: u8,
    /// Protocol number.
    pub protocol: u8,
    /// Source, as it lies in memory.
    pub source: u32,
    /// Destination, as it lies in memory.
    pub destination: u32,
}

impl Ipv4Fields {
    /// The header, checksum included.
    #[inline(always)]
    pub fn octets(&self) -> [u8; 20] {
        let len = self.total_len.to_be_bytes();
        let id = self.id.to_be_bytes();
        let flags = self.flags.to_be_bytes();
        let sum = Sum::ZERO
            .add16(u16::from_ne_bytes([0x45, self.tos]))
            .add16(u16::from_ne_bytes(len))
            .add16(u16::from_ne_bytes(id))
            .add16(u16::from_ne_bytes(flags))
            .add16(u16::from_ne_bytes([self.ttl, self.protocol]))
            .add32(self.source)
            .add32(self.destination);
        let check = sum.checksum().to_ne_bytes();
        let s = self.source.to_ne_bytes();
        let d = self.destination.to_ne_bytes();
        [
            0x45,
            self.tos,
            len[0],
            len[1],
            id[0],
            id[1],
            flags[0],
            flags[1],
            self.ttl,
            self.protocol,
            check[0],
            check[1],
            s[0],
            s[1],
            s[2],
            s[3],
            d[0],
            d[1],
            d[2],
            d[3],
        ]
    }
}

/// Replaces the address at `place` ([`SOURCE`] or [`DESTINATION`]) of the
/// header at `l3` and patches the header checksum.
#[inline(always)]
pub fn set_address<B: Buffer>(buf: &mut B, l3: u32, place: u32, old: u32, new: u32) -> Option<()> {
    buf.store(l3 + place, new.to_ne_bytes())?;
    patch(buf, l3, Delta::NONE.word32(old, new))
}

/// Lowers the time to live of the header at `l3` by one.
#[inline(always)]
pub fn decrement_ttl<B: Buffer>(buf: &mut B, l3: u32) -> Option<()> {
    add_to_ttl(buf, l3, u8::MAX)
}

/// Raises the time to live of the header at `l3` by one.
#[inline(always)]
pub fn increment_ttl<B: Buffer>(buf: &mut B, l3: u32) -> Option<()> {
    add_to_ttl(buf, l3, 1)
}

#[inline(always)]
fn add_to_ttl<B: Buffer>(buf: &mut B, l3: u32, count: u8) -> Option<()> {
    let [ttl, protocol] = buf.load(l3 + TTL)?;
    let new = [ttl.wrapping_add(count), protocol];
    buf.store(l3 + TTL, new)?;
    let delta = Delta::NONE.word16(u16::from_ne_bytes([ttl, protocol]), u16::from_ne_bytes(new));
    patch(buf, l3, delta)
}

/// Sets the total length in the header at `l3`.
#[inline(always)]
pub fn set_total_len<B: Buffer>(buf: &mut B, l3: u32, len: u16) -> Option<()> {
    let old = u16::from_ne_bytes(buf.load(l3 + TOTAL_LEN)?);
    buf.store(l3 + TOTAL_LEN, len.to_be_bytes())?;
    patch(buf, l3, Delta::NONE.word16(old, len.to_be()))
}

/// Computes the checksum of the header of `len` octets at `l3` afresh.
#[inline(always)]
pub fn set_checksum<B: Buffer>(buf: &mut B, l3: u32, len: u32) -> Option<()> {
    buf.store(l3 + CHECKSUM, [0, 0])?;
    let sum = Sum::ZERO.add16(buf.sum(l3, len)?);
    buf.store(l3 + CHECKSUM, sum.checksum().to_ne_bytes())
}

#[inline(always)]
fn patch<B: Buffer>(buf: &mut B, l3: u32, delta: Delta) -> Option<()> {
    let old = u16::from_ne_bytes(buf.load(l3 + CHECKSUM)?);
    buf.store(l3 + CHECKSUM, checksum::patched(old, delta).to_ne_bytes())
}

/// The multicast MAC address of an IPv4 group (RFC 1112, section 6.4).
pub const fn multicast_mac(group: [u8; 4]) -> Mac {
    [0x01, 0x00, 0x5e, group[1] & 0x7f, group[2], group[3]]
}
