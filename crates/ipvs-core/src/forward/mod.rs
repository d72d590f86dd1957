//! Forwarding: how a packet leaves towards its destination, or an error
//! towards its sender.

pub(crate) mod masquerade;
pub(crate) mod reject;
pub(crate) mod reset;
pub(crate) mod tunnel;

use ipvs_wire::{Buffer, Headers, ethernet, ipv4, ipv6};

use crate::addr::{Addr, AddrKey, Family};
use crate::conn::{Conn, ConnId, Tuple};
use crate::dest::{Dest, DestId, ForwardingMethod};
use crate::director::{Packet, Room};
use crate::hop::{self, CachedHop, WayKind};
use crate::tables::Tables;
use crate::time::Instant;
use crate::verdict::{Outcome, Reason};

/// Finds the way to the destination `id`; it is remembered for all its
/// connections.
#[inline(always)]
pub(crate) fn find_way_to_dest<T: Tables>(
    room: &mut Room,
    tables: &T,
    id: DestId,
    dest: &Dest,
    now: Instant,
) {
    let Some(cached) = tables.dest_hop(id) else {
        room.way.kind = WayKind::None;
        return;
    };
    let epoch = hop::epoch(now, tables.settings().route_generation);
    if !cached.recall(epoch, &mut room.way) {
        ask_for(room, dest.key.family(), dest.key.addr);
        ask_for_path(tables, cached, room, now);
    }
}

/// Asks the host, heeds what was learnt of the path, and remembers a way that is known.
/// Always true: an eBPF function must return a number.
#[inline(never)]
fn ask_for_path<T: Tables>(tables: &T, cached: &CachedHop, room: &mut Room, now: Instant) -> bool {
    tables.route(&room.query, &mut room.way);
    room.addr = AddrKey::new(room.query.family, room.query.destination);
    if let Some(mtu) = tables.path_mtu(&room.addr).and_then(|path| path.believed(now))
        && mtu < room.way.hop.mtu
    {
        room.way.hop.mtu = mtu;
    }
    keep(cached, room, hop::epoch(now, tables.settings().route_generation));
    true
}

/// Finds the way to the host that a data connection leads to. It is asked for
/// every packet: such connections are rare, and the record has no room.
#[inline(never)]
pub(crate) fn find_way_elsewhere<T: Tables>(room: &mut Room, tables: &T, conn: &Conn) -> bool {
    ask_for(room, conn.tuple.get().family(), conn.elsewhere());
    tables.route(&room.query, &mut room.way);
    true
}

/// Makes the question which way leads to an address, wherever from.
#[inline(always)]
fn ask_for(room: &mut Room, family: Family, destination: Addr) {
    room.query.family = family;
    room.query.destination = destination;
    room.query.source = Addr::UNSPECIFIED;
}

/// Finds the way to where the packet with this key was sent, past all destinations.
#[inline(never)]
pub(crate) fn find_way_past<T: Tables>(room: &mut Room, tables: &T, tuple: &Tuple) -> bool {
    ask_for(room, tuple.family(), tuple.destination);
    tables.route(&room.query, &mut room.way);
    true
}

/// Whether the packet with this key was sent to an address of the host.
#[inline(never)]
pub(crate) fn is_for_host<T: Tables>(room: &mut Room, tables: &T, tuple: &Tuple) -> bool {
    ask_for(room, tuple.family(), tuple.destination);
    tables.is_local(&room.query, &mut room.way)
}

/// Finds the way back to the client of `conn`; it is remembered in the
/// connection.
#[inline(always)]
pub(crate) fn find_way_to_client<T: Tables>(room: &mut Room, tables: &T, conn: &Conn, epoch: u32) {
    if !conn.reply_hop.recall(epoch, &mut room.way) {
        let tuple = conn.tuple.get();
        room.query.family = tuple.family();
        room.query.destination = tuple.source;
        room.query.source = tuple.destination;
        ask(tables, &conn.reply_hop, room, epoch);
    }
}

/// Asks the host, and remembers a way that is known. Always true: an eBPF
/// function must return a number.
#[inline(never)]
fn ask<T: Tables>(tables: &T, cached: &CachedHop, room: &mut Room, epoch: u32) -> bool {
    tables.route(&room.query, &mut room.way);
    keep(cached, room, epoch);
    true
}

/// Remembers a way that is known.
#[inline(always)]
fn keep(cached: &CachedHop, room: &Room, epoch: u32) {
    if room.way.kind == WayKind::Known {
        cached.store(room.way.hop, epoch);
    }
}

/// Why a client's packet is left to another plane by one that only sends, if so: before
/// anything is counted or changed.
#[inline(always)]
pub(crate) fn why_request_left<B: Buffer>(
    packet: &Packet<'_, B>,
    conn: &Conn,
    dest: &Dest,
) -> Option<Reason> {
    match ForwardingMethod::from_flags(conn.flags.get()) {
        ForwardingMethod::Local => Some(Reason::Local),
        ForwardingMethod::Tunnel => why_left(packet, tunnel::overhead(dest)),
        _ => why_left(packet, 0),
    }
}

/// The same for any packet, with so many octets to go in front of it.
#[inline(always)]
pub(crate) fn why_left<B: Buffer>(packet: &Packet<'_, B>, overhead: u32) -> Option<Reason> {
    let way = &packet.room.way;
    if way.needs_host() {
        Some(Reason::Unresolved)
    } else if packet.is_tagged() && way.hop.ifindex != packet.ifindex {
        Some(Reason::Tagged)
    } else if way.kind == WayKind::None
        || packet.headers.ttl <= 1
        || packet.is_longer_than(way.hop.mtu.saturating_sub(overhead))
    {
        Some(Reason::LeftToRefuse)
    } else {
        None
    }
}

/// Sends a client's packet to its destination by the connection's method.
#[inline(always)]
pub(crate) fn to_dest<B: Buffer, T: Tables>(
    packet: &mut Packet<'_, B>,
    tables: &T,
    id: ConnId,
    conn: &Conn,
    dest: &Dest,
) -> Outcome {
    let method = ForwardingMethod::from_flags(conn.flags.get());
    let h = packet.headers;
    // Of what follows, a plane that only sends has left all but what it drops.
    if T::RESOLVES {
        if method == ForwardingMethod::Local {
            return Outcome::pass(Reason::Local);
        }
        match packet.room.way.kind {
            WayKind::None => return reject::no_route(packet, tables, conn),
            WayKind::Host => return to_host(packet, tables, id, conn, dest, method),
            WayKind::Known | WayKind::Unresolved => {}
        }
        if packet.is_tagged() && packet.room.way.hop.ifindex != packet.ifindex {
            return Outcome::pass(Reason::Tagged);
        }
    }
    // The host's own programs may use such a source towards a virtual address.
    if is_loopback(packet.tuple) {
        return Outcome::drop(Reason::NoRoute);
    }
    if T::RESOLVES && h.ttl <= 1 {
        return reject::time_exceeded(packet, tables, conn);
    }
    let overhead = match method {
        ForwardingMethod::Tunnel => tunnel::overhead(dest),
        _ => 0,
    };
    let mtu = packet.room.way.mtu().saturating_sub(overhead);
    if overhead != 0 && tunnel::is_too_narrow(dest, mtu) {
        return Outcome::drop(Reason::TooLong);
    }
    let checked =
        method != ForwardingMethod::Tunnel || h.version == 6 || tables.settings().pmtu_disc != 0;
    if T::RESOLVES && checked && packet.is_longer_than(mtu) {
        if h.dont_fragment {
            // The sender is told about the packet as it would have left.
            if decrement_ttl(packet.buf, h).is_none() {
                return Outcome::drop(Reason::Unwritable);
            }
            return reject::too_big(packet, tables, conn, mtu);
        }
        if !T::CUTS {
            return leave_to_cut(packet, tables, id, conn, dest, method);
        }
    }
    if decrement_ttl(packet.buf, h).is_none() {
        return Outcome::drop(Reason::Unwritable);
    }
    let written = match method {
        ForwardingMethod::Masquerade => masquerade::request(packet, tables, id, conn, dest),
        ForwardingMethod::Tunnel => {
            tunnel::encapsulate(packet, tables, dest).ok_or(Reason::Unwritable)
        }
        ForwardingMethod::DirectRoute | ForwardingMethod::Bypass | ForwardingMethod::Local => {
            Ok(())
        }
    };
    match written {
        Ok(()) => leave(packet),
        Err(reason) => Outcome::drop(reason),
    }
}

/// Whether the packet comes from an address that leaves no host.
#[inline(always)]
fn is_loopback(tuple: &Tuple) -> bool {
    match tuple.family() {
        Family::V4 => tuple.source.words()[0].to_ne_bytes()[0] == 127,
        Family::V6 => tuple.source == Addr::LOOPBACK_V6,
    }
}

/// Sends a translated reply on its way to the client.
#[inline(always)]
pub(crate) fn to_client<B: Buffer, T: Tables>(
    packet: &mut Packet<'_, B>,
    tables: &T,
    conn: &Conn,
) -> Outcome {
    let h = packet.headers;
    // A plane that only sends has left such packets.
    if T::RESOLVES {
        match packet.room.way.kind {
            WayKind::None => return Outcome::drop(Reason::NoRoute),
            // The client is the director itself: its stack gets the translated packet.
            WayKind::Host => {
                return match masquerade::reply(packet, conn) {
                    Some(()) => Outcome::deliver(),
                    None => Outcome::drop(Reason::Unwritable),
                };
            }
            WayKind::Known | WayKind::Unresolved => {}
        }
        if packet.is_tagged() && packet.room.way.hop.ifindex != packet.ifindex {
            return Outcome::pass(Reason::Tagged);
        }
        let mtu = packet.room.way.mtu();
        if h.dont_fragment && packet.is_longer_than(mtu) {
            return reject::too_big_reply(packet, tables, conn, mtu);
        }
    }
    match decrement_ttl(packet.buf, h).and_then(|()| masquerade::reply(packet, conn)) {
        Some(()) => leave(packet),
        None => Outcome::drop(Reason::Unwritable),
    }
}

/// Whether a client's packet leaves in pieces, made by nobody but the plane. A
/// translated one is left to the host, see [`leave_to_cut`].
#[inline(always)]
pub(crate) fn must_cut_request<B: Buffer, T: Tables>(
    packet: &Packet<'_, B>,
    tables: &T,
    conn: &Conn,
    dest: &Dest,
) -> bool {
    let overhead = match ForwardingMethod::from_flags(conn.flags.get()) {
        ForwardingMethod::DirectRoute | ForwardingMethod::Bypass => 0,
        ForwardingMethod::Tunnel => tunnel::overhead(dest),
        _ => return false,
    };
    let may_be = !packet.headers.dont_fragment
        || (overhead != 0 && packet.headers.version == 4 && tables.settings().pmtu_disc == 0);
    may_be && packet.is_longer_than(packet.room.way.mtu().saturating_sub(overhead))
}

/// Whether a client's packet goes into a tunnel that nobody but the plane can
/// complete.
#[inline(always)]
pub(crate) fn must_complete_request<B: Buffer>(
    packet: &Packet<'_, B>,
    conn: &Conn,
    dest: &Dest,
) -> bool {
    ForwardingMethod::from_flags(conn.flags.get()) == ForwardingMethod::Tunnel
        && tunnel::must_be_completed(packet, dest)
}

/// Whether a translated reply leaves in pieces.
#[inline(always)]
pub(crate) fn must_cut_reply<B: Buffer>(packet: &Packet<'_, B>) -> bool {
    !packet.headers.dont_fragment && packet.is_longer_than(packet.room.way.mtu())
}

/// A packet that is longer than the path and may be cut: the host forwards and
/// cuts a translated one. The others it would not forward, since their address
/// or their sender's is its own.
#[inline(always)]
fn leave_to_cut<B: Buffer, T: Tables>(
    packet: &mut Packet<'_, B>,
    tables: &T,
    id: ConnId,
    conn: &Conn,
    dest: &Dest,
    method: ForwardingMethod,
) -> Outcome {
    if method != ForwardingMethod::Masquerade {
        return Outcome::drop(Reason::TooLong);
    }
    match masquerade::request(packet, tables, id, conn, dest) {
        Ok(()) => Outcome::pass(Reason::LeftToCut),
        Err(reason) => Outcome::drop(reason),
    }
}

/// The destination is the director itself: no TTL and MTU work, and the
/// host's stack delivers.
#[inline(always)]
fn to_host<B: Buffer, T: Tables>(
    packet: &mut Packet<'_, B>,
    tables: &T,
    id: ConnId,
    conn: &Conn,
    dest: &Dest,
    method: ForwardingMethod,
) -> Outcome {
    let written = match method {
        ForwardingMethod::Masquerade => masquerade::request(packet, tables, id, conn, dest),
        // It leads past the director's own sockets, or nowhere.
        ForwardingMethod::Bypass => Err(Reason::NoRoute),
        _ => Ok(()),
    };
    match written {
        Ok(()) => Outcome::pass(Reason::Local),
        Err(reason) => Outcome::drop(reason),
    }
}

/// Addresses the frame.
#[inline(always)]
pub(crate) fn leave<B: Buffer>(packet: &mut Packet<'_, B>) -> Outcome {
    let hop = &packet.room.way.hop;
    if packet.room.way.kind == WayKind::Unresolved {
        return Outcome::resolve(hop.ifindex);
    }
    match ethernet::set_addresses(packet.buf, hop.neighbour, hop.own) {
        Some(()) => Outcome::send(hop.ifindex),
        None => Outcome::drop(Reason::Unwritable),
    }
}

#[inline(always)]
pub(crate) fn decrement_ttl<B: Buffer>(buf: &mut B, h: &Headers) -> Option<()> {
    if h.version == 6 {
        ipv6::decrement_hop_limit(buf, h.l3)
    } else {
        ipv4::decrement_ttl(buf, h.l3)
    }
}
