//! The headers of one packet, read once; after that nothing can be missing.

use crate::buffer::Buffer;
use crate::checksum::Sum;
use crate::transport::{protocol, sctp, tcp, udp};
use crate::{ethernet, ipv4, ipv6};

/// IPv6 extension headers that are followed, at most.
const MAX_EXTENSIONS: u32 = 8;

/// Whether the packet is a piece of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragment {
    /// A whole datagram.
    No,
    /// The piece with the transport header.
    First,
    /// A piece without one.
    Later,
}

/// What the director needs to know of a packet.
///
/// Holding one proves that the IP header is complete, that its length lies in
/// the frame and, for IPv4, that its checksum is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers {
    /// Source address in memory order; IPv4 in the first word.
    pub source: [u32; 4],
    /// Destination address in memory order.
    pub destination: [u32; 4],
    /// Where the IP header begins, in octets from the start of the frame.
    pub l3: u32,
    /// Where the transport header begins.
    pub l4: u32,
    /// Octets of the IP datagram, header included.
    pub total_len: u32,
    /// Source port, host order; 0 if there is none.
    pub source_port: u16,
    /// Destination port, host order.
    pub destination_port: u16,
    /// 4 or 6.
    pub version: u8,
    /// Protocol number behind all extension headers.
    pub protocol: u8,
    /// Time to live or hop limit.
    pub ttl: u8,
    /// Type of service or traffic class, with the ECN bits.
    pub tos: u8,
    /// IPv4: "don't fragment" is set. IPv6: always.
    pub dont_fragment: bool,
    /// Whether this is a fragment.
    pub fragment: Fragment,
    /// Both ports were there.
    pub has_ports: bool,
    /// The transport header is complete (SCTP: with the first chunk's head).
    pub has_transport: bool,
    /// TCP: the flags. SCTP: type of the first chunk. Else 0.
    pub event: u8,
    /// SCTP: type of the chunk behind a leading COOKIE ECHO or COOKIE ACK. Else 0.
    pub second_event: u8,
}

/// Why a packet was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseError {
    /// Not IPv4 or IPv6: nothing to say about it.
    NotIp,
    /// The frame ends inside a header, or a length contradicts another.
    Malformed,
}

impl Headers {
    /// Reads the frame in `buf`.
    #[inline(always)]
    pub fn parse<B: Buffer>(buf: &B) -> Result<Self, ParseError> {
        let ethernet = ethernet::parse(buf).ok_or(ParseError::NotIp)?;
        let parsed = match ethernet.ethertype {
            ethernet::IPV4 => Self::parse_v4(buf, ethernet.payload),
            ethernet::IPV6 => Self::parse_v6(buf, ethernet.payload),
            _ => return Err(ParseError::NotIp),
        };
        let mut headers = parsed.ok_or(ParseError::Malformed)?;
        headers.parse_transport(buf);
        Ok(headers)
    }

    #[inline(always)]
    fn parse_v4<B: Buffer>(buf: &B, l3: u32) -> Option<Self> {
        let h: [u8; 20] = buf.load(l3)?;
        let header_len = u32::from(h[0] & 0x0f) * 4;
        let total_len = u32::from(u16::from_be_bytes([h[2], h[3]]));
        // A train of segments longer than the field can say has 0 there.
        let room = buf.len().wrapping_sub(l3);
        let total_len = if total_len == 0 && buf.segment_len() != 0 { room } else { total_len };
        if h[0] >> 4 != 4
            || header_len < ipv4::HEADER_LEN
            || total_len < header_len
            || total_len > room
        {
            return None;
        }
        let source = u32::from_ne_bytes([h[12], h[13], h[14], h[15]]);
        let destination = u32::from_ne_bytes([h[16], h[17], h[18], h[19]]);
        let sum = Sum::ZERO
            .add32(u32::from_ne_bytes([h[0], h[1], h[2], h[3]]))
            .add32(u32::from_ne_bytes([h[4], h[5], h[6], h[7]]))
            .add32(u32::from_ne_bytes([h[8], h[9], h[10], h[11]]))
            .add32(source)
            .add32(destination);
        let sum = if header_len == ipv4::HEADER_LEN {
            sum
        } else {
            sum.add16(buf.sum(l3 + ipv4::HEADER_LEN, header_len - ipv4::HEADER_LEN)?)
        };
        if sum.checksum() != 0 {
            return None;
        }
        let flags = u16::from_be_bytes([h[6], h[7]]);
        let fragment = if flags & ipv4::OFFSET_MASK != 0 {
            Fragment::Later
        } else if flags & ipv4::MORE_FRAGMENTS != 0 {
            Fragment::First
        } else {
            Fragment::No
        };
        Some(Self {
            source: [source, 0, 0, 0],
            destination: [destination, 0, 0, 0],
            l3,
            l4: l3 + header_len,
            total_len,
            version: 4,
            protocol: h[9],
            ttl: h[8],
            tos: h[1],
            dont_fragment: flags & ipv4::DONT_FRAGMENT != 0,
            fragment,
            ..Self::BLANK
        })
    }

    #[inline(always)]
    fn parse_v6<B: Buffer>(buf: &B, l3: u32) -> Option<Self> {
        let h: [u8; 8] = buf.load(l3)?;
        let payload_len = u32::from(u16::from_be_bytes([h[4], h[5]]));
        let room = buf.len().wrapping_sub(l3);
        let total_len = if payload_len == 0 && buf.segment_len() != 0 {
            room
        } else {
            payload_len + ipv6::HEADER_LEN
        };
        if h[0] >> 4 != 6 || total_len > room {
            return None;
        }
        let mut headers = Self {
            source: ipv6::address(buf, l3 + ipv6::SOURCE)?,
            destination: ipv6::address(buf, l3 + ipv6::DESTINATION)?,
            l3,
            l4: l3 + ipv6::HEADER_LEN,
            total_len,
            version: 6,
            protocol: h[6],
            ttl: h[7],
            tos: (h[0] << 4) | (h[1] >> 4),
            dont_fragment: true,
            ..Self::BLANK
        };
        let mut followed = 0;
        while followed < MAX_EXTENSIONS {
            match headers.protocol {
                ipv6::extension::HOP_BY_HOP
                | ipv6::extension::ROUTING
                | ipv6::extension::DESTINATION_OPTIONS => {
                    let [next, len] = buf.load(headers.l4)?;
                    headers.protocol = next;
                    headers.l4 += (u32::from(len) + 1) * 8;
                }
                ipv6::extension::FRAGMENT => {
                    let f: [u8; 4] = buf.load(headers.l4)?;
                    headers.protocol = f[0];
                    headers.l4 += 8;
                    let offset = u16::from_be_bytes([f[2], f[3]]);
                    if offset & 0xfff8 != 0 {
                        headers.fragment = Fragment::Later;
                        return Some(headers);
                    }
                    if offset & 1 != 0 {
                        headers.fragment = Fragment::First;
                    }
                }
                _ => return Some(headers),
            }
            followed += 1;
        }
        None
    }

    #[inline(always)]
    fn parse_transport<B: Buffer>(&mut self, buf: &B) {
        if matches!(self.fragment, Fragment::Later) {
            return;
        }
        let need = match self.protocol {
            protocol::TCP => tcp::HEADER_LEN,
            protocol::UDP => udp::HEADER_LEN,
            protocol::SCTP => sctp::HEADER_LEN + 4,
            _ => return,
        };
        let have = (self.l3 + self.total_len).saturating_sub(self.l4);
        if have < 4 {
            return;
        }
        let Some(p) = buf.load::<4>(self.l4) else { return };
        self.source_port = u16::from_be_bytes([p[0], p[1]]);
        self.destination_port = u16::from_be_bytes([p[2], p[3]]);
        self.has_ports = true;
        if have < need {
            return;
        }
        match self.protocol {
            protocol::TCP => {
                let Some([flags]) = buf.load(self.l4 + 13) else { return };
                self.event = flags;
            }
            protocol::SCTP => {
                let Some([kind, _, hi, lo]) = buf.load(self.l4 + sctp::HEADER_LEN) else { return };
                self.event = kind;
                if kind == sctp::COOKIE_ECHO || kind == sctp::COOKIE_ACK {
                    // Chunks begin on 4-octet boundaries (RFC 9260, section 3.2).
                    let len = (u32::from(u16::from_be_bytes([hi, lo])) + 3) & !3;
                    let second = sctp::HEADER_LEN + len;
                    if second < have
                        && let Some([kind]) = buf.load(self.l4 + second)
                    {
                        self.second_event = kind;
                    }
                }
            }
            _ => {}
        }
        self.has_transport = true;
    }

    /// Where the transport checksum stands, if the protocol has one of 16 bits.
    #[inline(always)]
    pub const fn checksum_at(&self) -> Option<u32> {
        match self.protocol {
            protocol::TCP => Some(self.l4 + tcp::CHECKSUM),
            protocol::UDP => Some(self.l4 + udp::CHECKSUM),
            _ => None,
        }
    }

    /// Octets from the transport header to the end of the datagram.
    #[inline(always)]
    pub const fn transport_len(&self) -> u32 {
        (self.l3 + self.total_len).saturating_sub(self.l4)
    }

    const BLANK: Self = Self {
        source: [0; 4],
        destination: [0; 4],
        l3: 0,
        l4: 0,
        total_len: 0,
        source_port: 0,
        destination_port: 0,
        version: 0,
        protocol: 0,
        ttl: 0,
        tos: 0,
        dont_fragment: false,
        fragment: Fragment::No,
        has_ports: false,
        has_transport: false,
        event: 0,
        second_event: 0,
    };
}
