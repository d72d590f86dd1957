//! Packets as tests say them: built and read octet by octet, with nothing of
//! the code under test.

use std::net::IpAddr;

use ipvs_plane::frame::Frame;
use proptest::prelude::*;

pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const SCTP: u8 = 132;

pub(crate) const SYN: u8 = 0x02;
pub(crate) const ACK: u8 = 0x10;
pub(crate) const RST: u8 = 0x04;
pub(crate) const FIN: u8 = 0x01;

/// The SCTP chunk that starts a connection.
pub(crate) const INIT: u8 = 1;

/// A packet to be built.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a bit of the packet")]
pub(crate) struct Shape {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) source_port: u16,
    pub(crate) destination_port: u16,
    pub(crate) protocol: u8,
    /// TCP: sequence and acknowledgement number.
    pub(crate) sequence: u32,
    pub(crate) acknowledged: u32,
    /// TCP flags, or the type of the SCTP chunk.
    pub(crate) event: u8,
    pub(crate) ttl: u8,
    pub(crate) tos: u8,
    pub(crate) dont_fragment: bool,
    /// Words of IPv4 options, or of eight octets of IPv6 destination options.
    pub(crate) options: usize,
    pub(crate) tagged: bool,
    /// UDP: without a checksum.
    pub(crate) unsummed: bool,
    /// The checksum is left to hardware (not for SCTP).
    pub(crate) pending: bool,
    /// Octets behind the datagram.
    pub(crate) padding: usize,
    pub(crate) payload: Vec<u8>,
}

impl Shape {
    /// A plain packet.
    pub(crate) fn new(
        protocol: u8,
        source: (IpAddr, u16),
        destination: (IpAddr, u16),
        event: u8,
    ) -> Self {
        Self {
            source: source.0,
            destination: destination.0,
            source_port: source.1,
            destination_port: destination.1,
            protocol,
            sequence: 1,
            acknowledged: 2,
            event,
            ttl: 64,
            tos: 0,
            dont_fragment: false,
            options: 0,
            tagged: false,
            unsummed: false,
            pending: false,
            padding: 0,
            payload: Vec::new(),
        }
    }

    /// The frame, to the MAC address `to`.
    pub(crate) fn frame(&self, to: [u8; 6]) -> Frame {
        let mut octets = to.to_vec();
        octets.extend([2, 9, 9, 9, 9, 9]);
        if self.tagged {
            octets.extend([0x81, 0, 0, 7]);
        }
        let transport = self.transport();
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                octets.extend([8, 0]);
                let len = 20 + 4 * self.options + transport.len();
                let mut header = vec![0x45 + u8::try_from(self.options).unwrap(), self.tos];
                header.extend(u16::try_from(len).unwrap().to_be_bytes());
                header.extend([0x12, 0x34, if self.dont_fragment { 0x40 } else { 0 }, 0]);
                header.extend([self.ttl, self.protocol, 0, 0]);
                header.extend(source.octets());
                header.extend(destination.octets());
                // No operation, as often as needed.
                header.resize(20 + 4 * self.options, 1);
                let sum = !sum(0, &header);
                header[10..12].copy_from_slice(&sum.to_be_bytes());
                octets.extend(header);
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                octets.extend([0x86, 0xdd, 0x60 | (self.tos >> 4), self.tos << 4, 0, 0]);
                let len = 8 * self.options + transport.len();
                octets.extend(u16::try_from(len).unwrap().to_be_bytes());
                octets.extend([if self.options > 0 { 60 } else { self.protocol }, self.ttl]);
                octets.extend(source.octets());
                octets.extend(destination.octets());
                if self.options > 0 {
                    // One header, filled by one padding option.
                    octets.extend([self.protocol, u8::try_from(self.options - 1).unwrap(), 1]);
                    let pad = 8 * self.options - 4;
                    octets.push(u8::try_from(pad).unwrap());
                    octets.resize(octets.len() + pad, 0);
                }
            }
            _ => panic!("addresses of two families"),
        }
        octets.extend(transport);
        octets.resize(octets.len() + self.padding, 0xee);
        let mut frame = Frame::new(octets);
        frame.checksum_pending = self.pending && self.protocol != SCTP;
        frame
    }

    fn transport(&self) -> Vec<u8> {
        let mut octets = self.source_port.to_be_bytes().to_vec();
        octets.extend(self.destination_port.to_be_bytes());
        let at = match self.protocol {
            TCP => {
                octets.extend(self.sequence.to_be_bytes());
                octets.extend(self.acknowledged.to_be_bytes());
                octets.extend([0x50, self.event, 0x20, 0, 0, 0, 0, 0]);
                16
            }
            UDP => {
                let len = u16::try_from(8 + self.payload.len()).unwrap();
                octets.extend(len.to_be_bytes());
                octets.extend([0, 0]);
                6
            }
            _ => {
                octets.extend([0, 0, 0, 3, 0, 0, 0, 0]);
                let len = u16::try_from(4 + self.payload.len()).unwrap();
                octets.extend([self.event, 0]);
                octets.extend(len.to_be_bytes());
                8
            }
        };
        octets.extend(&self.payload);
        if self.protocol == SCTP {
            let crc = crc32c(&octets).to_le_bytes();
            octets[at..at + 4].copy_from_slice(&crc);
            return octets;
        }
        let pseudo = pseudo(self.source, self.destination, self.protocol, octets.len());
        let filled = match sum(pseudo, &octets) {
            _ if self.pending => sum(pseudo, &[]),
            _ if self.protocol == UDP && self.unsummed => 0,
            0xffff if self.protocol == UDP => 0xffff,
            sum => !sum,
        };
        octets[at..at + 2].copy_from_slice(&filled.to_be_bytes());
        octets
    }
}

/// Any packet of one flow, well formed; event 0 stands for "as it begins".
pub(crate) fn any_trimmings() -> impl Strategy<Value = Trimmings> {
    (
        (2u8..=255, any::<u8>(), any::<bool>()),
        prop_oneof![3 => Just(0usize), 1 => 1usize..10],
        any::<bool>(),
        prop_oneof![Just(Summed::Full), Just(Summed::Pending), Just(Summed::Not)],
        prop_oneof![2 => Just(0usize), 1 => 1usize..46],
        prop::collection::vec(any::<u8>(), 0..700),
    )
        .prop_map(|((ttl, tos, dont_fragment), options, tagged, summed, padding, payload)| {
            Trimmings { ttl, tos, dont_fragment, options, tagged, summed, padding, payload }
        })
}

/// How far the checksum of a packet is filled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Summed {
    Full,
    Pending,
    Not,
}

/// All of a packet but its addresses, ports and meaning.
#[derive(Clone, Debug)]
pub(crate) struct Trimmings {
    ttl: u8,
    tos: u8,
    dont_fragment: bool,
    options: usize,
    pub(crate) tagged: bool,
    summed: Summed,
    padding: usize,
    payload: Vec<u8>,
}

impl Trimmings {
    pub(crate) fn put_on(&self, shape: &Shape) -> Shape {
        Shape {
            ttl: self.ttl,
            tos: self.tos,
            dont_fragment: self.dont_fragment,
            options: self.options,
            tagged: self.tagged,
            unsummed: self.summed == Summed::Not,
            pending: self.summed == Summed::Pending,
            padding: self.padding,
            payload: self.payload.clone(),
            ..shape.clone()
        }
    }
}

/// What is seen of a packet on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) to: [u8; 6],
    pub(crate) from: [u8; 6],
    pub(crate) source: (IpAddr, u16),
    pub(crate) destination: (IpAddr, u16),
    pub(crate) ttl: u8,
    pub(crate) tos: u8,
    /// From behind the ports to the end of the frame, the checksum zeroed.
    pub(crate) rest: Vec<u8>,
}

/// Reads a frame of ours and checks every length and checksum on the way.
pub(crate) fn seen(frame: &Frame) -> Seen {
    let octets = frame.octets();
    let tagged = octets[12..14] == [0x81, 0];
    let l3 = if tagged { 18 } else { 14 };
    let ip = &octets[l3..];
    let (source, destination, protocol, header, len, ttl, tos): (IpAddr, IpAddr, _, _, _, _, _) =
        if octets[l3 - 2..l3] == [8, 0] {
            let header = usize::from(ip[0] & 15) * 4;
            assert_eq!(ip[0] >> 4, 4);
            assert_eq!(sum(0, &ip[..header]), 0xffff, "IPv4 header checksum");
            let address = |at: usize| IpAddr::from(<[u8; 4]>::try_from(&ip[at..at + 4]).unwrap());
            (address(12), address(16), ip[9], header, be16(ip, 2), ip[8], ip[1])
        } else {
            assert_eq!(&octets[l3 - 2..l3], [0x86, 0xdd]);
            assert_eq!(ip[0] >> 4, 6);
            let address = |at: usize| IpAddr::from(<[u8; 16]>::try_from(&ip[at..at + 16]).unwrap());
            let (protocol, header) =
                if ip[6] == 60 { (ip[40], 40 + 8 + 8 * usize::from(ip[41])) } else { (ip[6], 40) };
            let tos = (ip[0] << 4) | (ip[1] >> 4);
            (address(8), address(24), protocol, header, 40 + be16(ip, 4), ip[7], tos)
        };
    let transport = &ip[header..len];
    let pseudo = pseudo(source, destination, protocol, transport.len());
    let mut rest = ip[header + 4..].to_vec();
    match protocol {
        TCP | UDP => {
            let at = if protocol == TCP { 16 } else { 6 };
            let field = u16::from_be_bytes([transport[at], transport[at + 1]]);
            if frame.checksum_pending {
                assert_eq!(field, sum(pseudo, &[]), "sum of the pseudo header");
            } else {
                assert_eq!(sum(pseudo, transport), 0xffff, "transport checksum");
                assert!(protocol == TCP || field != 0, "UDP without a checksum");
            }
            rest[at - 4..at - 2].fill(0);
        }
        _ => {
            let mut zeroed = transport.to_vec();
            zeroed[8..12].fill(0);
            assert_eq!(transport[8..12], crc32c(&zeroed).to_le_bytes(), "CRC32c");
            rest[4..8].fill(0);
        }
    }
    let port = |at| u16::from_be_bytes([transport[at], transport[at + 1]]);
    Seen {
        to: octets[..6].try_into().unwrap(),
        from: octets[6..12].try_into().unwrap(),
        source: (source, port(0)),
        destination: (destination, port(2)),
        ttl,
        tos,
        rest,
    }
}

pub(crate) fn be16(octets: &[u8], at: usize) -> usize {
    usize::from(octets[at]) * 256 + usize::from(octets[at + 1])
}

/// The folded sum of `start` and the octets (RFC 1071).
pub(crate) fn sum(start: u32, octets: &[u8]) -> u16 {
    let mut sum = start;
    for pair in octets.chunks(2) {
        sum += u32::from(pair[0]) * 256 + u32::from(*pair.get(1).unwrap_or(&0));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap()
}

pub(crate) fn octets_of(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// The sum of the pseudo header.
pub(crate) fn pseudo(source: IpAddr, destination: IpAddr, protocol: u8, len: usize) -> u32 {
    let addresses = u32::from(sum(0, &[octets_of(source), octets_of(destination)].concat()));
    addresses + u32::from(protocol) + u32::try_from(len).unwrap()
}

/// Bit by bit, by the reflected polynomial of RFC 9260.
pub(crate) fn crc32c(octets: &[u8]) -> u32 {
    let mut state = !0u32;
    for octet in octets {
        state ^= u32::from(*octet);
        for _ in 0..8 {
            state = if state & 1 == 1 { (state >> 1) ^ 0x82f6_3b78 } else { state >> 1 };
        }
    }
    !state
}
