//! sed, shortest expected delay: the lowest `(active + 1) / weight`.

use super::best;
use crate::dest::DestId;
use crate::service::Service;
use crate::tables::Tables;

#[inline(always)]
pub(super) fn pick<T: Tables>(tables: &T, service: &Service) -> DestId {
    best(tables, service, super::Candidate::delays_longer_than)
}
