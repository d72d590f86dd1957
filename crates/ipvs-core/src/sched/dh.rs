//! dh, destination hashing: a table slot by the packet's destination address.

use super::table::{self, BITS};
use super::{Flow, hash};
use crate::dest::DestId;
use crate::service::Service;
use crate::tables::Tables;

/// There is no second choice.
#[inline(never)]
pub(super) fn pick<T: Tables>(tables: &T, service: &Service, flow: &Flow) -> DestId {
    table::usable(tables, service, hash::multiplicative(hash::folded(flow.destination), BITS))
}
