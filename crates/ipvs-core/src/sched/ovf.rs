//! ovf, overflow connection: the highest weight whose active connections do
//! not exceed it.

use super::best_of;
use crate::dest::DestId;
use crate::service::Service;
use crate::tables::Tables;

#[inline(always)]
pub(super) fn pick<T: Tables>(tables: &T, service: &Service) -> DestId {
    // "Not exceed": weight 4 takes five connections before the next one's turn.
    let has_room = |dest: &super::Candidate| dest.active <= dest.weight;
    best_of(tables, service, has_room, |best, other| other.weight > best.weight)
}
