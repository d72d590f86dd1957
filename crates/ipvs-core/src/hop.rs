//! Next hops, and how long one may be remembered.

use core::cell::Cell;

use ipvs_wire::ethernet::Mac;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::addr::{Addr, Family};
use crate::time::Instant;

/// Ethernet address of the host's own side of the door by which a plane hands it packets.
/// Local, and in every network namespace the same, since there is no wire on which two
/// could meet.
pub const HOST_DOOR: Mac = *b"\x02ipvs\x00";

/// Where a packet leaves: the interface, and the addresses of its frame.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Hop {
    /// Interface.
    pub ifindex: u32,
    /// Largest IP packet on that route, in octets.
    pub mtu: u32,
    /// MAC address of the neighbour.
    pub neighbour: Mac,
    /// MAC address of the interface.
    pub own: Mac,
}

/// A [`Hop`] as of some moment.
///
/// A route lookup costs about as much as everything else that is done for a
/// packet, so its result is kept for one generation of routes (the daemon
/// counts it up when it hears of a change) and for about a second at most (so
/// that a change is followed with the daemon dead).
#[derive(Debug, Default, FromBytes, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct CachedHop {
    hop: Cell<Hop>,
    epoch: Cell<u32>,
}

impl CachedHop {
    /// Makes `way` the hop, if it was stored in `epoch`.
    #[inline(always)]
    pub fn recall(&self, epoch: u32, way: &mut Way) -> bool {
        let known = self.epoch.get() == epoch;
        if known {
            way.hop = self.hop.get();
            way.kind = WayKind::Known;
        }
        known
    }

    /// Keeps `hop` for `epoch`.
    #[inline(always)]
    pub fn store(&self, hop: Hop, epoch: u32) {
        self.epoch.set(0);
        self.hop.set(hop);
        self.epoch.set(epoch);
    }

    /// Forgets the hop.
    #[inline(always)]
    pub fn clear(&self) {
        self.epoch.set(0);
    }
}

/// How long a path's MTU is believed to be what an error said (Linux's `mtu_expires`).
const PATH_MTU_LIFE: u64 = 600_000_000_000;
/// The least that an error is believed to say, over IPv4 (Linux's `min_pmtu`), …
const LEAST_V4: u32 = 552;
/// … and over IPv6 (RFC 8201, section 4).
const LEAST_V6: u32 = 1280;

/// The MTU of a path, as an error has said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PathMtu {
    until: u64,
    /// Octets of an IP packet.
    pub(crate) mtu: u32,
    reserved: u32,
}

impl PathMtu {
    /// What an error says, of a path of which `known` was known: nothing if that is less.
    #[inline(always)]
    pub const fn learnt(family: Family, said: u32, known: u32, now: Instant) -> Option<Self> {
        let least = match family {
            Family::V4 => LEAST_V4,
            Family::V6 => LEAST_V6,
        };
        let mtu = if said < least { least } else { said };
        if mtu >= known {
            return None;
        }
        Some(Self { until: now.nanos().wrapping_add(PATH_MTU_LIFE), mtu, reserved: 0 })
    }

    /// The MTU, as long as it is believed.
    #[inline(always)]
    pub const fn believed(&self, now: Instant) -> Option<u32> {
        if now.nanos() < self.until { Some(self.mtu) } else { None }
    }
}

/// The epoch of `now` within the `generation` of routes; never 0.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "16 bits of each are enough to tell apart")]
pub const fn epoch(now: Instant, generation: u32) -> u32 {
    // 2^30 ns: a little more than a second.
    ((now.nanos() >> 30) as u32 & 0xffff) << 16 | (generation & 0xffff) | 1 << 31
}

/// Whose route says something of the MTU, for a lookup by the longest prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MtuKey {
    /// See [`Family::tag`]; in front, so that no prefix is of both families.
    family: u32,
    addr: [u32; 4],
}

impl MtuKey {
    /// Bits of the family, which are always looked at.
    pub const FAMILY_BITS: u32 = 32;
    /// Bits of a whole key.
    pub const BITS: u32 = Self::FAMILY_BITS + 128;

    /// That of an address, or of a prefix.
    #[inline(always)]
    pub const fn of(family: Family, addr: Addr) -> Self {
        Self { family: family.tag() as u32, addr: addr.words() }
    }
}

/// A question to the host's routing table.
///
/// Aligned because the compiler moves addresses by eight octets, which the
/// verifier takes on the stack at multiples of eight only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct RouteQuery {
    /// Where to.
    pub destination: Addr,
    /// Where from.
    pub source: Addr,
    /// Family of both addresses.
    pub family: Family,
}

/// What is known of the way to an address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u32)]
pub enum WayKind {
    /// There is none.
    #[default]
    None,
    /// Through [`Way::hop`].
    Known,
    /// Through the interface of [`Way::hop`], to the neighbour [`Way::next`],
    /// whose MAC address is to be found out.
    Unresolved,
    /// The host itself, or the host had better decide.
    Host,
}

/// The host's answer to a [`RouteQuery`].
///
/// A plain record that is filled in place, not an enum with contents: the
/// verifier does not follow contents that are there in one case only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Way {
    /// How much is known.
    pub kind: WayKind,
    /// Interface and MTU unless there is no way; MAC addresses if known.
    pub hop: Hop,
    /// The neighbour to be resolved.
    pub next: Addr,
    /// Its family.
    pub next_family: Family,
}

impl Way {
    /// Whether only a plane that [resolves](crate::tables::Tables::RESOLVES) can go
    /// this way.
    #[inline(always)]
    pub const fn needs_host(&self) -> bool {
        matches!(self.kind, WayKind::Unresolved | WayKind::Host)
    }

    /// Largest IP packet on the way, in octets; no limit where that is open.
    #[inline(always)]
    pub const fn mtu(&self) -> u32 {
        match self.kind {
            WayKind::Known | WayKind::Unresolved => self.hop.mtu,
            WayKind::Host | WayKind::None => u32::MAX,
        }
    }
}
