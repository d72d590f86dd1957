//! wrr, weighted round robin, interleaved: level by level from the highest
//! weight down, each level over all destinations that reach it.

use super::{ATTEMPTS, candidate, memory};
use crate::conn::NONE;
use crate::dest::DestId;
use crate::service::Service;
use crate::tables::Tables;

/// Steps of one walk, at most: far more than any list with sane weights needs.
const MAX_STEPS: u32 = 1 << 22;

/// Where a walk is: in which level, at which position of the list.
#[derive(Clone, Copy)]
struct Walk {
    level: u32,
    position: u32,
    /// The lowest level is walked.
    lowest: bool,
    /// The highest level was entered anew.
    restarted: bool,
}

#[inline(always)]
pub(super) fn pick<T: Tables>(tables: &T, service: &Service) -> DestId {
    // No destination has a positive weight.
    if service.weight_top == 0 || service.len == 0 {
        return NONE;
    }
    let Some(word) = tables.scheduler_word(service.id) else { return NONE };
    let mut picked = NONE;
    tables.repeat(ATTEMPTS, |_| {
        let old = word.get();
        let (found, new) = next(tables, service, old);
        picked = found;
        !tables.replace64(word, old, new)
    });
    picked
}

/// The next pick after `word`, or [`NONE`], and the word after it.
#[inline(always)]
fn next<T: Tables>(tables: &T, service: &Service, word: u64) -> (DestId, u64) {
    let len = service.len;
    let newest = len.wrapping_sub(1);
    let cursor = memory::cursor(word).filter(|place| *place < len);
    // `NONE` before the first pick: no position stops the walk then.
    let stop = cursor.map_or(NONE, |place| newest.wrapping_sub(place));
    let mut walk = Walk {
        level: level(word),
        position: stop.wrapping_add(1),
        lowest: false,
        restarted: false,
    };
    let mut found = NONE;
    tables.repeat(bound(service), |_| {
        if walk.position >= len {
            if walk.level <= service.weight_gcd {
                walk.level = service.weight_top;
                // All destinations were tried at the lowest level: in a walk
                // that entered it from above, or that began at the list's head.
                if walk.lowest || stop == NONE {
                    return false;
                }
                walk.restarted = true;
            } else {
                walk.level -= service.weight_gcd;
            }
            walk.lowest = walk.level <= service.weight_gcd;
            walk.position = 0;
            return true;
        }
        match candidate(tables, service, walk.position) {
            Some(dest) if !dest.overloaded && dest.weight >= walk.level => {
                found = dest.id;
                return false;
            }
            _ => {}
        }
        // The part of the lowest level before the start was still to be tried.
        if walk.lowest && walk.restarted && walk.position == stop {
            return false;
        }
        walk.position += 1;
        true
    });
    let cursor = if found == NONE { cursor } else { Some(newest.wrapping_sub(walk.position)) };
    (found, packed(walk.level, cursor))
}

/// Steps after which a walk has seen everything twice.
#[inline(always)]
fn bound(service: &Service) -> u32 {
    let levels = u64::from(service.weight_top / service.weight_gcd.max(1)) + 3;
    let steps = levels * (u64::from(service.len) + 1);
    u32::try_from(steps).unwrap_or(MAX_STEPS).min(MAX_STEPS)
}

#[inline(always)]
const fn level(word: u64) -> u32 {
    (word >> 32) as u32
}

#[inline(always)]
const fn packed(level: u32, cursor: Option<u32>) -> u64 {
    memory::with_cursor((level as u64) << 32, cursor)
}

/// The memory after a destination was added, edited or deleted: the walk
/// begins at the head of the list, on a level that exists.
#[must_use]
pub fn recomputed(word: u64, weight_gcd: u32, weight_top: u32) -> u64 {
    let present = level(word);
    let level = if present > weight_top || present == 0 {
        weight_top
    } else if weight_gcd > 1 {
        present / weight_gcd * weight_gcd + 1
    } else {
        present
    };
    packed(level, None)
}
