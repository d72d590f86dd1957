//! The headers of one packet, read once; after that nothing can be missing.

use crate::buffer::Buffer;
use crate::checksum::Sum;
use crate::transport::{protocol, sctp, tcp, udp};
use crate::{ethernet, ipv4, ipv6};

/// IPv6 extension headers that are followed, at most.
const MAX_EXTENSIONS: u32 = 8;

/// Where a quoted packet may begin, at most: behind all headers that are followed.
const FARTHEST_QUOTE: u32 = 0x4000;

/// Whether the packet is a piece of a datagram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fragment {
    /// A whole datagram.
    #[default]
    No,
    /// The piece with the transport header; in IPv6 it may be the only one.
    First,
    /// A piece without one.
    Later,
}

/// What the director needs to know of a packet.
///
/// Holding one proves that the IP header is complete, that its length lies in
/// the frame and, for IPv4, that its checksum is right (not of a quoted packet).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
    /// Reads the frame in `buf` into `self`, which holds nothing of use if
    /// that fails.
    ///
    /// In place, because an eBPF program has 512 octets of stack.
    #[inline(always)]
    pub fn read<B: Buffer>(&mut self, buf: &B) -> Result<(), ParseError> {
        let ethernet = ethernet::parse(buf).ok_or(ParseError::NotIp)?;
        self.begin(ethernet.payload);
        let read = match ethernet.ethertype {
            ethernet::IPV4 => self.read_v4::<false, B>(buf, 0),
            ethernet::IPV6 => self.read_v6::<false, B>(buf, 0),
            _ => return Err(ParseError::NotIp),
        };
        read.ok_or(ParseError::Malformed)?;
        self.read_transport(buf);
        Ok(())
    }

    /// Reads the packet of IP version `version` that an ICMP error quotes from
    /// `l3` to `end`, into `self`, which holds nothing of use if that fails.
    ///
    /// Quotes are cut off, so the length is that of what is there; and since
    /// nobody sends the packet on, its IPv4 checksum is not looked at.
    #[inline(always)]
    pub fn read_quoted<B: Buffer>(
        &mut self,
        buf: &B,
        version: u8,
        l3: u32,
        end: u32,
    ) -> Option<()> {
        // The compiler would compare another number than the one it then uses,
        // of which the verifier learns nothing: hence the black box.
        let l3 = core::hint::black_box(l3);
        if l3 > FARTHEST_QUOTE || end <= l3 {
            return None;
        }
        self.begin(l3);
        if version == 6 {
            self.read_v6::<true, B>(buf, end)?;
        } else {
            self.read_v4::<true, B>(buf, end)?;
        }
        self.read_transport(buf);
        Some(())
    }

    /// Reads the frame in `buf`.
    pub fn parse<B: Buffer>(buf: &B) -> Result<Self, ParseError> {
        let mut headers = Self::default();
        headers.read(buf).map(|()| headers)
    }

    /// Sets what not every packet has.
    #[inline(always)]
    fn begin(&mut self, l3: u32) {
        self.l3 = l3;
        self.source_port = 0;
        self.destination_port = 0;
        self.fragment = Fragment::No;
        self.has_ports = false;
        self.has_transport = false;
        self.event = 0;
        self.second_event = 0;
    }

    #[inline(always)]
    fn read_v4<const QUOTED: bool, B: Buffer>(&mut self, buf: &B, end: u32) -> Option<()> {
        let l3 = self.l3;
        let words: [u32; 5] = buf.load_words(l3)?;
        let [version, tos, len_high, len_low] = words[0].to_ne_bytes();
        let [_, _, flags_high, flags_low] = words[1].to_ne_bytes();
        let [ttl, protocol, ..] = words[2].to_ne_bytes();
        let header_len = u32::from(version & 0x0f) * 4;
        let total_len = u32::from(u16::from_be_bytes([len_high, len_low]));
        // A train of segments longer than the field can say has 0 there.
        let end = if QUOTED { end } else { buf.len() };
        let room = end.wrapping_sub(l3);
        let all = QUOTED || (total_len == 0 && buf.segment_len() != 0);
        let total_len = if all { room } else { total_len };
        if version >> 4 != 4
            || header_len < ipv4::HEADER_LEN
            || total_len < header_len
            || total_len > room
        {
            return None;
        }
        if !QUOTED {
            let sum = words.iter().fold(Sum::ZERO, |sum, word| sum.add32(*word));
            let sum = if header_len == ipv4::HEADER_LEN {
                sum
            } else {
                let at = l3 + ipv4::HEADER_LEN;
                sum.add32(options_sum(buf, at, header_len - ipv4::HEADER_LEN))
            };
            if sum.checksum() != 0 {
                return None;
            }
        }
        let flags = u16::from_be_bytes([flags_high, flags_low]);
        if flags & ipv4::OFFSET_MASK != 0 {
            self.fragment = Fragment::Later;
        } else if flags & ipv4::MORE_FRAGMENTS != 0 {
            self.fragment = Fragment::First;
        }
        self.source = [words[3], 0, 0, 0];
        self.destination = [words[4], 0, 0, 0];
        self.l4 = l3 + header_len;
        self.total_len = total_len;
        self.version = 4;
        self.protocol = protocol;
        self.ttl = ttl;
        self.tos = tos;
        self.dont_fragment = flags & ipv4::DONT_FRAGMENT != 0;
        Some(())
    }

    #[inline(always)]
    fn read_v6<const QUOTED: bool, B: Buffer>(&mut self, buf: &B, end: u32) -> Option<()> {
        let l3 = self.l3;
        let words: [u32; 2] = buf.load_words(l3)?;
        let [high, low, ..] = words[0].to_ne_bytes();
        let [len_high, len_low, next, hop_limit] = words[1].to_ne_bytes();
        let payload_len = u32::from(u16::from_be_bytes([len_high, len_low]));
        let end = if QUOTED { end } else { buf.len() };
        let room = end.wrapping_sub(l3);
        let all = QUOTED || (payload_len == 0 && buf.segment_len() != 0);
        let total_len = if all { room } else { payload_len + ipv6::HEADER_LEN };
        if high >> 4 != 6 || total_len > room || (QUOTED && room < ipv6::HEADER_LEN) {
            return None;
        }
        self.source = buf.load_words(l3 + ipv6::SOURCE)?;
        self.destination = buf.load_words(l3 + ipv6::DESTINATION)?;
        self.l4 = l3 + ipv6::HEADER_LEN;
        self.total_len = total_len;
        self.version = 6;
        self.protocol = next;
        self.ttl = hop_limit;
        self.tos = (high << 4) | (low >> 4);
        self.dont_fragment = true;
        match self.protocol {
            protocol::TCP | protocol::UDP => Some(()),
            _ => self.read_extensions(buf),
        }
    }

    #[inline(always)]
    fn read_extensions<B: Buffer>(&mut self, buf: &B) -> Option<()> {
        let mut followed = 0;
        while followed < MAX_EXTENSIONS {
            match self.protocol {
                ipv6::extension::HOP_BY_HOP
                | ipv6::extension::ROUTING
                | ipv6::extension::DESTINATION_OPTIONS => {
                    let [next, len] = buf.load(self.l4)?;
                    self.protocol = next;
                    self.l4 += (u32::from(len) + 1) * 8;
                }
                ipv6::extension::FRAGMENT => {
                    let f: [u8; 4] = buf.load(self.l4)?;
                    self.protocol = f[0];
                    self.l4 += 8;
                    let offset = u16::from_be_bytes([f[2], f[3]]);
                    if offset & 0xfff8 != 0 {
                        self.fragment = Fragment::Later;
                        return Some(());
                    }
                    // Also the only one of its datagram (RFC 6946), which is to lose its header.
                    self.fragment = Fragment::First;
                }
                _ => return Some(()),
            }
            followed += 1;
        }
        None
    }

    #[inline(always)]
    fn read_transport<B: Buffer>(&mut self, buf: &B) {
        if matches!(self.fragment, Fragment::Later) {
            return;
        }
        let need = match self.protocol {
            protocol::TCP => tcp::HEADER_LEN,
            protocol::UDP => udp::HEADER_LEN,
            protocol::SCTP => sctp::HEADER_LEN + 4,
            _ => return,
        };
        let have = self.transport_len();
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

    /// Whether the protocol has ports to balance by.
    #[inline(always)]
    pub const fn is_balanced(&self) -> bool {
        matches!(self.protocol, protocol::TCP | protocol::UDP | protocol::SCTP)
    }

    /// Whether the packet is one of `IPsec`, which follows the IKE connection (UDP 500)
    /// between the same addresses. In IPv6 AH is an extension header, and no protocol.
    #[inline(always)]
    pub const fn is_ipsec(&self) -> bool {
        self.protocol == protocol::ESP || (self.protocol == protocol::AH && self.version == 4)
    }

    /// Whether the checksum of TCP or UDP is still to be filled in: the field then
    /// holds the sum of the pseudo header, and the packet would be wrong with it.
    ///
    /// A packet whose right checksum happens to be that sum is told from one with
    /// an unfilled checksum by being right. `None` where there is no such checksum.
    #[inline(always)]
    pub fn is_unfilled<B: Buffer>(&self, buf: &B) -> Option<bool> {
        let field = u16::from_ne_bytes(buf.load(self.checksum_at()?)?);
        let pseudo = Sum::ZERO
            .addr(self.source)
            .addr(self.destination)
            .add16(u16::from_ne_bytes([0, self.protocol]))
            .add32(self.transport_len().to_be());
        if field != pseudo.fold() {
            return Some(false);
        }
        Some(pseudo.add16(buf.sum(self.l4, self.transport_len())?).checksum() != 0)
    }

    /// Octets from the transport header to the end of the datagram.
    #[inline(always)]
    pub const fn transport_len(&self) -> u32 {
        (self.l3 + self.total_len).saturating_sub(self.l4)
    }
}

/// The sum of the IPv4 options; where they cannot be read, something that no
/// checksum agrees with is good enough.
#[inline(never)]
fn options_sum<B: Buffer>(buf: &B, at: u32, count: u32) -> u32 {
    buf.sum(at, count).map_or(0, u32::from)
}
