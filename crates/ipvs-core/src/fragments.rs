//! Fragments: which of them may be pieces of a datagram that is balanced, and
//! what their sender hears if it never becomes whole.
//!
//! The kernel puts every datagram together on its way in, and every one that it
//! routes on while there are services. Here only those are touched that can be
//! ours; what a sender and a receiver see is the same.

use ipvs_wire::Headers;
use ipvs_wire::transport::protocol;

use crate::addr::{Addr, AddrKey, AddrUse, Family};
use crate::director::Room;
use crate::tables::Tables;

/// Whether a fragment with these headers may be of a datagram for a service, or
/// of a reply that is to be translated.
#[inline(never)]
pub(crate) fn concern<T: Tables>(headers: &Headers, tables: &T, room: &mut Room) -> bool {
    are_for_service(headers, tables, room) || may_be_answer(headers, tables, room)
}

/// Whether a fragment with these headers may be of a reply that is to be translated.
#[inline(always)]
pub(crate) fn may_be_answer<T: Tables>(headers: &Headers, tables: &T, room: &mut Room) -> bool {
    if matches!(headers.protocol, protocol::AH | protocol::ESP) {
        return false;
    }
    let family = Family::from_tag(headers.version);
    room.addr = AddrKey::new(family, Addr::from_words(headers.source));
    tables.addr_use(&room.addr) & AddrUse::TRANSLATED != 0
}

/// Whether packets with these headers are to an address of a service.
#[inline(always)]
pub(crate) fn are_for_service<T: Tables>(headers: &Headers, tables: &T, room: &mut Room) -> bool {
    let family = Family::from_tag(headers.version);
    room.addr = AddrKey::new(family, Addr::from_words(headers.destination));
    tables.addr_use(&room.addr) & AddrUse::SERVICE != 0
}
