//! Schedulers: which destination gets a new connection. One file each.
//!
//! A service's list begins with the destination added last, and every walk
//! goes in that order: so rr starts with the newest, and of equals the newest
//! wins (recorded on 6.1).
//!
//! Walks keep what they found as a plain number, [`NONE`] for nothing: the
//! verifier does not follow an `Option` whose content is written in one
//! callback and read after another.

pub mod cache;
mod dh;
mod flow;
mod fo;
mod hash;
mod lblc;
mod lblcr;
mod lc;
mod mh;
mod nq;
mod ovf;
mod rr;
mod sed;
mod sh;
pub mod table;
mod twos;
mod wlc;
mod wrr;

pub use flow::Flow;
pub use wrr::recomputed as wrr_recomputed;

use crate::conn::NONE;
use crate::dest::{Dest, DestId, Load};
use crate::service::{SchedulerKind, Service};
use crate::tables::Tables;

/// Attempts of rr and wrr to store where they are.
///
/// One fails only because another CPU has stored its own pick meanwhile, and
/// the next goes on from there: so no two picks are the same step. A packet that
/// loses this often in a row, each time to a pick that was begun and ended
/// during its own, shares a step rather than wait without end.
const ATTEMPTS: u32 = 1 << 12;

/// A destination as a scheduler sees it.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    id: DestId,
    weight: u32,
    active: u32,
    inactive: u32,
    overloaded: bool,
}

impl Candidate {
    const NOBODY: Self = Self { id: NONE, weight: 0, active: 0, inactive: 0, overloaded: false };

    #[inline(always)]
    fn new(id: DestId, dest: &Dest, load: &Load) -> Self {
        Self {
            id,
            // A negative weight is refused when it is set.
            weight: dest.spec.weight.unsigned_abs(),
            active: load.active.get(),
            inactive: load.inactive.get(),
            overloaded: load.overloaded.get() != 0,
        }
    }

    /// Neither quiescent nor overloaded.
    #[inline(always)]
    const fn is_usable(&self) -> bool {
        self.weight > 0 && !self.overloaded
    }

    /// Whether this one's expected delay, `(active + 1) / weight`, is the longer one.
    #[inline(always)]
    const fn delays_longer_than(&self, other: &Self) -> bool {
        (self.active as u64 + 1) * other.weight as u64
            > (other.active as u64 + 1) * self.weight as u64
    }

    /// Weight and load by connections, as one number: the verifier wants no more
    /// of the stack.
    #[inline(always)]
    const fn terms(&self) -> u64 {
        (self.weight as u64) << 32 | self.overhead() as u64
    }

    /// Load by connections: an active one weighs as 256 inactive ones.
    #[inline(always)]
    const fn overhead(&self) -> u32 {
        self.active.wrapping_shl(8).wrapping_add(self.inactive)
    }
}

/// The destination for a new connection of `service` by the packets of `flow`,
/// or [`NONE`] if none may be used.
///
/// Those with much to keep in mind are functions of their own, one call away:
/// a whole chain of calls has 512 octets of stack.
#[inline(always)]
pub fn pick<T: Tables>(tables: &T, service: &Service, flow: &Flow) -> DestId {
    match service.kind() {
        SchedulerKind::DestinationHashing => dh::pick(tables, service, flow),
        SchedulerKind::SourceHashing => sh::pick(tables, service, flow),
        SchedulerKind::MaglevHashing => mh::pick(tables, service, flow),
        SchedulerKind::LocalityBased => lblc::pick(tables, service, flow),
        SchedulerKind::LocalityBasedReplicated => lblcr::pick(tables, service, flow),
        SchedulerKind::PowerOfTwo => twos::pick(tables, service, flow),
        _ => walk(tables, service),
    }
}

/// The same by a scheduler that looks at the list alone.
#[inline(never)]
fn walk<T: Tables>(tables: &T, service: &Service) -> DestId {
    match service.kind() {
        SchedulerKind::RoundRobin => rr::pick(tables, service),
        SchedulerKind::WeightedRoundRobin => wrr::pick(tables, service),
        SchedulerKind::LeastConnection => lc::pick(tables, service),
        SchedulerKind::WeightedLeastConnection => wlc::pick(tables, service),
        SchedulerKind::ShortestExpectedDelay => sed::pick(tables, service),
        SchedulerKind::NeverQueue => nq::pick(tables, service),
        SchedulerKind::Failover => fo::pick(tables, service),
        SchedulerKind::Overflow => ovf::pick(tables, service),
        _ => NONE,
    }
}

/// The destination at `position` of the service's list.
#[inline(always)]
fn candidate<T: Tables>(tables: &T, service: &Service, position: u32) -> Option<Candidate> {
    let id = tables.member(service.place(position))?;
    Some(Candidate::new(id, tables.dest(id)?, tables.load(id)?))
}

/// Walks the service's list from the newest and keeps a usable destination
/// until `better(best, other)` prefers another.
#[inline(always)]
fn best<T: Tables>(
    tables: &T,
    service: &Service,
    better: impl Fn(&Candidate, &Candidate) -> bool,
) -> DestId {
    best_of(tables, service, |_| true, better)
}

/// As [`best`], among those that are `eligible` besides being usable.
#[inline(always)]
fn best_of<T: Tables>(
    tables: &T,
    service: &Service,
    eligible: impl Fn(&Candidate) -> bool,
    better: impl Fn(&Candidate, &Candidate) -> bool,
) -> DestId {
    let mut best = Candidate::NOBODY;
    tables.repeat(service.len, |position| {
        if let Some(other) = candidate(tables, service, position)
            && other.is_usable()
            && eligible(&other)
            && (best.id == NONE || better(&best, &other))
        {
            best = other;
        }
        true
    });
    best.id
}

/// The scheduler's memory as an edit of the list leaves it.
///
/// Positions count from the oldest destination, so that adding one moves none.
pub mod memory {
    /// The place of the cursor, counted from the oldest; `None` before the first pick.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "the low half is the cursor")]
    pub const fn cursor(word: u64) -> Option<u32> {
        (word as u32).checked_sub(1)
    }

    /// `word` with another cursor.
    #[inline(always)]
    #[must_use]
    pub const fn with_cursor(word: u64, cursor: Option<u32>) -> u64 {
        let low = match cursor {
            Some(place) => place.wrapping_add(1),
            None => 0,
        };
        word & !0xffff_ffff | low as u64
    }

    /// The word after the destination at `removed` left a list of `len`: a
    /// cursor on it moves to its newer neighbour, or to the head of the list.
    #[must_use]
    pub const fn after_removal(word: u64, removed: u32, len: u32) -> u64 {
        match cursor(word) {
            Some(place) if place > removed => with_cursor(word, Some(place - 1)),
            Some(place) if place == removed && removed + 1 == len => with_cursor(word, None),
            _ => word,
        }
    }
}
