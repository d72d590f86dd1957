//! The hash tables of dh, sh and mh. They follow from the configuration alone:
//! the control side fills one whenever a list changes, packets look into it.

use super::{Candidate, best, hash, mh};
use crate::conn::NONE;
use crate::dest::{Dest, DestId};
use crate::service::{SchedulerKind, Service, ServiceFlags};
use crate::tables::Tables;

/// Slots that planes keep together, and copy as one: a table has one block or more.
pub const BLOCK: u32 = 256;

/// Bits of a slot number of dh and sh.
pub(super) const BITS: u32 = 8;
/// Slots of dh and sh.
pub(super) const SLOTS: u32 = 1 << BITS;

/// How many slots a table of this scheduler has; 0 for one without.
#[must_use]
pub const fn len(kind: SchedulerKind) -> u32 {
    match kind {
        SchedulerKind::DestinationHashing | SchedulerKind::SourceHashing => SLOTS,
        SchedulerKind::MaglevHashing => mh::SLOTS,
        _ => 0,
    }
}

/// How many destinations a service with this scheduler may have when the
/// scheduler is bound to it.
#[must_use]
pub const fn max_dests(kind: SchedulerKind) -> u32 {
    match kind {
        SchedulerKind::MaglevHashing => mh::SLOTS,
        _ => u32::MAX,
    }
}

/// A destination as it takes its slots.
#[derive(Clone, Copy, Debug)]
pub struct Seat {
    pub(super) id: DestId,
    pub(super) weight: u32,
    pub(super) last_weight: u32,
    /// Address and port as one number.
    pub(super) name: u32,
    /// mh: how many slots it takes in its turn.
    pub(super) share: u32,
    /// mh: where its search goes on.
    pub(super) slot: u32,
    /// mh: how far it goes from one slot to the next.
    pub(super) step: u32,
}

impl Seat {
    /// The destination with its last weight that was not zero: an edit to 0
    /// leaves it as it was, a destination that is added with 0 has 0.
    #[must_use]
    pub fn new(id: DestId, dest: &Dest, last_weight: u32) -> Self {
        Self {
            id,
            weight: dest.spec.weight.unsigned_abs(),
            last_weight,
            name: hash::folded(dest.key.addr).wrapping_add(u32::from(dest.key.port)),
            share: 0,
            slot: 0,
            step: 0,
        }
    }
}

/// Fills a table of [`len`] slots for the destinations in `seats`, newest
/// first; returns whether anybody got a slot.
pub fn fill(kind: SchedulerKind, seats: &mut [Seat], slots: &mut [DestId]) -> bool {
    slots.fill(NONE);
    match kind {
        // In turn one slot each, whatever the weight.
        SchedulerKind::DestinationHashing => {
            fill_in_turn(seats, slots, |_| 1);
        }
        // In turn as many as the weight says; a quiescent one keeps one slot.
        SchedulerKind::SourceHashing => fill_in_turn(seats, slots, |seat| seat.weight.max(1)),
        SchedulerKind::MaglevHashing => return mh::fill(seats, slots),
        _ => return false,
    }
    !seats.is_empty()
}

fn fill_in_turn(seats: &[Seat], slots: &mut [DestId], share: impl Fn(&Seat) -> u32) {
    let shares = seats.iter().cycle().flat_map(|seat| (0..share(seat)).map(|_| seat.id));
    for (slot, id) in slots.iter_mut().zip(shares) {
        *slot = id;
    }
}

/// The destination in `slot` of the service's table, or [`NONE`] if it may not
/// be used.
#[inline(always)]
pub(super) fn usable<T: Tables>(tables: &T, service: &Service, slot: u32) -> DestId {
    if service.table != NONE
        && let Some(id) = tables.slot(service.table, slot)
        && let Some(dest) = tables.dest(id)
        // A table that its list outgrew may name one that has left.
        && dest.is_available()
        && dest.service == service.id
        && let Some(load) = tables.load(id)
        && Candidate::new(id, dest, load).is_usable()
    {
        return id;
    }
    NONE
}

/// Whether slots are tried in turn for the one that cannot be used: if the
/// service is to fall back, and has anybody to fall back on.
#[inline(always)]
pub(super) fn has_second_choice<T: Tables>(tables: &T, service: &Service) -> bool {
    // Without the second test many slots were looked at for every packet to a service whose
    // destinations are all quiescent or overloaded.
    service.has(ServiceFlags::SCHED_1) && best(tables, service, |_, _| false) != NONE
}
