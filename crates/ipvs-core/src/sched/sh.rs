//! sh, source hashing: a table slot by the client's address, and with `sh-port`
//! by its port.

use super::table::{self, BITS, SLOTS};
use super::{Flow, hash};
use crate::conn::NONE;
use crate::dest::DestId;
use crate::service::{Service, ServiceFlags};
use crate::tables::Tables;

#[inline(never)]
pub(super) fn pick<T: Tables>(tables: &T, service: &Service, flow: &Flow) -> DestId {
    let port = if service.has(ServiceFlags::SCHED_2) { flow.client_port } else { 0 };
    let key = hash::folded(flow.client).wrapping_add(u32::from(port));
    let slot = hash::multiplicative(key, BITS);
    let mut picked = table::usable(tables, service, slot);
    if picked == NONE && table::has_second_choice(tables, service) {
        // The search begins at twice the slot, not behind it.
        tables.repeat(SLOTS, |step| {
            picked = table::usable(tables, service, (slot * 2 + step) % SLOTS);
            picked == NONE
        });
    }
    picked
}
