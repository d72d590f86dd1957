//! The caches of lblc and lblcr: where packets to an address went, and when.
//!
//! Packets write them. One map holds the entries of all services; each service
//! has a [`Cache`] of its own that counts them and knows when to clear up.

use core::cell::Cell;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::addr::Addr;
use crate::dest::DestId;
use crate::service::{SchedulerKind, Service};
use crate::settings::Settings;
use crate::tables::Tables;
use crate::time::Instant;
use crate::verdict::Reason;

/// Destinations that one entry holds, a power of two: an entry takes 256 octets
/// of the kernel's memory then. The kernel's own lblcr has no limit.
pub const MEMBERS: u32 = 32;

const SECOND: u64 = 1_000_000_000;
/// Between two turns of the housekeeping.
const PERIOD: u64 = 60 * SECOND;
/// Turns of which the last one is thorough.
const TURNS: u64 = 30;
/// Entries above which every turn removes some.
const MANY: u32 = 16_384;
/// The most that one such turn removes.
const MOST: u32 = MANY / 2;
/// How long an entry is unused before such a turn may remove it.
const UNUSED: u64 = 360 * SECOND;

/// Key of an entry.
///
/// There is no padding: the kernel hashes every octet of a map key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CacheKey {
    /// The address that packets are for.
    pub addr: Addr,
    /// Place of the service's cache.
    pub cache: u32,
}

const _: () = assert!(size_of::<CacheKey>() == 20);

/// An entry: the destinations for an address. All zero, it has none.
///
/// CPUs that change it at the same moment may lose or double a member. That
/// makes a worse cache, and no wrong pick: every member is looked at when used.
#[derive(Debug, Default, FromBytes, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct Cached {
    /// When it was used last, in nanoseconds of the plane's clock.
    pub used: Cell<u64>,
    /// When a member came or went last, in nanoseconds of the plane's clock.
    pub changed: Cell<u64>,
    /// The members from the oldest to the newest, each one more than its
    /// [`DestId`]; 0 behind them.
    members: [Cell<u32>; MEMBERS as usize],
}

const _: () = assert!(size_of::<Cached>() == 144);

impl Cached {
    /// The members, oldest first.
    pub fn dests(&self) -> impl Iterator<Item = DestId> {
        self.members.iter().filter_map(|member| member.get().checked_sub(1))
    }

    /// Takes everything out.
    pub fn clear(&self) {
        self.used.set(0);
        self.changed.set(0);
        self.members.iter().for_each(|member| member.set(0));
    }

    /// The oldest member: of lblc, the only one.
    #[inline(always)]
    pub(super) fn first(&self) -> Option<DestId> {
        let [first, ..] = &self.members;
        first.get().checked_sub(1)
    }

    /// The member at `position` from the newest of a full set.
    #[inline(always)]
    pub(super) fn member(&self, position: u32) -> Option<DestId> {
        self.at((MEMBERS - 1).wrapping_sub(position)).get().checked_sub(1)
    }

    /// The member at `place` from the oldest.
    #[inline(always)]
    #[expect(clippy::indexing_slicing, reason = "the index is masked to the set's places")]
    fn at(&self, place: u32) -> &Cell<u32> {
        // The verifier wants to see the mask, although no place lies beyond.
        &self.members[core::hint::black_box(place) as usize & (MEMBERS as usize - 1)]
    }

    /// Whether there is more than one member.
    #[inline(always)]
    pub(super) fn has_several(&self) -> bool {
        let [_, second, ..] = &self.members;
        second.get() != 0
    }

    /// Makes `id` the only member.
    #[inline(always)]
    fn set(&self, id: DestId) {
        let [first, ..] = &self.members;
        first.set(id.wrapping_add(1));
    }

    /// Adds `id` as the newest member unless it is one; of a full set the
    /// oldest has to go.
    #[inline(always)]
    fn add<T: Tables>(&self, tables: &T, id: DestId, now: Instant) {
        let word = id.wrapping_add(1);
        let mut done = 0;
        tables.repeat(MEMBERS, |place| {
            let member = self.at(place);
            if member.get() == word {
                done = 1;
            } else if member.get() == 0 && tables.replace(member, 0, word) {
                self.changed.set(now.nanos());
                done = 1;
            }
            done == 0
        });
        if done == 0 {
            self.close_gap(tables, 0);
            let [.., newest] = &self.members;
            newest.set(word);
            self.changed.set(now.nanos());
        }
    }

    /// Removes `id`.
    #[inline(always)]
    pub(super) fn remove<T: Tables>(&self, tables: &T, id: DestId, now: Instant) {
        let word = id.wrapping_add(1);
        let mut gap = MEMBERS;
        tables.repeat(MEMBERS, |place| {
            if self.at(place).get() == word {
                gap = place;
            }
            gap == MEMBERS
        });
        self.close_gap(tables, gap);
        self.changed.set(now.nanos());
    }

    /// Moves the members behind `gap` one towards the oldest.
    #[inline(always)]
    fn close_gap<T: Tables>(&self, tables: &T, gap: u32) {
        tables.repeat(MEMBERS, |place| {
            if place >= gap {
                let next = if place + 1 < MEMBERS { self.at(place + 1).get() } else { 0 };
                self.at(place).set(next);
            }
            true
        });
    }
}

/// What a service's cache keeps besides its entries. All zero, it was never
/// used, nor was any behind it.
#[derive(Debug, Default, FromBytes, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct Cache {
    /// When its next turn is due, in nanoseconds of the plane's clock.
    pub turn_at: Cell<u64>,
    /// Number of the scheduler whose it is, or [`Cache::CLOSED`].
    pub scheduler: Cell<u32>,
    /// Its entries.
    pub entries: Cell<u32>,
    /// The number of its next turn, from 1; the last one is thorough.
    pub turn: Cell<u32>,
    /// Zero.
    pub reserved: Cell<u32>,
}

const _: () = assert!(size_of::<Cache>() == 24);

impl Cache {
    /// In place of a scheduler: nobody's.
    pub const CLOSED: u32 = u32::MAX;

    /// Whether a service has it.
    pub fn is_open(&self) -> bool {
        !matches!(self.scheduler.get(), 0 | Self::CLOSED)
    }
}

/// Whether the scheduler keeps a cache.
#[must_use]
pub const fn is_kept_by(kind: SchedulerKind) -> bool {
    matches!(kind, SchedulerKind::LocalityBased | SchedulerKind::LocalityBasedReplicated)
}

/// The service's entry for `addr`, which is used now.
#[inline(always)]
pub(super) fn entry<'t, T: Tables>(
    tables: &'t T,
    service: &Service,
    addr: Addr,
    now: Instant,
) -> Option<&'t Cached> {
    let entry = tables.cached(&CacheKey { addr, cache: service.table })?;
    entry.used.set(now.nanos());
    Some(entry)
}

/// Remembers that packets to `addr` go to the destination: besides others, or
/// alone. Without room they go there all the same.
#[inline(always)]
pub(super) fn remember<T: Tables>(
    tables: &T,
    service: &Service,
    addr: Addr,
    id: DestId,
    now: Instant,
    alone: bool,
) {
    let key = CacheKey { addr, cache: service.table };
    if tables.make_cached(&key)
        && let Some(cache) = tables.cache(service.table)
    {
        tables.add(&cache.entries, 1);
    }
    let Some(entry) = tables.cached(&key) else {
        tables.count(Reason::CacheFull);
        return;
    };
    entry.used.set(now.nanos());
    if alone {
        entry.set(id);
    } else {
        entry.add(tables, id, now);
    }
}

/// Makes the cache at `place` an empty one of a service with this scheduler.
#[inline(always)]
pub fn open<T: Tables>(tables: &T, place: u32, scheduler: u32, now: Instant) {
    close(tables, place);
    let Some(cache) = tables.cache(place) else { return };
    cache.turn.set(1);
    cache.turn_at.set(now.nanos().wrapping_add(PERIOD));
    cache.scheduler.set(scheduler);
}

/// Empties the cache at `place`, which is nobody's any more.
#[inline(always)]
pub fn close<T: Tables>(tables: &T, place: u32) {
    let Some(cache) = tables.cache(place) else { return };
    cache.scheduler.set(Cache::CLOSED);
    forget(tables, place, u64::MAX, u32::MAX);
    cache.entries.set(0);
}

/// Takes the turns that are due, of all caches.
#[inline(always)]
pub fn tend<T: Tables>(tables: &T, now: Instant) {
    tables.repeat(u32::MAX, |place| {
        let Some(cache) = tables.cache(place) else { return false };
        if cache.is_open() && now.nanos() >= cache.turn_at.get() {
            turn(tables, place, now);
        }
        cache.scheduler.get() != 0
    });
}

/// Takes the turn that is due, and those that have become due after it. Always
/// true: an eBPF function must return a number.
#[inline(never)]
fn turn<T: Tables>(tables: &T, place: u32, now: Instant) -> bool {
    let Some(cache) = tables.cache(place) else { return true };
    let due = cache.turn_at.get();
    let more = now.nanos().saturating_sub(due) / PERIOD;
    let next = due.wrapping_add((more + 1) * PERIOD);
    // Somebody else may take it at the same moment.
    if !tables.replace64(&cache.turn_at, due, next) {
        return true;
    }
    let number = u64::from(cache.turn.get());
    let last = number + more;
    let thorough = last / TURNS * TURNS;
    let entries = cache.entries.get();
    if thorough != 0 {
        // The last thorough one finds whatever an earlier one would have.
        let at = due.wrapping_add(thorough.saturating_sub(number) * PERIOD);
        let expiration = expiration(tables.settings(), cache.scheduler.get());
        forget_unused(tables, place, at, expiration, u32::MAX);
    } else if entries > MANY {
        // A third more than the surplus.
        let surplus = (entries - MANY).min(MOST);
        let most = (surplus * 4 / 3).min(MOST);
        forget_unused(tables, place, now.nanos(), UNUSED, most);
        // A turn that is taken up with this does not count.
        return true;
    }
    cache.turn.set((last % TURNS) as u32 + 1);
    true
}

/// After what time without use an entry goes, in nanoseconds.
#[inline(always)]
const fn expiration(settings: &Settings, scheduler: u32) -> u64 {
    let seconds = match SchedulerKind::from_number(scheduler) {
        SchedulerKind::LocalityBased => settings.lblc_expiration,
        _ => settings.lblcr_expiration,
    };
    seconds as u64 * SECOND
}

/// Removes `most` entries of a cache that, at the moment `at`, were not used for
/// `time`, both in nanoseconds.
#[inline(always)]
fn forget_unused<T: Tables>(tables: &T, place: u32, at: u64, time: u64, most: u32) {
    // Before that time has gone by on the clock, nothing is unused for so long.
    if let Some(since) = at.checked_sub(time) {
        forget(tables, place, since, most);
    }
}

/// Removes `most` entries of a cache that were not used after `since`.
#[inline(always)]
fn forget<T: Tables>(tables: &T, place: u32, since: u64, most: u32) {
    let Some(cache) = tables.cache(place) else { return };
    let mut left = most;
    tables.each_cached(|key, entry| {
        if key.cache == place && entry.used.get() <= since && tables.forget_cached(key) {
            tables.add(&cache.entries, u32::MAX);
            left = left.wrapping_sub(1);
        }
        left != 0
    });
}
