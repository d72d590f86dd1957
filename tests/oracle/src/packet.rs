//! Packets that are put into a director, from their parts to a frame.

use std::net::{IpAddr, SocketAddr};

use ipvs_conformance::case::Frame;

/// Flags of TCP (RFC 9293).
pub(crate) mod flags {
    /// No more data.
    pub(crate) const FIN: u8 = 1;
    /// Beginning.
    pub(crate) const SYN: u8 = 2;
    /// The end at once.
    pub(crate) const RST: u8 = 4;
    /// Data is to be handed over.
    pub(crate) const PSH: u8 = 8;
    /// The acknowledgement counts.
    pub(crate) const ACK: u8 = 16;
}

/// The director's MAC address towards the clients, and that of their router.
const CLIENT_LINK: [u8; 12] = [2, 0, 0, 0, 0x0c, 1, 2, 0, 0, 0, 0x0c, 2];
/// The director's MAC address towards the servers, and that of a server in general.
const SERVER_LINK: [u8; 12] = [2, 0, 0, 0, 5, 1, 2, 0, 0, 0, 0x51, 0x11];

/// Protocol numbers.
const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;

/// A packet.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    /// Where it is from.
    pub(crate) from: SocketAddr,
    /// Where it is to.
    pub(crate) to: SocketAddr,
    /// Hops that are left.
    pub(crate) ttl: u8,
    /// IPv4 identification, or IPv6 flow label.
    pub(crate) id: u16,
    /// IPv4: it must not be cut.
    pub(crate) whole: bool,
    /// Type of service, or traffic class.
    pub(crate) tos: u8,
    /// What is above IP.
    pub(crate) body: Body,
}

/// What is above IP.
#[derive(Clone, Debug)]
pub(crate) enum Body {
    /// A segment.
    Tcp {
        /// Its flags.
        flags: u8,
        /// Its sequence number.
        seq: u32,
        /// Its acknowledgement number.
        ack: u32,
        /// Its data.
        data: Vec<u8>,
    },
    /// A datagram.
    Udp(Vec<u8>),
    /// Chunks, behind the common header.
    Sctp {
        /// Verification tag.
        tag: u32,
        /// The chunks.
        chunks: Vec<u8>,
    },
}

impl Packet {
    /// The packet as a frame that comes from a client.
    pub(crate) fn client_frame(&self) -> Frame {
        self.frame("c0", CLIENT_LINK)
    }

    /// The packet as a frame that comes from a server; its MAC address is of no matter.
    pub(crate) fn server_frame(&self) -> Frame {
        self.frame("s0", SERVER_LINK)
    }

    fn frame(&self, dev: &str, link: [u8; 12]) -> Frame {
        let kind: [u8; 2] = if self.to.is_ipv4() { [0x08, 0] } else { [0x86, 0xdd] };
        Frame { dev: dev.to_owned(), octets: [&link[..], &kind, &self.octets()].concat() }
    }

    /// The packet from its IP header on.
    pub(crate) fn octets(&self) -> Vec<u8> {
        let (protocol, mut body, checksum_at) = self.body();
        let pseudo = self.pseudo(protocol, body.len());
        if protocol == SCTP {
            let sum = crc32c(&body).to_le_bytes();
            put(&mut body, 8, &sum);
        } else if let Some(at) = checksum_at {
            let mut sum = !checksum(&[&pseudo, &body]);
            if protocol == UDP && sum == 0 {
                sum = 0xffff;
            }
            put(&mut body, at, &sum.to_be_bytes());
        }
        let mut octets = self.ip_header(protocol, body.len());
        octets.extend(body);
        octets
    }

    fn body(&self) -> (u8, Vec<u8>, Option<usize>) {
        let ports = [self.from.port().to_be_bytes(), self.to.port().to_be_bytes()].concat();
        match &self.body {
            Body::Tcp { flags, seq, ack, data } => {
                let mut body = ports;
                body.extend(seq.to_be_bytes());
                body.extend(ack.to_be_bytes());
                body.extend([0x50, *flags, 0xff, 0xff, 0, 0, 0, 0]);
                body.extend(data);
                (TCP, body, Some(16))
            }
            Body::Udp(data) => {
                let mut body = ports;
                body.extend(short(data.len() + 8));
                body.extend([0, 0]);
                body.extend(data);
                (UDP, body, Some(6))
            }
            Body::Sctp { tag, chunks } => {
                let mut body = ports;
                body.extend(tag.to_be_bytes());
                body.extend([0; 4]);
                body.extend(chunks);
                (SCTP, body, None)
            }
        }
    }

    fn ip_header(&self, protocol: u8, len: usize) -> Vec<u8> {
        let (from, to) = (address(self.from.ip()), address(self.to.ip()));
        if self.to.is_ipv4() {
            let flags = if self.whole { 0x40 } else { 0 };
            let mut header = vec![0x45, self.tos];
            header.extend(short(len + 20));
            header.extend(self.id.to_be_bytes());
            header.extend([flags, 0, self.ttl, protocol, 0, 0]);
            header.extend(from);
            header.extend(to);
            let sum = !checksum(&[&header]);
            put(&mut header, 10, &sum.to_be_bytes());
            header
        } else {
            let word = 0x6000_0000 | u32::from(self.tos) << 20 | u32::from(self.id);
            let mut header = word.to_be_bytes().to_vec();
            header.extend(short(len));
            header.extend([protocol, self.ttl]);
            header.extend(from);
            header.extend(to);
            header
        }
    }

    fn pseudo(&self, protocol: u8, len: usize) -> Vec<u8> {
        let mut header = address(self.from.ip());
        header.extend(address(self.to.ip()));
        header.extend([0, 0]);
        header.extend(short(len));
        header.extend([0, 0, 0, protocol]);
        header
    }
}

/// Where a frame with ports is from and to, and its protocol; `None` for one
/// without, in a tunnel or in pieces.
pub(crate) fn ends(frame: &[u8]) -> Option<(u8, SocketAddr, SocketAddr)> {
    let ip = frame.get(14..)?;
    let (protocol, from, to, body) = match frame.get(12..14)? {
        [0x08, 0x00] => {
            let len = usize::from(ip.first()? & 0x0f) * 4;
            let v4 = |at: usize| Some(IpAddr::from(*ip.get(at..)?.first_chunk::<4>()?));
            (*ip.get(9)?, v4(12)?, v4(16)?, ip.get(len..)?)
        }
        [0x86, 0xdd] => {
            let v6 = |at: usize| Some(IpAddr::from(*ip.get(at..)?.first_chunk::<16>()?));
            (*ip.get(6)?, v6(8)?, v6(24)?, ip.get(40..)?)
        }
        _ => return None,
    };
    if ![TCP, UDP, SCTP].contains(&protocol) {
        return None;
    }
    let port = |at: usize| Some(u16::from_be_bytes(*body.get(at..)?.first_chunk()?));
    Some((protocol, SocketAddr::new(from, port(0)?), SocketAddr::new(to, port(2)?)))
}

fn address(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// A length in 16 bits; scenarios hold no longer packets.
fn short(len: usize) -> [u8; 2] {
    u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes()
}

fn put(octets: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = octets.get_mut(at..at + value.len()) {
        place.copy_from_slice(value);
    }
}

/// The Internet checksum's sum (RFC 1071); all parts but the last are even.
fn checksum(parts: &[&[u8]]) -> u16 {
    let mut total: u64 = 0;
    for pair in parts.iter().flat_map(|part| part.chunks(2)) {
        let (high, low) = (pair.first().copied().unwrap_or(0), pair.get(1).copied().unwrap_or(0));
        total += u64::from(u16::from_be_bytes([high, low]));
    }
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    u16::try_from(total).unwrap_or(0)
}

/// CRC-32C (RFC 9260, appendix A).
fn crc32c(octets: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for octet in octets {
        crc ^= u32::from(*octet);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use ipvs_conformance::decode::decode;

    use super::*;

    fn packet(from: &str, to: &str, body: Body) -> Packet {
        let (from, to) = (from.parse().unwrap(), to.parse().unwrap());
        Packet { from, to, ttl: 64, id: 7, whole: true, tos: 0, body }
    }

    #[test]
    fn every_kind_of_packet_has_right_checksums() {
        let bodies = [
            Body::Tcp { flags: flags::SYN, seq: 1, ack: 0, data: vec![1, 2, 3] },
            Body::Udp(vec![1, 2, 3]),
            Body::Sctp { tag: 1, chunks: vec![1, 0, 0, 4] },
        ];
        for body in bodies {
            for ends in [
                ("198.51.100.1:1024", "192.0.2.10:80"),
                ("[2001:db8:ffff::1]:1024", "[2001:db8:c::10]:80"),
            ] {
                let frame = packet(ends.0, ends.1, body.clone()).client_frame();
                assert_eq!(decode(&frame.octets).bad_checksums, Vec::<String>::new(), "{body:?}");
            }
        }
        // The check value of the CRC's definition.
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn the_ends_of_a_frame_are_what_they_were_made_of() {
        let (from, to) = ("[2001:db8:ffff::1]:1024", "[2001:db8:c::10]:80");
        let frame = packet(from, to, Body::Udp(vec![])).client_frame();
        let found = ends(&frame.octets).unwrap();
        assert_eq!(found, (UDP, from.parse().unwrap(), to.parse().unwrap()));
    }
}
