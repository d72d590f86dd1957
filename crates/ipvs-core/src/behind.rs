//! What a plane behind the host's firewall makes of packets on their way through the host:
//! as they come in, and as the host sends them on.

use ipvs_wire::{Buffer, Fragment};

use crate::addr::Addr;
use crate::conn::Tuple;
use crate::director::{Scratch, leads_to_client};
use crate::engine;
use crate::tables::Tables;
use crate::time::Instant;
use crate::{admit, forward, fragments, icmp, proto};

/// Whether the frame in `buf`, which the host sends on, comes from a destination and is to
/// be translated on its way to a client: nothing else of what the host sends on is for
/// [`handle`], which would take its own packets for a client's. One that needs no translation
/// is counted.
///
/// [`handle`]: crate::director::handle
#[inline(always)]
pub fn translates<B: Buffer, T: Tables>(
    buf: &mut B,
    tables: &T,
    scratch: &mut Scratch,
    ifindex: u32,
    now: Instant,
) -> bool {
    if !may_concern(buf, tables, scratch) {
        return false;
    }
    if is_answer(buf, tables, scratch, now) {
        return true;
    }
    if scratch.headers.fragment == Fragment::No {
        if icmp::is_icmp(&scratch.headers) {
            icmp::pass_by(buf, tables, scratch, ifindex, now);
        } else if scratch.headers.is_balanced() {
            admit::direct_reply(&mut scratch.packet(buf, ifindex, now), tables);
        }
    }
    false
}

/// What is to be done with a frame before the host routes it, by a plane that has the host
/// send on to it what is for services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BeforeRouting {
    /// Nothing.
    Nothing,
    /// It is for [`handle`](crate::director::handle) at once: an answer to a request of the
    /// host's own, or an error from inside a tunnel. The host would take it for itself.
    Handle,
    /// It has no hop left but is for an address of a service, where that does not matter: it
    /// needs a TTL of 2 to be sent on, instead of this.
    Lengthen(u8),
}

/// Says what is to be done with the frame in `buf` before the host routes it.
#[inline(always)]
pub fn before_routing<B: Buffer, T: Tables>(
    buf: &mut B,
    tables: &T,
    scratch: &mut Scratch,
    ifindex: u32,
    now: Instant,
) -> BeforeRouting {
    if !may_concern(buf, tables, scratch) {
        return BeforeRouting::Nothing;
    }
    let is_for_director = if is_answer(buf, tables, scratch, now) {
        let Scratch { headers, tuple, room, .. } = scratch;
        tuple.destination = Addr::from_words(headers.destination);
        forward::is_for_host(room, tables, tuple)
    } else {
        icmp::is_icmp(&scratch.headers)
            && scratch.headers.fragment == Fragment::No
            && icmp::is_from_tunnel(buf, tables, scratch, ifindex, now)
    };
    let Scratch { headers, room, .. } = scratch;
    if is_for_director {
        BeforeRouting::Handle
    } else if headers.ttl <= 1 && fragments::are_for_service(headers, tables, room) {
        BeforeRouting::Lengthen(headers.ttl)
    } else {
        BeforeRouting::Nothing
    }
}

/// Reads the headers of the frame in `buf`, if there are services at all; returns whether it
/// may be of one.
#[inline(always)]
fn may_concern<B: Buffer, T: Tables>(buf: &mut B, tables: &T, scratch: &mut Scratch) -> bool {
    let settings = tables.settings();
    settings.services_v4 | settings.services_v6 != 0 && scratch.headers.read(buf).is_ok()
}

/// Whether the frame in `buf`, whose headers were read, comes from a destination and is to be
/// translated for a client.
#[inline(always)]
fn is_answer<B: Buffer, T: Tables>(
    buf: &mut B,
    tables: &T,
    scratch: &mut Scratch,
    now: Instant,
) -> bool {
    let Scratch { headers, tuple, room, .. } = scratch;
    if headers.fragment != Fragment::No {
        return fragments::may_be_answer(headers, tables, room);
    }
    if icmp::is_icmp(headers) {
        return icmp::is_answer(buf, tables, scratch, now);
    }
    if headers.is_ipsec() {
        *tuple = Tuple::of_ike(headers);
        return leads_to_client(tables, tuple, now);
    }
    if !headers.is_balanced() {
        return false;
    }
    *tuple = Tuple::of(headers);
    leads_to_client(tables, tuple, now)
        || (tables.settings().callers != 0
            && !proto::is_abort(headers)
            && engine::outgoing::is_caller(tables, tuple, &mut room.caller))
}
