//! Virtual services: key, configuration and the record the data planes read.

use core::fmt;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::addr::{Addr, Family};
use crate::name::Name;

/// Key of a virtual service: protocol, address and port, or a firewall mark.
///
/// There is no padding: the kernel hashes every octet of a map key.
#[derive(
    Clone, Copy, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
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

/// The schedulers, numbered as records have them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum SchedulerKind {
    /// `none`: never finds a destination.
    None = 0,
    /// Round robin.
    RoundRobin = 1,
    /// Weighted round robin.
    WeightedRoundRobin = 2,
    /// Least connection.
    LeastConnection = 3,
    /// Weighted least connection.
    WeightedLeastConnection = 4,
    /// Shortest expected delay.
    ShortestExpectedDelay = 5,
    /// Never queue.
    NeverQueue = 6,
    /// Weighted failover.
    Failover = 7,
    /// Overflow connection.
    Overflow = 8,
    /// Destination hashing.
    DestinationHashing = 9,
    /// Source hashing.
    SourceHashing = 10,
    /// Maglev hashing.
    MaglevHashing = 11,
    /// Power of two choices.
    PowerOfTwo = 12,
    /// Locality-based least connection.
    LocalityBased = 13,
    /// Locality-based least connection with replication.
    LocalityBasedReplicated = 14,
}

impl SchedulerKind {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::None,
        Self::RoundRobin,
        Self::WeightedRoundRobin,
        Self::LeastConnection,
        Self::WeightedLeastConnection,
        Self::ShortestExpectedDelay,
        Self::NeverQueue,
        Self::Failover,
        Self::Overflow,
        Self::DestinationHashing,
        Self::SourceHashing,
        Self::MaglevHashing,
        Self::PowerOfTwo,
        Self::LocalityBased,
        Self::LocalityBasedReplicated,
    ];

    /// ipvsadm's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::RoundRobin => "rr",
            Self::WeightedRoundRobin => "wrr",
            Self::LeastConnection => "lc",
            Self::WeightedLeastConnection => "wlc",
            Self::ShortestExpectedDelay => "sed",
            Self::NeverQueue => "nq",
            Self::Failover => "fo",
            Self::Overflow => "ovf",
            Self::DestinationHashing => "dh",
            Self::SourceHashing => "sh",
            Self::MaglevHashing => "mh",
            Self::PowerOfTwo => "twos",
            Self::LocalityBased => "lblc",
            Self::LocalityBasedReplicated => "lblcr",
        }
    }

    /// The scheduler of this name.
    pub fn by_name(name: &Name) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.name() == name.as_str())
    }

    /// The scheduler with this number in a record.
    #[inline(always)]
    pub const fn from_number(number: u32) -> Self {
        match number {
            1 => Self::RoundRobin,
            2 => Self::WeightedRoundRobin,
            3 => Self::LeastConnection,
            4 => Self::WeightedLeastConnection,
            5 => Self::ShortestExpectedDelay,
            6 => Self::NeverQueue,
            7 => Self::Failover,
            8 => Self::Overflow,
            9 => Self::DestinationHashing,
            10 => Self::SourceHashing,
            11 => Self::MaglevHashing,
            12 => Self::PowerOfTwo,
            13 => Self::LocalityBased,
            14 => Self::LocalityBasedReplicated,
            _ => Self::None,
        }
    }
}

/// The service as a data plane reads it; replaced as a whole by an edit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Service {
    /// Its key.
    pub key: ServiceKey,
    /// Its configuration.
    pub spec: ServiceSpec,
    /// Its place: of the scheduler's word, among others.
    pub id: u32,
    /// Number of the [`SchedulerKind`].
    pub scheduler: u32,
    /// First place of its destinations in the member lists, oldest first.
    pub first: u32,
    /// How many destinations it has.
    pub len: u32,
    /// Greatest common divisor of the positive weights; 1 if there is none.
    pub weight_gcd: u32,
    /// Largest weight, less the divisor, plus 1: where weighted round robin
    /// starts; 0 if no weight is positive.
    pub weight_top: u32,
    /// First block of its scheduler's hash table, or the place of its cache;
    /// [`NONE`](crate::conn::NONE) without one.
    pub table: u32,
    /// Number of the persistence [engine](crate::engine).
    pub engine: u32,
}

const _: () = assert!(size_of::<Service>() == 100);

impl Service {
    /// The scheduler.
    #[inline(always)]
    pub const fn kind(&self) -> SchedulerKind {
        SchedulerKind::from_number(self.scheduler)
    }

    /// Whether `flag` of [`ServiceFlags`] is set.
    #[inline(always)]
    pub const fn has(&self, flag: u32) -> bool {
        self.spec.flags & flag != 0
    }

    /// Place in the member lists of the destination at `position` of the
    /// service's list, which begins with the newest.
    #[inline(always)]
    pub const fn place(&self, position: u32) -> u32 {
        self.first.wrapping_add(self.len.wrapping_sub(1)).wrapping_sub(position)
    }
}
