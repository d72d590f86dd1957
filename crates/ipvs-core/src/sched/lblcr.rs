//! lblcr, locality-based least connection with replication: as lblc, but an
//! address has a set of destinations that grows when they are busy, and shrinks
//! when it has not grown for long.

use super::cache::{self, Cached, MEMBERS};
use super::{Candidate, Flow, lblc, wlc};
use crate::conn::NONE;
use crate::dest::{Dest, DestId};
use crate::service::Service;
use crate::tables::Tables;

#[inline(never)]
pub(super) fn pick<T: Tables>(tables: &T, service: &Service, flow: &Flow) -> DestId {
    if let Some(entry) = cache::entry(tables, service, flow.destination, flow.now) {
        let least = least_loaded(tables, service, entry);
        let patience = u64::from(tables.settings().lblcr_expiration) * 1_000_000_000;
        if entry.has_several() && flow.now.nanos() > entry.changed.get().saturating_add(patience) {
            let most = most_loaded(tables, entry);
            if most != NONE {
                entry.remove(tables, most, flow.now);
            }
        }
        if least != NONE && !lblc::is_busy(tables, service, least) {
            return least;
        }
    }
    let id = wlc::pick(tables, service);
    if id != NONE {
        cache::remember(tables, service, flow.destination, id, flow.now, false);
    }
    id
}

/// The member with the lowest load per weight that may be used, newest first.
#[inline(always)]
fn least_loaded<T: Tables>(tables: &T, service: &Service, entry: &Cached) -> DestId {
    let here = |dest: &Dest| dest.is_available() && dest.service == service.id;
    extreme(tables, entry, |dest, member| here(dest) && member.is_usable(), wlc::loaded_more)
}

/// The member with the highest load per weight, whether it may be used or not.
#[inline(always)]
fn most_loaded<T: Tables>(tables: &T, entry: &Cached) -> DestId {
    extreme(
        tables,
        entry,
        |_, member| member.weight > 0,
        |best, other| wlc::loaded_more(other, best),
    )
}

/// Walks the members from the newest and keeps an eligible one until
/// `better(best, other)` prefers another, both by [`Candidate::terms`].
#[inline(always)]
fn extreme<T: Tables>(
    tables: &T,
    entry: &Cached,
    eligible: impl Fn(&Dest, &Candidate) -> bool,
    better: impl Fn(u64, u64) -> bool,
) -> DestId {
    let (mut best, mut terms) = (NONE, 0);
    tables.repeat(MEMBERS, |position| {
        if let Some(id) = entry.member(position)
            && let Some(dest) = tables.dest(id)
            && let Some(load) = tables.load(id)
        {
            let member = Candidate::new(id, dest, load);
            if eligible(dest, &member) && (best == NONE || better(terms, member.terms())) {
                best = id;
                terms = member.terms();
            }
        }
        true
    });
    best
}
