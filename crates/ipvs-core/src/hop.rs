//! Next hops, and how long one may be remembered.

use core::cell::Cell;

use ipvs_wire::ethernet::Mac;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::addr::{Addr, Family};
use crate::time::Instant;

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
    /// The hop, if it was stored in `epoch`.
    #[inline(always)]
    pub fn at(&self, epoch: u32) -> Option<Hop> {
        (self.epoch.get() == epoch).then(|| self.hop.get())
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

/// The epoch of `now` within the `generation` of routes; never 0.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "16 bits of each are enough to tell apart")]
pub const fn epoch(now: Instant, generation: u32) -> u32 {
    // 2^30 ns: a little more than a second.
    ((now.nanos() >> 30) as u32 & 0xffff) << 16 | (generation & 0xffff) | 1 << 31
}

/// A question to the host's routing table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteQuery {
    /// Family of both addresses.
    pub family: Family,
    /// Where to.
    pub destination: Addr,
    /// Where from.
    pub source: Addr,
}

/// The host's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Through this hop.
    Via(Hop),
    /// Through this interface and gateway (or the destination itself), whose
    /// MAC address is not known yet.
    Unresolved {
        /// Interface.
        ifindex: u32,
        /// Largest IP packet on that route, in octets.
        mtu: u32,
        /// Family of `next`.
        family: Family,
        /// The neighbour to be resolved.
        next: Addr,
    },
    /// The host itself, or the host had better decide.
    Host,
    /// Nowhere: no route, or one that says so.
    Unreachable,
}
