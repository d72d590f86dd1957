//! The errors of ICMP (RFC 792) and ICMPv6 (RFC 4443).

/// Octets of an error's header, before the quoted packet.
pub const HEADER_LEN: u32 = 8;
/// Place of the checksum.
pub const CHECKSUM: u32 = 2;

/// Type and code of an error, and the 32-bit word behind the checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IcmpError {
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// The word behind the checksum: an MTU, or 0.
    pub info: u32,
}

impl IcmpError {
    /// IPv4: port unreachable.
    pub const V4_PORT_UNREACHABLE: Self = Self { kind: 3, code: 3, info: 0 };
    /// IPv4: host unreachable.
    pub const V4_HOST_UNREACHABLE: Self = Self { kind: 3, code: 1, info: 0 };
    /// IPv4: time to live exceeded in transit.
    pub const V4_TIME_EXCEEDED: Self = Self { kind: 11, code: 0, info: 0 };
    /// IPv4: a datagram did not become whole in time.
    pub const V4_REASSEMBLY_TIME_EXCEEDED: Self = Self { kind: 11, code: 1, info: 0 };
    /// IPv6: port unreachable.
    pub const V6_PORT_UNREACHABLE: Self = Self { kind: 1, code: 4, info: 0 };
    /// IPv6: address unreachable.
    pub const V6_ADDRESS_UNREACHABLE: Self = Self { kind: 1, code: 3, info: 0 };
    /// IPv6: hop limit exceeded in transit.
    pub const V6_TIME_EXCEEDED: Self = Self { kind: 3, code: 0, info: 0 };
    /// IPv6: a datagram did not become whole in time.
    pub const V6_REASSEMBLY_TIME_EXCEEDED: Self = Self { kind: 3, code: 1, info: 0 };

    /// IPv4: fragmentation needed and DF set, with the next hop's MTU (RFC 1191).
    #[inline(always)]
    pub const fn fragmentation_needed(mtu: u32) -> Self {
        Self { kind: 3, code: 4, info: mtu }
    }

    /// IPv6: packet too big (RFC 4443, section 3.2).
    #[inline(always)]
    pub const fn packet_too_big(mtu: u32) -> Self {
        Self { kind: 2, code: 0, info: mtu }
    }
}
