//! Header views, in-place edits and checksums of Ethernet, IP and transport
//! headers. Knows no IPVS.
//!
//! Everything is generic over [`Buffer`], which says how octets are reached: a
//! slice in user space, checked pointers in an eBPF program.

#![no_std]
#![forbid(unsafe_code)]

pub mod buffer;
pub mod checksum;
pub mod crc32c;
pub mod ethernet;
pub mod headers;
pub mod icmp;
pub mod ipv4;
pub mod ipv6;
pub mod transport;
pub mod tunnel;

pub use buffer::{Buffer, Outer};
pub use headers::{Fragment, Headers, ParseError};
