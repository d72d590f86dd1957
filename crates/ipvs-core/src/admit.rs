//! Packets of no known connection: those that start one, and those that do not.

use ipvs_wire::transport::protocol;
use ipvs_wire::{Buffer, ethernet};

use crate::conn::{Conn, ConnFlags, ConnId, Found, NONE};
use crate::dest::{Dest, DestId, ForwardingMethod};
use crate::director::{self, Packet};
use crate::helper::{self, expect};
use crate::hop::WayKind;
use crate::sched::Flow;
use crate::service::{Service, ServiceFlags, ServiceKey};
use crate::tables::{Linked, Tables};
use crate::time::Millis;
use crate::verdict::Reason;
use crate::{defence, engine, expiry, forward, mark, near, persistence, proto, sched};

/// How long a new connection lives before its first transition.
const NEWBORN: Millis = Millis(3_000);
/// The port that active FTP data comes from.
const FTP_DATA: u16 = 20;
/// The port of FTP control connections.
const FTP: u16 = 21;
/// The first port that any program may listen on, where passive FTP data may go.
const FIRST_UNPRIVILEGED: u16 = 1024;

/// Finds or makes the connection for a packet that belongs to none.
#[inline(always)]
pub(crate) fn admit<B: Buffer, T: Tables>(
    packet: &mut Packet<'_, B>,
    tables: &T,
) -> Result<ConnId, Reason> {
    let quoted = packet.room.quoted;
    if !quoted && tables.expected().is_some_and(|expected| expected.get() != 0) {
        match expect::claim(packet, tables) {
            NONE => {}
            expect::GONE => return Err(Reason::DestGone),
            id => return Ok(id),
        }
    }
    mark::apply(packet, tables);
    let Some(service) = service_of(packet, tables) else {
        return Err(direct_reply(packet, tables));
    };
    // A frame to a group address reached us with others: no connection for it.
    if ethernet::destination(packet.buf).is_none_or(|[first, ..]| first & 1 != 0) {
        return Err(Reason::OtherHost);
    }
    // Of a packet that is quoted only the ports are asked for.
    let is_whole = quoted || packet.headers.has_transport;
    if is_whole && !quoted && !proto::may_start(packet.headers, tables.settings()) {
        return Err(Reason::NotStarting);
    }
    // The host sends on what is not for itself, whatever service has that address. A route
    // is asked for, so only now.
    if !service.key.is_fwmark() && !forward::is_for_host(packet.room, tables, packet.tuple) {
        return Err(Reason::NotLocal);
    }
    if !is_whole {
        return Err(Reason::ShortTransport);
    }
    let persistent = service.has(ServiceFlags::PERSISTENT);
    let is_other_port = !persistent
        && !service.key.is_fwmark()
        && service.key.port != packet.tuple.destination_port;
    let starts_nothing =
        packet.tuple.source_port == FTP_DATA || (is_other_port && service.key.port == FTP);
    // Whoever such a packet is passed to counts down for it, too.
    if starts_nothing && !T::RESOLVES {
        return Err(Reason::NotStarting);
    }
    if defence::drops_packet(tables) {
        return Err(Reason::Defence);
    }
    if starts_nothing {
        return Err(Reason::NotStarting);
    }
    if is_other_port {
        return Err(Reason::NoDestination);
    }
    packet.room.template = NONE;
    packet.room.client = *packet.tuple;
    packet.room.replaces = packet.room.makes_way != NONE;
    let mut dest_id = NONE;
    if persistent {
        if service.engine != engine::NONE && (quoted || !engine::read(packet, tables)) {
            return Err(Reason::NoEngineData);
        }
        packet.room.template = persistence::find(packet, tables, service);
        if let Some(template) = tables.conn(packet.room.template) {
            dest_id = template.dest.get();
        }
    }
    if dest_id == NONE {
        packet.room.flow = Flow::of(packet.tuple, packet.now);
        dest_id = sched::pick(tables, service, &packet.room.flow);
    }
    let dest = tables.dest(dest_id).ok_or(Reason::NoDestination)?;
    if persistent && packet.room.template == NONE {
        packet.room.template = persistence::make(packet, tables, service, dest_id, dest);
        if packet.room.template == NONE {
            return Err(Reason::TableFull);
        }
    }
    match connect(packet, tables, service, dest_id, dest) {
        NONE => Err(Reason::TableFull),
        id => Ok(id),
    }
}

/// Makes a connection past all destinations for a packet whose service has none
/// (`cache_bypass`): one of a firewall mark, to an address that is reached by way
/// of this host. [`NONE`] if it is not so, or the table is full.
#[inline(always)]
pub(crate) fn bypass<B: Buffer, T: Tables>(packet: &mut Packet<'_, B>, tables: &T) -> ConnId {
    if tables.settings().cache_bypass == 0 || !packet.room.service.is_fwmark() {
        return NONE;
    }
    let Some(service) = tables.service(&packet.room.service) else { return NONE };
    // Recorded on 6.1: over IPv6 an address of the host is one like any other, and the
    // connection leads nowhere.
    let may_be_host = packet.headers.version == 6;
    if !may_be_host && forward::is_for_host(packet.room, tables, packet.tuple) {
        return NONE;
    }
    forward::find_way_past(packet.room, tables, packet.tuple);
    match packet.room.way.kind {
        WayKind::Known | WayKind::Unresolved => {}
        WayKind::Host if may_be_host => {}
        WayKind::Host | WayKind::None => return NONE,
    }
    packet.room.client = *packet.tuple;
    packet.room.template = NONE;
    packet.room.replaces = packet.room.makes_way != NONE;
    let id = connect(packet, tables, service, NONE, Dest::NOBODY);
    if let Some(conn) = tables.conn(id) {
        conn.dest_port.set(0);
    }
    id
}

/// The service a packet is for: by its mark, else by address and port, else that
/// of FTP for what may be its data, else that of all ports.
#[inline(always)]
fn service_of<'t, B: Buffer, T: Tables>(
    packet: &mut Packet<'_, B>,
    tables: &'t T,
) -> Option<&'t Service> {
    let tuple = packet.tuple;
    let port = tuple.destination_port;
    let key = &mut packet.room.service;
    let mark = packet.room.mark;
    if mark != 0 {
        *key = ServiceKey::fwmark(tuple.family(), mark);
        if let Some(service) = tables.service(key) {
            return Some(service);
        }
    }
    *key = ServiceKey::address(tuple.family(), tuple.protocol, tuple.destination, port);
    if let Some(service) = tables.service(key) {
        return Some(service);
    }
    let settings = tables.settings();
    if settings.ftp_services != 0
        && tuple.protocol == protocol::TCP
        && (port == FTP_DATA || port >= FIRST_UNPRIVILEGED)
    {
        key.port = FTP;
        if let Some(service) = tables.service(key) {
            return Some(service);
        }
    }
    if settings.all_port_services == 0 {
        return None;
    }
    key.port = 0;
    tables.service(key)
}

/// A reply of a connection whose replies are not translated may pass the
/// director, which then counts it and follows the state.
#[inline(always)]
pub(crate) fn direct_reply<B: Buffer, T: Tables>(packet: &mut Packet<'_, B>, tables: &T) -> Reason {
    packet.room.key = packet.tuple.reversed();
    let Some(Found { id, reply: false }) = tables.find(&packet.room.key) else {
        return Reason::NoService;
    };
    let Some(conn) = tables.conn(id).filter(|conn| !conn.has_ended(packet.now)) else {
        return Reason::NoService;
    };
    if ForwardingMethod::from_flags(conn.flags.get()) == ForwardingMethod::Masquerade {
        return Reason::NoService;
    }
    // Else the plane that it is passed to finds it, too.
    if T::RESOLVES {
        director::count_reply(packet, tables, conn, packet.headers.total_len);
    }
    Reason::DirectReply
}

/// Makes the connection between the client in the room and the destination, or
/// finds the one that another CPU made meanwhile; [`NONE`] if the table is full.
#[inline(never)]
pub(crate) fn connect<B: Buffer, T: Tables>(
    packet: &mut Packet<'_, B>,
    tables: &T,
    service: &Service,
    dest_id: DestId,
    dest: &Dest,
) -> ConnId {
    let tuple = &packet.room.client;
    let Some(id) = tables.allocate() else { return NONE };
    let Some(conn) = tables.conn(id) else {
        tables.release(id);
        return NONE;
    };
    let mut flags = flags_for(dest);
    if helper::is_helped(tables.settings(), tuple, flags) {
        flags |= ConnFlags::HELPED;
    }
    if service.has(ServiceFlags::ONE_PACKET) && tuple.protocol == protocol::UDP {
        // It serves one packet, and is not found by another.
        flags = flags & !ConnFlags::HASHED | ConnFlags::ONE_PACKET;
    }
    conn.set_tuple(tuple);
    conn.timeout.set(NEWBORN.0);
    conn.rearm(packet.now);
    conn.dest_port.set(dest_port(service, dest, tuple.destination_port));
    conn.fwmark.set(packet.room.mark);
    conn.control.set(NONE);
    start(conn, dest_id, flags);
    if flags & ConnFlags::HASHED != 0 {
        let found = Found { id, reply: false };
        let linked = if !packet.room.replaces {
            tables.link(tuple, found)
        } else if near::relink(tables, tuple, found) {
            Linked::New
        } else {
            Linked::Full
        };
        match linked {
            Linked::New => {}
            Linked::Taken(found) => {
                conn.flags.set(0);
                tables.release(id);
                return found.id;
            }
            Linked::Full => {
                conn.flags.set(0);
                tables.release(id);
                return NONE;
            }
        }
    }
    expiry::bind(tables, dest_id, dest, flags);
    // One for a single packet counts with that.
    if flags & ConnFlags::ONE_PACKET == 0
        && let Some(counters) = tables.counters(dest_id)
    {
        counters.count_conn();
    }
    if let Some(template) = tables.conn(packet.room.template) {
        conn.control.set(packet.room.template);
        tables.add(&template.controls, 1);
        template.rearm(packet.now);
    }
    // The newest connection gets the replies, should two share their key.
    if flags & ConnFlags::HASHED != 0
        && ForwardingMethod::from_flags(flags) == ForwardingMethod::Masquerade
    {
        expiry::set_reply_tuple(&mut packet.room.key, conn, dest);
        if !near::relink(tables, &packet.room.key, Found { id, reply: true }) {
            expiry::expire(tables, &mut packet.room.key, id, conn, packet.now);
            return NONE;
        }
    }
    id
}

/// The flags that a connection or template takes from its destination.
#[inline(always)]
pub(crate) fn flags_for(dest: &Dest) -> u32 {
    let method = dest.spec.forwarding();
    let flags = ConnFlags::HASHED | ConnFlags::INACTIVE | method as u32;
    match method {
        ForwardingMethod::Masquerade => flags,
        _ => flags | ConnFlags::NO_OUTPUT,
    }
}

/// Sets what is the same for every new connection and template, the flags
/// last: they make it one.
#[inline(always)]
pub(crate) fn start(conn: &Conn, dest_id: DestId, flags: u32) {
    conn.dest.set(dest_id);
    conn.in_packets.set(0);
    conn.controls.set(0);
    conn.state.set(0);
    conn.reply_hop.clear();
    for word in &conn.extra {
        word.set(0);
    }
    conn.flags.set(flags);
}

/// The port at the destination of a connection to `port`.
#[inline(always)]
fn dest_port(service: &Service, dest: &Dest, port: u16) -> u16 {
    let other = service.has(ServiceFlags::PERSISTENT) && service.key.port != port;
    if dest.key.port == 0 || other { port } else { dest.key.port }
}
