//! Headers as the bench's packets have them: no tag, no option, no extension.

use ipvs_wire::checksum::Sum;
use zerocopy::byteorder::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, transmute};

/// IANA protocol number of TCP.
pub const TCP: u8 = 6;
/// IANA protocol number of UDP.
pub const UDP: u8 = 17;
/// IANA protocol number of GRE.
pub const GRE: u8 = 47;

/// An Ethernet header.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Ethernet {
    /// Destination address.
    pub destination: [u8; 6],
    /// Source address.
    pub source: [u8; 6],
    /// `EtherType`.
    pub kind: U16,
}

/// An IPv4 header.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Ipv4 {
    /// Version and header length.
    pub version: u8,
    /// Type of service.
    pub tos: u8,
    /// Octets of the datagram.
    pub total_len: U16,
    /// Identification.
    pub id: U16,
    /// Flags and offset of a fragment.
    pub fragment: U16,
    /// Time to live.
    pub ttl: u8,
    /// What is inside.
    pub protocol: u8,
    /// Checksum, as it lies in memory.
    pub checksum: [u8; 2],
    /// Source address.
    pub source: U32,
    /// Destination address.
    pub destination: U32,
}

/// An IPv6 header.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Ipv6 {
    /// Version, traffic class and flow label.
    pub version: U32,
    /// Octets behind this header.
    pub payload_len: U16,
    /// What is inside.
    pub next: u8,
    /// Hop limit.
    pub hop_limit: u8,
    /// Source address.
    pub source: [U32; 4],
    /// Destination address.
    pub destination: [U32; 4],
}

/// A TCP header.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Tcp {
    /// Source port.
    pub source: U16,
    /// Destination port.
    pub destination: U16,
    /// Sequence number.
    pub sequence: U32,
    /// Acknowledgement number.
    pub acknowledgement: U32,
    /// Header length in words, in the upper half.
    pub offset: u8,
    /// [`Tcp::SYN`] and [`Tcp::ACK`].
    pub flags: u8,
    /// Window.
    pub window: U16,
    /// Checksum, as it lies in memory.
    pub checksum: [u8; 2],
    /// Urgent pointer.
    pub urgent: U16,
}

impl Tcp {
    /// Flag: opens a connection.
    pub const SYN: u8 = 0x02;
    /// Flag: the acknowledgement number counts.
    pub const ACK: u8 = 0x10;

    /// The sum of the header, checksum included.
    #[inline(always)]
    pub fn sum(&self) -> Sum {
        let words: [u32; 5] = transmute!(*self);
        words.into_iter().fold(Sum::ZERO, Sum::add32)
    }
}

/// Either IP header, as far as the programs need it.
pub trait Ip: Copy {
    /// Its `EtherType`.
    const ETHERTYPE: u16;
    /// Its IANA protocol number inside another IP header.
    const INSIDE: u8;
    /// IANA protocol number.
    fn protocol(&self) -> u8;
    /// Time to live.
    fn ttl(&self) -> u8;
    /// Destination address: the last word as a number, and the first three as
    /// they lie in memory (zero for IPv4).
    fn destination(&self) -> ([u32; 3], u32);
    /// Sets the last word of the source address, which was zero, and the
    /// checksum, given the sum over the rest.
    fn set_client(&mut self, client: u32, sum: Sum);
    /// Exchanges source and destination.
    fn turn_round(&mut self);
    /// Whether the header is plain and its checksum right.
    fn is_sound(&self) -> bool;
    /// The sum of the pseudo header without the length.
    fn pseudo_sum(&self) -> Sum;
    /// Octets behind this header.
    fn payload_len(&self) -> u16;
}

impl Ip for Ipv4 {
    const ETHERTYPE: u16 = 0x0800;
    const INSIDE: u8 = 4;

    #[inline(always)]
    fn protocol(&self) -> u8 {
        self.protocol
    }

    #[inline(always)]
    fn ttl(&self) -> u8 {
        self.ttl
    }

    #[inline(always)]
    fn destination(&self) -> ([u32; 3], u32) {
        ([0; 3], self.destination.get())
    }

    #[inline(always)]
    fn set_client(&mut self, client: u32, sum: Sum) {
        self.source = U32::new(client);
        self.checksum = sum.add32(client.to_be()).checksum().to_ne_bytes();
    }

    #[inline(always)]
    fn turn_round(&mut self) {
        (self.source, self.destination) = (self.destination, self.source);
    }

    #[inline(always)]
    fn is_sound(&self) -> bool {
        let words: [u32; 5] = transmute!(*self);
        let sum = words.into_iter().fold(Sum::ZERO, Sum::add32);
        self.version == 0x45 && sum.checksum() == 0
    }

    #[inline(always)]
    fn pseudo_sum(&self) -> Sum {
        Sum::ZERO
            .add32(self.source.get().to_be())
            .add32(self.destination.get().to_be())
            .add16(u16::from(self.protocol).to_be())
    }

    #[inline(always)]
    fn payload_len(&self) -> u16 {
        self.total_len.get().wrapping_sub(20)
    }
}

impl Ip for Ipv6 {
    const ETHERTYPE: u16 = 0x86dd;
    const INSIDE: u8 = 41;

    #[inline(always)]
    fn protocol(&self) -> u8 {
        self.next
    }

    #[inline(always)]
    fn ttl(&self) -> u8 {
        self.hop_limit
    }

    #[inline(always)]
    fn destination(&self) -> ([u32; 3], u32) {
        let [high @ .., _]: [u32; 4] = transmute!(self.destination);
        let [.., last] = self.destination;
        (high, last.get())
    }

    #[inline(always)]
    fn set_client(&mut self, client: u32, _sum: Sum) {
        let [.., last] = &mut self.source;
        last.set(client);
    }

    #[inline(always)]
    fn turn_round(&mut self) {
        (self.source, self.destination) = (self.destination, self.source);
    }

    #[inline(always)]
    fn is_sound(&self) -> bool {
        self.version.get() >> 28 == 6
    }

    #[inline(always)]
    fn pseudo_sum(&self) -> Sum {
        Sum::ZERO
            .addr(transmute!(self.source))
            .addr(transmute!(self.destination))
            .add16(u16::from(self.next).to_be())
    }

    #[inline(always)]
    fn payload_len(&self) -> u16 {
        self.payload_len.get()
    }
}
