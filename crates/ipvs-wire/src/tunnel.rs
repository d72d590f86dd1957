//! What stands between a tunnel's IP header and the packet inside.

use crate::buffer::Buffer;
use crate::checksum::{Sum, udp_wire};
use crate::transport::{protocol, udp};
use crate::{ethernet, ipv4, ipv6};

/// Octets of a GUE header without optional fields.
pub const GUE_LEN: u32 = 4;
/// The bits of GUE's first octet that say how many words of optional fields there are.
const GUE_OPTIONAL_WORDS: u8 = 0x1f;
/// Octets of a GRE header without, …
pub const GRE_LEN: u32 = 4;
/// … and with a checksum.
pub const GRE_SUMMED_LEN: u32 = 8;
/// The bit of a GRE header that says that a checksum follows.
const GRE_SUMMED: u8 = 0x80;
/// Place of the checksum in a GRE header.
const GRE_CHECKSUM: u32 = 4;

/// What carries the packet, and whether a checksum covers it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Carrier {
    /// Nothing: IP in IP (RFC 2003, RFC 2473).
    #[default]
    Bare,
    /// UDP and a GUE header of version 0 (draft-ietf-intarea-gue-09, section 3).
    Gue {
        /// UDP has a checksum.
        summed: bool,
    },
    /// GRE, version 0 (RFC 2784).
    Gre {
        /// GRE has a checksum.
        summed: bool,
    },
}

impl Carrier {
    /// Octets of its headers.
    #[inline(always)]
    pub const fn header_len(self) -> u32 {
        match self {
            Self::Bare => 0,
            Self::Gue { .. } => udp::HEADER_LEN + GUE_LEN,
            Self::Gre { summed: false } => GRE_LEN,
            Self::Gre { summed: true } => GRE_SUMMED_LEN,
        }
    }

    /// The protocol that the tunnel's IP header names, around a packet of IPv6 or IPv4.
    #[inline(always)]
    pub const fn protocol(self, inner_v6: bool) -> u8 {
        match self {
            Self::Bare => inner(inner_v6),
            Self::Gue { .. } => protocol::UDP,
            Self::Gre { .. } => protocol::GRE,
        }
    }

    /// Whether it goes to a port.
    #[inline(always)]
    pub const fn has_port(self) -> bool {
        matches!(self, Self::Gue { .. })
    }

    /// Whether a checksum covers the packet inside.
    #[inline(always)]
    pub const fn is_summed(self) -> bool {
        matches!(self, Self::Gue { summed: true } | Self::Gre { summed: true })
    }

    /// Writes its headers at `at`, where zeroes are, in front of a packet of `len`
    /// octets; `ports` are those of UDP. The checksum is left to
    /// [`Carrier::fill_checksum`].
    #[inline(always)]
    pub fn store<B: Buffer>(
        self,
        buf: &mut B,
        at: u32,
        inner_v6: bool,
        len: u32,
        ports: [u16; 2],
    ) -> Option<()> {
        match self {
            Self::Bare => Some(()),
            Self::Gue { .. } => {
                let [source, destination] = ports.map(u16::to_be_bytes);
                let len = u16::try_from(len + self.header_len()).unwrap_or(0).to_be_bytes();
                buf.store(at, [source[0], source[1], destination[0], destination[1]])?;
                buf.store(at + 4, [len[0], len[1], 0, 0])?;
                buf.store(at + udp::HEADER_LEN, [0, inner(inner_v6), 0, 0])
            }
            Self::Gre { summed } => {
                let ethertype = if inner_v6 { ethernet::IPV6 } else { ethernet::IPV4 };
                let [high, low] = ethertype.to_be_bytes();
                buf.store(at, [if summed { GRE_SUMMED } else { 0 }, 0, high, low])?;
                if summed { buf.store(at + GRE_CHECKSUM, [0; 4]) } else { Some(()) }
            }
        }
    }

    /// Makes the headers at `at` say that the packet behind them ends at `end`.
    #[inline(always)]
    pub fn set_length<B: Buffer>(self, buf: &mut B, at: u32, end: u32) -> Option<()> {
        match self {
            Self::Gue { .. } => {
                let len = u16::try_from(end.checked_sub(at)?).ok()?;
                buf.store(at + udp::LEN, len.to_be_bytes())
            }
            Self::Bare | Self::Gre { .. } => Some(()),
        }
    }

    /// Computes the checksum in the headers at `at`, if it has one, of a packet that ends
    /// at `end` and is complete. The tunnel's IP header is at `l3`.
    #[inline(always)]
    pub fn fill_checksum<B: Buffer>(self, buf: &mut B, l3: u32, at: u32, end: u32) -> Option<()> {
        let len = end.checked_sub(at)?;
        match self {
            Self::Gue { summed: true } => {
                buf.store(at + udp::CHECKSUM, [0; 2])?;
                let sum = pseudo_header(buf, l3)?
                    .add16(u16::from_ne_bytes([0, protocol::UDP]))
                    .add32(len.to_be())
                    .add16(buf.sum(at, len)?);
                buf.store(at + udp::CHECKSUM, udp_wire(sum.checksum()).to_ne_bytes())
            }
            Self::Gre { summed: true } => {
                buf.store(at + GRE_CHECKSUM, [0; 2])?;
                let sum = Sum::ZERO.add16(buf.sum(at, len)?);
                buf.store(at + GRE_CHECKSUM, sum.checksum().to_ne_bytes())
            }
            _ => Some(()),
        }
    }
}

/// Where the packet in a tunnel begins, and its version of IP, if what follows the tunnel's
/// IP header at `at` is a header of this `protocol` that says so. Any port may be one of GUE.
#[inline(always)]
pub fn inside<B: Buffer>(buf: &B, protocol: u8, at: u32) -> Option<(u32, u8)> {
    match protocol {
        protocol::IPIP | protocol::IPV6 => Some((at, version_of(protocol)?)),
        protocol::UDP => {
            // Version 0, no control message.
            let [first, inner] = buf.load(at + udp::HEADER_LEN)?;
            let optional = u32::from(first & GUE_OPTIONAL_WORDS) * 4;
            let begins = at + udp::HEADER_LEN + GUE_LEN + optional;
            if first & !GUE_OPTIONAL_WORDS == 0 { Some((begins, version_of(inner)?)) } else { None }
        }
        protocol::GRE => {
            let [flags, more, high, low] = buf.load(at)?;
            if flags & !GRE_SUMMED != 0 || more != 0 {
                return None;
            }
            let begins = at + if flags == 0 { GRE_LEN } else { GRE_SUMMED_LEN };
            match u16::from_be_bytes([high, low]) {
                ethernet::IPV4 => Some((begins, 4)),
                ethernet::IPV6 => Some((begins, 6)),
                _ => None,
            }
        }
        _ => None,
    }
}

/// The version of IP that a protocol number of a packet inside stands for.
#[inline(always)]
const fn version_of(protocol: u8) -> Option<u8> {
    match protocol {
        protocol::IPIP => Some(4),
        protocol::IPV6 => Some(6),
        _ => None,
    }
}

/// The protocol number of a packet inside.
#[inline(always)]
const fn inner(v6: bool) -> u8 {
    if v6 { protocol::IPV6 } else { protocol::IPIP }
}

/// The sum of the addresses in the IP header at `l3`.
#[inline(always)]
fn pseudo_header<B: Buffer>(buf: &B, l3: u32) -> Option<Sum> {
    let [first] = buf.load(l3)?;
    if first >> 4 == 6 {
        let source = buf.load_words(l3 + ipv6::SOURCE)?;
        let destination = buf.load_words(l3 + ipv6::DESTINATION)?;
        return Some(Sum::ZERO.addr(source).addr(destination));
    }
    let [source] = buf.load_words(l3 + ipv4::SOURCE)?;
    let [destination] = buf.load_words(l3 + ipv4::DESTINATION)?;
    Some(Sum::ZERO.add32(source).add32(destination))
}
