//! Virtual services: key, configuration and the record the data planes read.

use core::fmt;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::addr::{Addr, Family};
use crate::name::Name;

/// Key of a virtual service: protocol, address and port, or a firewall mark.
///
/// There is no padding: the kernel hashes every octet of a map key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ServiceKey {
    /// Virtual address; unspecified for a firewall-mark service.
    pub addr: Addr,
    /// Firewall mark, host order; 0 for a service by address.
    pub fwmark: u32,
    /// Virtual port, host order; 0 means every port.
    pub port: u16,
    /// IANA protocol number; 0 for a firewall-mark service.
    pub protocol: u8,
    /// [`Family::tag`].
    pub family: u8,
}

const _: () = assert!(size_of::<ServiceKey>() == 24);

impl ServiceKey {
    /// Key of a service by protocol, address and port.
    #[inline(always)]
    pub const fn address(family: Family, protocol: u8, addr: Addr, port: u16) -> Self {
        Self { addr, fwmark: 0, port, protocol, family: family.tag() }
    }

    /// Key of a service by firewall mark.
    #[inline(always)]
    pub const fn fwmark(family: Family, fwmark: u32) -> Self {
        Self { addr: Addr::UNSPECIFIED, fwmark, port: 0, protocol: 0, family: family.tag() }
    }

    /// Address family.
    #[inline(always)]
    pub const fn family(&self) -> Family {
        Family::from_tag(self.family)
    }

    /// Whether this is a firewall-mark service.
    #[inline(always)]
    pub const fn is_fwmark(&self) -> bool {
        self.fwmark != 0
    }
}

impl fmt::Debug for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_fwmark() {
            return write!(f, "fwmark {} v{}", self.fwmark, self.family);
        }
        write!(f, "proto {} {} port {}", self.protocol, self.addr.to_ip(self.family()), self.port)
    }
}

/// What a user says about a service besides its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ServiceSpec {
    /// Scheduler by ipvsadm's name; `none` binds no scheduler.
    pub scheduler: Name,
    /// Persistence engine; empty for none.
    pub engine: Name,
    /// [`ServiceFlags`] bits; unknown ones are kept and reported.
    pub flags: u32,
    /// Persistence template lifetime, in seconds.
    pub timeout: u32,
    /// Persistence granularity: an IPv4 netmask as its four octets, or an IPv6
    /// prefix length in the first four octets as a native `u32`.
    pub netmask: [u8; 4],
}

const _: () = assert!(size_of::<ServiceSpec>() == 44);

/// Bits of [`ServiceSpec::flags`], with the kernel's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceFlags;

impl ServiceFlags {
    /// Uses persistence templates.
    pub const PERSISTENT: u32 = 0x01;
    /// Is in the table; always reported set.
    pub const HASHED: u32 = 0x02;
    /// One-packet scheduling, for UDP.
    pub const ONE_PACKET: u32 = 0x04;
    /// First flag of the scheduler (sh-fallback, mh-fallback).
    pub const SCHED_1: u32 = 0x08;
    /// Second flag of the scheduler (sh-port, mh-port).
    pub const SCHED_2: u32 = 0x10;
    /// Third flag of the scheduler.
    pub const SCHED_3: u32 = 0x20;
}
