//! twos, power of two choices: two destinations drawn by weight, of which the
//! less loaded one is taken.

use super::{Flow, candidate, hash};
use crate::conn::NONE;
use crate::dest::DestId;
use crate::service::Service;
use crate::tables::Tables;

/// Between two numbers that are drawn: odd, and all bits mixed.
const STRIDE: u64 = 0x9e37_79b9_7f4a_7c15;

#[inline(never)]
pub(super) fn pick<T: Tables>(tables: &T, service: &Service, flow: &Flow) -> DestId {
    let mut total = 0_u64;
    tables.repeat(service.len, |position| {
        if let Some(dest) = candidate(tables, service, position)
            && dest.is_usable()
        {
            total += u64::from(dest.weight);
        }
        true
    });
    // The total itself can be drawn, too: so the first of the list is a little ahead.
    let ends = total.wrapping_add(1).max(1);
    let seed = seed(tables, service, flow);
    let mut left = hash::scattered(seed) % ends;
    let mut other_left = hash::scattered(seed.wrapping_add(STRIDE)) % ends;
    let (mut one, mut one_terms) = (NONE, 0);
    let (mut other, mut other_terms) = (NONE, 0);
    tables.repeat(service.len, |position| {
        if let Some(dest) = candidate(tables, service, position)
            && dest.is_usable()
        {
            let weight = u64::from(dest.weight);
            if one == NONE && left <= weight {
                one = dest.id;
                one_terms = dest.terms();
            }
            if other == NONE && other_left <= weight {
                other = dest.id;
                other_terms = dest.terms();
            }
            left = left.saturating_sub(weight);
            other_left = other_left.saturating_sub(weight);
        }
        one == NONE || other == NONE
    });
    if other != NONE && product(other_terms, one_terms) > product(one_terms, other_terms) {
        other
    } else {
        one
    }
}

/// The weight of one times the load of the other, in 32 bits as the kernel
/// multiplies here: very heavy and loaded ones wrap.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the halves of a number")]
const fn product(weight_of: u64, load_of: u64) -> i32 {
    ((weight_of >> 32) as u32).wrapping_mul(load_of as u32).cast_signed()
}

/// What a pick draws its numbers from, as the core has no lot of its own: who
/// asks, when, and how many picks there were before.
#[inline(always)]
fn seed<T: Tables>(tables: &T, service: &Service, flow: &Flow) -> u64 {
    let client = u64::from(hash::folded(flow.client)) << 32 | u64::from(flow.client_port);
    let mut seed = hash::scattered(client ^ flow.now.nanos());
    if let Some(word) = tables.scheduler_word(service.id) {
        let picks = word.get();
        // Another CPU that counts the same pick has another packet.
        let _counted = tables.replace64(word, picks, picks.wrapping_add(1));
        seed ^= picks.wrapping_mul(STRIDE);
    }
    seed
}
