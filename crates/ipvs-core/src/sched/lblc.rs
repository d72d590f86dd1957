//! lblc, locality-based least connection: packets to one address go to one
//! destination, as long as that is not busy while another has little to do.

use super::{Flow, cache, candidate, wlc};
use crate::conn::NONE;
use crate::dest::DestId;
use crate::service::Service;
use crate::tables::Tables;

#[inline(never)]
pub(super) fn pick<T: Tables>(tables: &T, service: &Service, flow: &Flow) -> DestId {
    if let Some(entry) = cache::entry(tables, service, flow.destination, flow.now)
        && let Some(id) = entry.first()
        && let Some(dest) = tables.dest(id)
        // The overload mark is not looked at.
        && dest.is_available()
        && dest.service == service.id
        && dest.spec.weight > 0
        && !is_busy(tables, service, id)
    {
        return id;
    }
    let id = wlc::pick(tables, service);
    if id != NONE {
        cache::remember(tables, service, flow.destination, id, flow.now, true);
    }
    id
}

/// Whether the destination has more active connections than weight while
/// another of the service has fewer than half of its own.
#[inline(always)]
pub(super) fn is_busy<T: Tables>(tables: &T, service: &Service, id: DestId) -> bool {
    let (Some(dest), Some(load)) = (tables.dest(id), tables.load(id)) else { return true };
    if load.active.get() <= dest.spec.weight.unsigned_abs() {
        return false;
    }
    let mut found = 0;
    tables.repeat(service.len, |position| {
        if candidate(tables, service, position)
            .is_some_and(|other| u64::from(other.active) * 2 < u64::from(other.weight))
        {
            found = 1;
        }
        found == 0
    });
    found != 0
}
