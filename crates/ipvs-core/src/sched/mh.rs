//! mh, Maglev hashing: a table slot by the client's address, and with `mh-port`
//! by its port. The table's rule moves few clients when destinations change.

use super::table::{self, Seat};
use super::{Flow, hash};
use crate::conn::NONE;
use crate::dest::DestId;
use crate::service::{Service, ServiceFlags};
use crate::tables::Tables;

/// Slots: the prime that Debian's kernel is built with.
pub(super) const SLOTS: u32 = 4093;
/// Bits that the largest share of a weight may have.
const SHARE_BITS: u32 = 6;
/// Key of the hash for the first slot of a destination, and for a client's.
const FIRST_KEY: u64 = 2_654_435_761;
/// Key of the hash for the step from slot to slot.
const STEP_KEY: u64 = 2_654_446_892;

#[inline(never)]
pub(super) fn pick<T: Tables>(tables: &T, service: &Service, flow: &Flow) -> DestId {
    let port = if service.has(ServiceFlags::SCHED_2) { flow.client_port } else { 0 };
    let key = hash::folded(flow.client).wrapping_add(u32::from(port));
    let slot = slot_of(key);
    let mut picked = table::usable(tables, service, slot);
    if picked == NONE && table::has_second_choice(tables, service) {
        tables.repeat(SLOTS, |step| {
            let offset = (slot + step) % SLOTS;
            picked = table::usable(tables, service, slot_of(key.wrapping_add(offset)));
            picked == NONE
        });
    }
    picked
}

#[inline(always)]
const fn slot_of(key: u32) -> u32 {
    hash::sip(FIRST_KEY, key) % SLOTS
}

/// Fills the table: in turn each destination takes the next slots of its own
/// order that are still free, as many as its share of the weights says.
/// Returns whether anybody has a share.
pub(super) fn fill(seats: &mut [Seat], slots: &mut [DestId]) -> bool {
    let positive = || seats.iter().map(|seat| seat.last_weight).filter(|weight| *weight != 0);
    let divisor = positive().fold(0, greatest_common_divisor);
    if divisor == 0 {
        return false;
    }
    let largest = positive().max().unwrap_or(0) / divisor;
    let shift = (u32::BITS - largest.leading_zeros()).saturating_sub(SHARE_BITS);
    for seat in &mut *seats {
        let share = (seat.last_weight / divisor) >> shift;
        seat.share = share.max(u32::from(seat.last_weight != 0));
        seat.slot = hash::sip(FIRST_KEY, seat.name) % SLOTS;
        seat.step = hash::sip(STEP_KEY, seat.name) % (SLOTS - 1) + 1;
    }
    let mut free = slots.len();
    while free > 0 {
        for seat in &mut *seats {
            for _ in 0..seat.share {
                if free == 0 {
                    return true;
                }
                seat.take_next(slots);
                free -= 1;
            }
        }
    }
    true
}

impl Seat {
    /// Takes the next free slot of its order: all are in it once, as their
    /// number is prime. One must be free.
    fn take_next(&mut self, slots: &mut [DestId]) {
        for _ in 0..slots.len() {
            if let Some(slot) = slots.get_mut(self.slot as usize)
                && *slot == NONE
            {
                *slot = self.id;
                return;
            }
            self.slot = (self.slot + self.step) % SLOTS;
        }
    }
}

const fn greatest_common_divisor(mut a: u32, mut b: u32) -> u32 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}
