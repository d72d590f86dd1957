//! nq, never queue: the first idle destination, else as sed.

use super::best;
use crate::dest::DestId;
use crate::service::Service;
use crate::tables::Tables;

#[inline(always)]
pub(super) fn pick<T: Tables>(tables: &T, service: &Service) -> DestId {
    best(tables, service, |best, other| {
        best.active != 0 && (other.active == 0 || best.delays_longer_than(other))
    })
}
