//! Packets for the tests of this plane, and what is right about one.

use ipvs_wire::checksum::{Sum, udp_wire};
use ipvs_wire::ipv4::Ipv4Fields;
use ipvs_wire::ipv6::Ipv6Fields;
use ipvs_wire::transport::protocol;
use ipvs_wire::{Buffer, Headers};

use crate::frame::Frame;

pub(crate) const CLIENT4: [u8; 4] = [192, 0, 2, 2];
pub(crate) const VIP4: [u8; 4] = [192, 0, 2, 100];
pub(crate) const CLIENT6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
pub(crate) const VIP6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 12, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];

/// What a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    TcpV4,
    TcpV6,
    UdpV4,
    UdpV6,
}

impl Kind {
    pub(crate) const ALL: [Self; 4] = [Self::TcpV4, Self::TcpV6, Self::UdpV4, Self::UdpV6];

    pub(crate) fn is_v6(self) -> bool {
        matches!(self, Self::TcpV6 | Self::UdpV6)
    }

    pub(crate) fn is_tcp(self) -> bool {
        matches!(self, Self::TcpV4 | Self::TcpV6)
    }
}

/// The words of an address in memory order.
pub(crate) fn words(octets: &[u8]) -> [u32; 4] {
    let mut words = [0; 4];
    for (word, octets) in words.iter_mut().zip(octets.chunks(4)) {
        *word = u32::from_ne_bytes(octets.try_into().unwrap());
    }
    words
}

/// A whole frame from client to VIP, every checksum right. TCP has flags
/// CWR, ACK, PSH and FIN and 12 octets of options.
pub(crate) fn packet(kind: Kind, payload: &[u8]) -> Vec<u8> {
    let (source, destination) = if kind.is_v6() {
        (words(&CLIENT6), words(&VIP6))
    } else {
        (words(&CLIENT4), words(&VIP4))
    };
    let mut transport = vec![0x30, 0x39, 0, 80];
    let at = if kind.is_tcp() {
        transport.extend([0xff, 0xff, 0xf0, 0, 1, 2, 3, 4, 0x50, 0x99, 0x10, 0, 0, 0, 0, 0]);
        16
    } else {
        transport.extend(u16::try_from(8 + payload.len()).unwrap_or(0).to_be_bytes());
        transport.extend([0, 0]);
        6
    };
    transport.extend(payload);
    let (next, len) = (if kind.is_tcp() { 6 } else { 17 }, transport.len());
    let sum = Sum::ZERO
        .addr(source)
        .addr(destination)
        .add16(u16::from_ne_bytes([0, next]))
        .add32(u32::try_from(len).unwrap().to_be())
        .octets(&transport)
        .checksum();
    let sum = if kind.is_tcp() { sum } else { udp_wire(sum) };
    transport[at..at + 2].copy_from_slice(&sum.to_ne_bytes());
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    if kind.is_v6() {
        frame.extend([0x86, 0xdd]);
        let mut header = Frame::new(vec![0; 40]);
        let payload_len = u16::try_from(len).unwrap();
        Ipv6Fields { class: 0, payload_len, next, hop_limit: 64, source, destination }
            .store(&mut header, 0)
            .unwrap();
        frame.extend(header.octets());
    } else {
        frame.extend([8, 0]);
        let fields = Ipv4Fields {
            tos: 0,
            total_len: u16::try_from(20 + len).unwrap(),
            id: 0xfffe,
            flags: 0x4000,
            ttl: 64,
            protocol: next,
            source: source[0],
            destination: destination[0],
        };
        frame.extend(fields.octets());
    }
    frame.extend(transport);
    frame
}

/// Reads a frame, and asserts that its transport checksum is right.
pub(crate) fn checked(frame: &Frame) -> Headers {
    let h = Headers::parse(frame).expect("a whole packet with a right IP checksum");
    assert!(matches!(h.protocol, protocol::TCP | protocol::UDP));
    let sum = Sum::ZERO
        .addr(h.source)
        .addr(h.destination)
        .add16(u16::from_ne_bytes([0, h.protocol]))
        .add32(h.transport_len().to_be())
        .add16(frame.sum(h.l4, h.transport_len()).unwrap());
    assert_eq!(sum.checksum(), 0, "the transport checksum is wrong");
    h
}
