//! fo, weighted failover: the highest weight that is usable.

use super::best;
use crate::dest::DestId;
use crate::service::Service;
use crate::tables::Tables;

#[inline(always)]
pub(super) fn pick<T: Tables>(tables: &T, service: &Service) -> DestId {
    best(tables, service, |best, other| other.weight > best.weight)
}
