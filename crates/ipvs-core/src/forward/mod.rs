//! Forwarding: how a packet leaves towards its destination, or an error
//! towards its sender.

pub mod masquerade;
pub mod reject;
pub mod tunnel;

use ipvs_wire::{Buffer, Headers, ethernet, ipv4, ipv6};

use crate::addr::{Addr, Family};
use crate::conn::Conn;
use crate::dest::{Dest, DestId, ForwardingMethod};
use crate::director::Packet;
use crate::hop::{CachedHop, Hop, Route, RouteQuery};
use crate::tables::Tables;
use crate::verdict::{Reason, Verdict};

/// The way to a destination, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The frame can be addressed.
    Known(Hop),
    /// The neighbour's MAC address is to be found out.
    Unresolved {
        /// Interface.
        ifindex: u32,
        /// Largest IP packet, in octets.
        mtu: u32,
        /// Family of `next`.
        family: Family,
        /// The neighbour.
        next: Addr,
    },
    /// The host itself.
    Host,
    /// There is none.
    None,
}

impl Way {
    /// Largest IP packet on the way, in octets; no limit where that is open.
    #[inline(always)]
    const fn mtu(&self) -> u32 {
        match self {
            Self::Known(hop) => hop.mtu,
            Self::Unresolved { mtu, .. } => *mtu,
            Self::Host | Self::None => u32::MAX,
        }
    }
}

/// The way to the destination `id`; remembered for all its connections.
#[inline(always)]
pub fn way_to_dest<T: Tables>(tables: &T, id: DestId, dest: &Dest, epoch: u32) -> Way {
    let query = RouteQuery {
        family: dest.key.family(),
        destination: dest.key.addr,
        source: Addr::UNSPECIFIED,
    };
    match tables.dest_hop(id) {
        Some(cached) => way(tables, cached, &query, epoch),
        None => Way::None,
    }
}

/// The way back to the client of `conn`; remembered in the connection.
#[inline(always)]
pub fn way_to_client<T: Tables>(tables: &T, conn: &Conn, epoch: u32) -> Way {
    let tuple = conn.tuple.get();
    let query =
        RouteQuery { family: tuple.family(), destination: tuple.source, source: tuple.destination };
    way(tables, &conn.reply_hop, &query, epoch)
}

#[inline(always)]
fn way<T: Tables>(tables: &T, cached: &CachedHop, query: &RouteQuery, epoch: u32) -> Way {
    if let Some(hop) = cached.at(epoch) {
        return Way::Known(hop);
    }
    match tables.route(query) {
        Route::Via(hop) => {
            cached.store(hop, epoch);
            Way::Known(hop)
        }
        Route::Unresolved { ifindex, mtu, family, next } => {
            Way::Unresolved { ifindex, mtu, family, next }
        }
        Route::Host => Way::Host,
        Route::Unreachable => Way::None,
    }
}

/// Sends a client's packet to its destination by the connection's method.
#[inline(always)]
pub fn to_dest<B: Buffer, T: Tables>(
    packet: &mut Packet<'_, B>,
    tables: &T,
    conn: &Conn,
    dest: &Dest,
    way: &Way,
) -> Verdict {
    let method = ForwardingMethod::from_flags(conn.flags.get());
    let h = packet.headers;
    match way {
        Way::None => return reject::no_route(packet, tables),
        Way::Host => return to_host(packet, conn, dest, method),
        Way::Known(hop) if packet.is_tagged() && hop.ifindex != packet.ifindex => {
            return Verdict::Pass(Reason::Tagged);
        }
        Way::Known(_) | Way::Unresolved { .. } => {}
    }
    if h.ttl <= 1 {
        return reject::time_exceeded(packet, tables);
    }
    let overhead = match method {
        ForwardingMethod::Tunnel => tunnel::overhead(dest),
        _ => 0,
    };
    let mtu = way.mtu().saturating_sub(overhead);
    let checked =
        method != ForwardingMethod::Tunnel || h.version == 6 || tables.settings().pmtu_disc != 0;
    if checked && packet.is_longer_than(mtu) {
        if h.dont_fragment {
            // The sender is told about the packet as it would have left.
            if decrement_ttl(packet.buf, &h).is_none() {
                return Verdict::Drop(Reason::Unwritable);
            }
            return reject::too_big(packet, tables, mtu);
        }
        return Verdict::Drop(Reason::TooLong);
    }
    let written = decrement_ttl(packet.buf, &h).and_then(|()| match method {
        ForwardingMethod::Masquerade => masquerade::request(packet, conn, dest),
        ForwardingMethod::Tunnel => tunnel::encapsulate(packet, tables, dest),
        ForwardingMethod::DirectRoute => Some(()),
        ForwardingMethod::Local | ForwardingMethod::Bypass => None,
    });
    match written {
        Some(()) => leave(packet, way),
        None => Verdict::Drop(Reason::Unwritable),
    }
}

/// Sends a translated reply on its way to the client.
#[inline(always)]
pub fn to_client<B: Buffer, T: Tables>(
    packet: &mut Packet<'_, B>,
    tables: &T,
    conn: &Conn,
    way: &Way,
) -> Verdict {
    let h = packet.headers;
    match way {
        Way::None => return Verdict::Drop(Reason::NoRoute),
        Way::Known(hop) if packet.is_tagged() && hop.ifindex != packet.ifindex => {
            return Verdict::Pass(Reason::Tagged);
        }
        Way::Host => {
            // The client is the director itself: its stack gets the translated packet.
            return match masquerade::reply(packet, conn) {
                Some(()) => Verdict::Pass(Reason::Local),
                None => Verdict::Drop(Reason::Unwritable),
            };
        }
        Way::Known(_) | Way::Unresolved { .. } => {}
    }
    if h.ttl <= 1 {
        return reject::time_exceeded_reply(packet, tables);
    }
    if packet.is_longer_than(way.mtu()) {
        if h.dont_fragment {
            return reject::too_big_reply(packet, tables, conn, way.mtu());
        }
        return Verdict::Drop(Reason::TooLong);
    }
    match decrement_ttl(packet.buf, &h).and_then(|()| masquerade::reply(packet, conn)) {
        Some(()) => leave(packet, way),
        None => Verdict::Drop(Reason::Unwritable),
    }
}

/// The destination is the director itself: no TTL and MTU work, and the
/// host's stack delivers.
#[inline(always)]
fn to_host<B: Buffer>(
    packet: &mut Packet<'_, B>,
    conn: &Conn,
    dest: &Dest,
    method: ForwardingMethod,
) -> Verdict {
    let written = match method {
        ForwardingMethod::Masquerade => masquerade::request(packet, conn, dest),
        _ => Some(()),
    };
    match written {
        Some(()) => Verdict::Pass(Reason::Local),
        None => Verdict::Drop(Reason::Unwritable),
    }
}

/// Addresses the frame.
#[inline(always)]
fn leave<B: Buffer>(packet: &mut Packet<'_, B>, way: &Way) -> Verdict {
    match way {
        Way::Known(hop) => match ethernet::set_addresses(packet.buf, hop.neighbour, hop.own) {
            Some(()) => Verdict::Send { ifindex: hop.ifindex },
            None => Verdict::Drop(Reason::Unwritable),
        },
        Way::Unresolved { ifindex, family, next, .. } => {
            Verdict::Resolve { ifindex: *ifindex, family: *family, next: *next }
        }
        Way::Host | Way::None => Verdict::Drop(Reason::NoRoute),
    }
}

#[inline(always)]
fn decrement_ttl<B: Buffer>(buf: &mut B, h: &Headers) -> Option<()> {
    if h.version == 6 {
        ipv6::decrement_hop_limit(buf, h.l3)
    } else {
        ipv4::decrement_ttl(buf, h.l3)
    }
}
