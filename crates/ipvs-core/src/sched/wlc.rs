//! wlc, weighted least connection: the lowest load by connections per weight.

use super::best;
use crate::dest::DestId;
use crate::service::Service;
use crate::tables::Tables;

/// Quotients are compared by multiplying crosswise in 64 bits, so nothing is
/// rounded and nothing overflows: weights have 31 bits, loads 32.
#[inline(always)]
pub(super) fn pick<T: Tables>(tables: &T, service: &Service) -> DestId {
    best(tables, service, |best, other| {
        u64::from(best.overhead()) * u64::from(other.weight)
            > u64::from(other.overhead()) * u64::from(best.weight)
    })
}
