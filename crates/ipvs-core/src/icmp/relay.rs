//! How an ICMP error about a connection's packet goes on.

use ipvs_wire::{Buffer, Headers};

use super::{count_out, is_masqueraded, translate};
use crate::addr::{Addr, Family};
use crate::conn::Conn;
use crate::dest::ForwardingMethod;
use crate::director::Packet;
use crate::forward::{self, tunnel};
use crate::hop::WayKind;
use crate::tables::Tables;
use crate::verdict::{Outcome, Reason};

/// An error about a reply goes to the destination: translated if replies are,
/// else unchanged the way that requests go, so that a server behind a tunnel
/// learns its path's MTU.
#[inline(always)]
pub(super) fn to_dest<B: Buffer, T: Tables>(
    packet: &mut Packet<'_, B>,
    quoted: &Headers,
    tables: &T,
    conn: &Conn,
) -> Outcome {
    let dest_id = conn.dest.get();
    let Some(dest) = tables.dest(dest_id) else { return Outcome::drop(Reason::DestGone) };
    let method = ForwardingMethod::from_flags(conn.flags.get());
    // Who gets it unchanged can look for himself (recorded on 6.1).
    if is_masqueraded(conn) && !translate::is_sound(packet) {
        return Outcome::drop(Reason::BadChecksum);
    }
    forward::find_way_to_dest(packet.room, tables, dest_id, dest, packet.now);
    let overhead = match method {
        ForwardingMethod::Tunnel => tunnel::overhead(dest),
        _ => 0,
    };
    if !T::RESOLVES
        && let Some(reason) = forward::why_left(packet, overhead)
    {
        return Outcome::pass(reason);
    }
    if must_cut::<B, T>(packet, overhead) {
        return Outcome::defer(Reason::DeferredLong);
    }
    if dest.is_available()
        && let Some(counters) = tables.counters(dest_id)
    {
        counters.count_in(u64::from(packet.headers.total_len));
    }
    if method != ForwardingMethod::Masquerade {
        conn.in_packets.set(conn.in_packets.get().wrapping_add(1));
    }
    let server = (dest.key.addr, conn.dest_port.get());
    match packet.room.way.kind {
        WayKind::None => return Outcome::drop(Reason::Unanswerable),
        WayKind::Host => {
            let written = match method {
                ForwardingMethod::Masquerade => translate::for_dest(packet, quoted, server),
                _ => Some(()),
            };
            return if_written(written, Outcome::pass(Reason::Local));
        }
        WayKind::Known | WayKind::Unresolved => {}
    }
    if let Some(outcome) = refusal(packet) {
        return outcome;
    }
    let written = forward::decrement_ttl(packet.buf, packet.headers).and_then(|()| match method {
        ForwardingMethod::Masquerade => translate::for_dest(packet, quoted, server),
        ForwardingMethod::Tunnel => tunnel::encapsulate(packet, tables, dest),
        ForwardingMethod::DirectRoute => Some(()),
        ForwardingMethod::Local | ForwardingMethod::Bypass => None,
    });
    match written {
        Some(()) => forward::leave(packet),
        None => Outcome::drop(Reason::Unwritable),
    }
}

/// An error about a translated request goes to the client, as if from the
/// virtual address.
#[inline(always)]
pub(super) fn to_client<B: Buffer, T: Tables>(
    packet: &mut Packet<'_, B>,
    quoted: &Headers,
    tables: &T,
    conn: &Conn,
) -> Outcome {
    let tuple = conn.tuple.get();
    let service = (tuple.destination, tuple.destination_port);
    let h = packet.headers;
    // Not by the connection's hop: whom the error is addressed to is its sender's choice.
    packet.room.query.family = Family::from_tag(h.version);
    packet.room.query.destination = Addr::from_words(h.destination);
    packet.room.query.source = service.0;
    tables.route(&packet.room.query, &mut packet.room.way);
    if !T::RESOLVES
        && let Some(reason) = forward::why_left(packet, 0)
    {
        return Outcome::pass(reason);
    }
    // What a forwarding host finds before it asks us, in silence: it makes no error about an error.
    let too_long = h.dont_fragment && packet.is_longer_than(packet.room.way.mtu());
    if packet.room.way.kind != WayKind::Host && (h.ttl <= 1 || too_long) {
        return Outcome::pass(Reason::LeftToRefuse);
    }
    if !translate::is_sound(packet) {
        return Outcome::drop(Reason::BadChecksum);
    }
    if must_cut::<B, T>(packet, 0) {
        return Outcome::defer(Reason::DeferredLong);
    }
    count_out(packet, tables, conn);
    match packet.room.way.kind {
        WayKind::None => return Outcome::drop(Reason::Unanswerable),
        WayKind::Host => {
            let written = translate::for_client(packet, quoted, service);
            return if_written(written, Outcome::deliver());
        }
        WayKind::Known | WayKind::Unresolved => {}
    }
    if let Some(outcome) = refusal(packet) {
        return outcome;
    }
    let written = forward::decrement_ttl(packet.buf, h)
        .and_then(|()| translate::for_client(packet, quoted, service));
    match written {
        Some(()) => forward::leave(packet),
        None => Outcome::drop(Reason::Unwritable),
    }
}

/// Whether the error, with this much in front, is longer than the way takes
/// and the plane cannot cut it. That it may not be cut counts for nothing here.
#[inline(always)]
fn must_cut<B: Buffer, T: Tables>(packet: &Packet<'_, B>, overhead: u32) -> bool {
    !T::CUTS && packet.is_longer_than(packet.room.way.mtu().saturating_sub(overhead))
}

/// Why the error cannot go on by the way that was found, if so. Nobody is told
/// of that: no error is made about an error.
#[inline(always)]
fn refusal<B: Buffer>(packet: &Packet<'_, B>) -> Option<Outcome> {
    if packet.is_tagged() && packet.room.way.hop.ifindex != packet.ifindex {
        Some(Outcome::pass(Reason::Tagged))
    } else if packet.headers.ttl <= 1 {
        Some(Outcome::drop(Reason::Unanswerable))
    } else {
        None
    }
}

#[inline(always)]
fn if_written(written: Option<()>, outcome: Outcome) -> Outcome {
    match written {
        Some(()) => outcome,
        None => Outcome::drop(Reason::Unwritable),
    }
}
