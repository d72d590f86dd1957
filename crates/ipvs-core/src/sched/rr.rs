//! rr, round robin: the next usable destination after the last one chosen.

use super::{ATTEMPTS, candidate, memory};
use crate::conn::NONE;
use crate::dest::DestId;
use crate::service::Service;
use crate::tables::Tables;

#[inline(always)]
pub(super) fn pick<T: Tables>(tables: &T, service: &Service) -> DestId {
    let Some(word) = tables.scheduler_word(service.id) else { return NONE };
    let mut picked = NONE;
    tables.repeat(ATTEMPTS, |_| {
        let old = word.get();
        let (id, place) = next(tables, service, memory::cursor(old));
        picked = id;
        // If another CPU moved the cursor meanwhile, it has this pick: take the next one.
        id != NONE && !tables.replace64(word, old, memory::with_cursor(old, Some(place)))
    });
    picked
}

/// The first usable destination after `cursor` and its place from the oldest,
/// or [`NONE`].
#[inline(always)]
fn next<T: Tables>(tables: &T, service: &Service, cursor: Option<u32>) -> (DestId, u32) {
    let len = service.len;
    let newest = len.wrapping_sub(1);
    // The list goes from the newest to the oldest, so "after" is one lower.
    let start = match cursor {
        Some(place) if place > 0 && place < len => place - 1,
        _ => newest,
    };
    let mut found = NONE;
    let mut found_at = 0;
    tables.repeat(len, |step| {
        let place =
            if step <= start { start - step } else { start.wrapping_add(len).wrapping_sub(step) };
        match candidate(tables, service, newest.wrapping_sub(place)) {
            Some(dest) if dest.is_usable() => {
                found = dest.id;
                found_at = place;
                false
            }
            _ => true,
        }
    });
    (found, found_at)
}
