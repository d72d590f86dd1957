//! The way of one packet through the director: the one entry point of both
//! data planes.
//!
//! Headers, connection, state, forwarding; on a miss service, scheduler and a
//! new connection in between. What the numbers in brackets mean: sections of
//! the behavioural notes in ARCHITECTURE.md.

use ipvs_wire::transport::protocol;
use ipvs_wire::{Buffer, Fragment, Headers, ParseError};

use crate::addr::Family;
use crate::conn::{Conn, ConnFlags, ConnId, Found, NONE, Tuple};
use crate::dest::{Dest, DestId, ForwardingMethod};
use crate::expiry;
use crate::forward::{self, Way, reject};
use crate::hop;
use crate::proto::{self, Direction};
use crate::sched;
use crate::service::{Service, ServiceFlags, ServiceKey};
use crate::settings::Settings;
use crate::tables::{Linked, Tables};
use crate::time::{Instant, Millis};
use crate::verdict::{Reason, Verdict};

/// How long a new connection lives before its first transition.
const NEWBORN: Millis = Millis(3_000);

/// A packet on its way through the director.
#[derive(Debug)]
pub struct Packet<'a, B> {
    /// Its octets.
    pub buf: &'a mut B,
    /// Its headers, as it came in.
    pub headers: Headers,
    /// The interface it came in by.
    pub ifindex: u32,
    /// Now.
    pub now: Instant,
}

impl<B: Buffer> Packet<'_, B> {
    /// Whether the frame has a VLAN tag.
    #[inline(always)]
    pub const fn is_tagged(&self) -> bool {
        self.headers.l3 != ipvs_wire::ethernet::HEADER_LEN
    }

    /// Whether the datagram cannot pass a link of `mtu` octets. A train of
    /// segments can: it is cut where it leaves.
    #[inline(always)]
    pub fn is_longer_than(&self, mtu: u32) -> bool {
        self.headers.total_len > mtu && self.buf.segment_len() == 0
    }

    /// An identification for a datagram that the director makes, not repeated soon.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "any 16 bits that change will do")]
    pub const fn identification(&self) -> u16 {
        (self.now.nanos() >> 10) as u16 ^ self.headers.source_port
    }
}

/// Takes the frame in `buf`, which came in by interface `ifindex`, through
/// the director.
#[inline(always)]
pub fn handle<B: Buffer, T: Tables>(
    buf: &mut B,
    tables: &T,
    ifindex: u32,
    now: Instant,
) -> Verdict {
    let verdict = decide(buf, tables, ifindex, now);
    match verdict {
        Verdict::Pass(reason) | Verdict::Drop(reason) => tables.count(reason),
        Verdict::Send { .. } | Verdict::Resolve { .. } => {}
    }
    verdict
}

#[inline(always)]
fn decide<B: Buffer, T: Tables>(buf: &mut B, tables: &T, ifindex: u32, now: Instant) -> Verdict {
    if tables.settings().services == 0 {
        return Verdict::Pass(Reason::NoService);
    }
    let headers = match Headers::parse(buf) {
        Ok(headers) => headers,
        Err(ParseError::NotIp) => return Verdict::Pass(Reason::NotIp),
        Err(ParseError::Malformed) => return Verdict::Pass(Reason::Malformed),
    };
    if !matches!(headers.protocol, protocol::TCP | protocol::UDP | protocol::SCTP) {
        return Verdict::Pass(Reason::OtherProtocol);
    }
    if headers.fragment != Fragment::No {
        return Verdict::Pass(Reason::Fragment);
    }
    let mut packet = Packet { buf, headers, ifindex, now };
    let tuple = Tuple::of(&headers);
    match live(tables, &tuple, now) {
        Some((Found { reply: true, .. }, conn)) => reply(&mut packet, tables, conn),
        Some((Found { id, .. }, conn)) => request(&mut packet, tables, &tuple, id, conn),
        None => unknown(&mut packet, tables, &tuple),
    }
}

/// The connection that `tuple` leads to, unless its time is over.
#[inline(always)]
fn live<'t, T: Tables>(tables: &'t T, tuple: &Tuple, now: Instant) -> Option<(Found, &'t Conn)> {
    let found = tables.find(tuple)?;
    let conn = tables.conn(found.id)?;
    if conn.has_ended(now) && expiry::expire(tables, found.id, conn, now) {
        return None;
    }
    Some((found, conn))
}

/// A client's packet of a known connection (1.2).
#[inline(always)]
fn request<B: Buffer, T: Tables>(
    packet: &mut Packet<'_, B>,
    tables: &T,
    tuple: &Tuple,
    id: ConnId,
    conn: &Conn,
) -> Verdict {
    let dest_id = conn.dest.get();
    let Some(dest) = tables.dest(dest_id) else { return Verdict::Drop(Reason::DestGone) };
    let settings = tables.settings();
    if proto::is_opening(&packet.headers)
        && is_reusable(conn, dest, settings)
        && expiry::expire(tables, id, conn, packet.now)
    {
        return unknown(packet, tables, tuple);
    }
    if !dest.is_available() {
        if settings.expire_nodest_conn != 0 && expiry::expire(tables, id, conn, packet.now) {
            return unknown(packet, tables, tuple);
        }
        return Verdict::Drop(Reason::DestGone);
    }
    forward_request(packet, tables, conn, dest_id, dest)
}

/// Whether an opening packet may take the place of the connection (4.9).
#[inline(always)]
fn is_reusable(conn: &Conn, dest: &Dest, settings: &Settings) -> bool {
    if settings.expire_nodest_conn != 0 && dest.spec.weight == 0 {
        return true;
    }
    settings.conn_reuse_mode != 0
        && conn.control.get() == NONE
        && proto::is_over(conn, settings.conn_reuse_mode)
}

/// Counts, takes the state on, forwards.
#[inline(always)]
fn forward_request<B: Buffer, T: Tables>(
    packet: &mut Packet<'_, B>,
    tables: &T,
    conn: &Conn,
    dest_id: DestId,
    dest: &Dest,
) -> Verdict {
    let epoch = hop::epoch(packet.now, tables.settings().route_generation);
    let way = forward::way_to_dest(tables, dest_id, dest, epoch);
    if !T::RESOLVES && matches!(way, Way::Unresolved { .. }) {
        return Verdict::Pass(Reason::Unresolved);
    }
    if let Some(counters) = tables.counters(dest_id) {
        counters.in_packets.set(counters.in_packets.get().wrapping_add(1));
        let bytes = u64::from(packet.headers.total_len);
        counters.in_bytes.set(counters.in_bytes.get().wrapping_add(bytes));
    }
    proto::transition(tables, conn, &packet.headers, Direction::FromClient);
    conn.in_packets.set(conn.in_packets.get().wrapping_add(1));
    conn.rearm(packet.now);
    forward::to_dest(packet, tables, conn, dest, &way)
}

/// A destination's packet of a masqueraded connection (1.3).
#[inline(always)]
fn reply<B: Buffer, T: Tables>(packet: &mut Packet<'_, B>, tables: &T, conn: &Conn) -> Verdict {
    let epoch = hop::epoch(packet.now, tables.settings().route_generation);
    let way = forward::way_to_client(tables, conn, epoch);
    if !T::RESOLVES && matches!(way, Way::Unresolved { .. }) {
        return Verdict::Pass(Reason::Unresolved);
    }
    count_reply(packet, tables, conn);
    forward::to_client(packet, tables, conn, &way)
}

#[inline(always)]
fn count_reply<B: Buffer, T: Tables>(packet: &Packet<'_, B>, tables: &T, conn: &Conn) {
    let dest_id = conn.dest.get();
    if tables.dest(dest_id).is_some_and(Dest::is_available)
        && let Some(counters) = tables.counters(dest_id)
    {
        counters.out_packets.set(counters.out_packets.get().wrapping_add(1));
        let bytes = u64::from(packet.headers.total_len);
        counters.out_bytes.set(counters.out_bytes.get().wrapping_add(bytes));
    }
    proto::transition(tables, conn, &packet.headers, Direction::FromDest);
    conn.rearm(packet.now);
}

/// A packet of no known connection: it starts one, or is a reply that is not
/// translated, or is not ours (1.4).
#[inline(always)]
fn unknown<B: Buffer, T: Tables>(packet: &mut Packet<'_, B>, tables: &T, tuple: &Tuple) -> Verdict {
    let family = Family::from_tag(tuple.family);
    let key =
        ServiceKey::address(family, tuple.protocol, tuple.destination, tuple.destination_port);
    let Some(service) = tables.service(&key) else {
        return direct_reply(packet, tables, tuple);
    };
    if !packet.headers.has_transport {
        return Verdict::Drop(Reason::ShortTransport);
    }
    if is_for_other_host(packet) {
        return Verdict::Pass(Reason::OtherHost);
    }
    if !proto::may_start(&packet.headers, tables.settings()) {
        return Verdict::Pass(Reason::NotStarting);
    }
    let Some((dest_id, dest)) = schedule(tables, service) else {
        return reject::no_destination(packet, tables);
    };
    let Some(id) = connect(packet, tables, tuple, service, dest_id, dest) else {
        return Verdict::Drop(Reason::TableFull);
    };
    let Some(conn) = tables.conn(id) else { return Verdict::Drop(Reason::TableFull) };
    // Another CPU may have been first with another choice: the connection decides.
    let dest_id = conn.dest.get();
    let Some(dest) = tables.dest(dest_id) else { return Verdict::Drop(Reason::DestGone) };
    forward_request(packet, tables, conn, dest_id, dest)
}

#[inline(always)]
fn schedule<'t, T: Tables>(tables: &'t T, service: &Service) -> Option<(DestId, &'t Dest)> {
    let id = sched::pick(tables, service)?;
    Some((id, tables.dest(id)?))
}

/// A frame to a group address reached us with others: no connection for it.
#[inline(always)]
fn is_for_other_host<B: Buffer>(packet: &Packet<'_, B>) -> bool {
    packet.buf.load(0).is_none_or(|[first]: [u8; 1]| first & 1 != 0)
}

/// A reply of a connection whose replies are not translated may pass the
/// director, which then counts it and follows the state.
#[inline(always)]
fn direct_reply<B: Buffer, T: Tables>(
    packet: &Packet<'_, B>,
    tables: &T,
    tuple: &Tuple,
) -> Verdict {
    match live(tables, &tuple.reversed(), packet.now) {
        Some((Found { reply: false, .. }, conn))
            if ForwardingMethod::from_flags(conn.flags.get()) != ForwardingMethod::Masquerade =>
        {
            count_reply(packet, tables, conn);
            Verdict::Pass(Reason::DirectReply)
        }
        _ => Verdict::Pass(Reason::NoService),
    }
}

/// Makes the connection of `tuple` to the destination, or finds the one that
/// another CPU made meanwhile. `None`: the table is full.
#[inline(always)]
fn connect<B: Buffer, T: Tables>(
    packet: &Packet<'_, B>,
    tables: &T,
    tuple: &Tuple,
    service: &Service,
    dest_id: DestId,
    dest: &Dest,
) -> Option<ConnId> {
    let id = tables.allocate()?;
    let Some(conn) = tables.conn(id) else {
        tables.release(id);
        return None;
    };
    let method = dest.spec.forwarding();
    let mut flags = ConnFlags::HASHED | ConnFlags::INACTIVE | method as u32;
    if method != ForwardingMethod::Masquerade {
        flags |= ConnFlags::NO_OUTPUT;
    }
    if service.has(ServiceFlags::ONE_PACKET) && tuple.protocol == protocol::UDP {
        flags |= ConnFlags::ONE_PACKET;
    }
    let dest_port = if dest.key.port == 0 { tuple.destination_port } else { dest.key.port };
    conn.tuple.set(*tuple);
    conn.timeout.set(NEWBORN.0);
    conn.rearm(packet.now);
    conn.dest.set(dest_id);
    conn.in_packets.set(0);
    conn.control.set(NONE);
    conn.controls.set(0);
    conn.fwmark.set(service.key.fwmark);
    conn.dest_port.set(dest_port);
    conn.state.set(0);
    conn.reply_hop.clear();
    conn.flags.set(flags);
    match tables.link(tuple, Found { id, reply: false }) {
        Linked::New => {}
        Linked::Taken(found) => {
            conn.flags.set(0);
            tables.release(id);
            return Some(found.id);
        }
        Linked::Full => {
            conn.flags.set(0);
            tables.release(id);
            return None;
        }
    }
    expiry::bind(tables, dest_id, dest, flags);
    if let Some(counters) = tables.counters(dest_id) {
        counters.conns.set(counters.conns.get().wrapping_add(1));
    }
    // The newest connection gets the replies, should two share their key.
    if method == ForwardingMethod::Masquerade
        && !tables.relink(&expiry::reply_tuple(tuple, dest, dest_port), Found { id, reply: true })
    {
        expiry::expire(tables, id, conn, packet.now);
        return None;
    }
    Some(id)
}
