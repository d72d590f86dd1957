//! What the director reads and changes of TCP, UDP and SCTP headers.

/// IANA protocol numbers.
pub mod protocol {
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// IPv4 in IP.
    pub const IPIP: u8 = 4;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// IPv6 in IP.
    pub const IPV6: u8 = 41;
    /// GRE.
    pub const GRE: u8 = 47;
    /// Encapsulating security payload.
    pub const ESP: u8 = 50;
    /// Authentication header.
    pub const AH: u8 = 51;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
    /// SCTP.
    pub const SCTP: u8 = 132;
}

/// TCP (RFC 9293).
pub mod tcp {
    /// Octets of a header without options.
    pub const HEADER_LEN: u32 = 20;
    /// Place of the checksum.
    pub const CHECKSUM: u32 = 16;
    /// Flag FIN.
    pub const FIN: u8 = 0x01;
    /// Flag SYN.
    pub const SYN: u8 = 0x02;
    /// Flag RST.
    pub const RST: u8 = 0x04;
    /// Flag ACK.
    pub const ACK: u8 = 0x10;
}

/// UDP (RFC 768).
pub mod udp {
    /// Octets of the header.
    pub const HEADER_LEN: u32 = 8;
    /// Place of the length.
    pub const LEN: u32 = 4;
    /// Place of the checksum.
    pub const CHECKSUM: u32 = 6;
}

/// SCTP (RFC 9260).
pub mod sctp {
    /// Octets of the common header.
    pub const HEADER_LEN: u32 = 12;
    /// Place of the checksum.
    pub const CHECKSUM: u32 = 8;
    /// Chunk INIT.
    pub const INIT: u8 = 1;
    /// Chunk ABORT.
    pub const ABORT: u8 = 6;
    /// Chunk COOKIE ECHO.
    pub const COOKIE_ECHO: u8 = 10;
    /// Chunk COOKIE ACK.
    pub const COOKIE_ACK: u8 = 11;
}
