//! wlc, weighted least connection: the lowest load by connections per weight.

use super::best;
use crate::dest::DestId;
use crate::service::Service;
use crate::tables::Tables;

/// The half of the terms that is the load.
const LOAD: u64 = 0xffff_ffff;

/// Quotients are compared by multiplying crosswise in 64 bits, so nothing is
/// rounded and nothing overflows: weights have 31 bits, loads 32.
#[inline(always)]
pub(super) fn pick<T: Tables>(tables: &T, service: &Service) -> DestId {
    best(tables, service, |best, other| loaded_more(best.terms(), other.terms()))
}

/// Whether the first of two [`Candidate::terms`](super::Candidate::terms) has
/// the higher load per weight.
#[inline(always)]
pub(super) const fn loaded_more(one: u64, other: u64) -> bool {
    (one & LOAD) * (other >> 32) > (other & LOAD) * (one >> 32)
}
