//! The way of one packet through the director: the one entry point of both
//! data planes.
//!
//! Headers, connection, state, forwarding; on a miss service, scheduler and a
//! new connection in between.

use ipvs_wire::{Buffer, Fragment, Headers, ParseError, ethernet};

use crate::addr::{Addr, AddrKey, Family};
use crate::admit;
use crate::conn::{Conn, ConnFlags, ConnId, Found, NONE, Tuple};
use crate::dest::Dest;
use crate::engine::sip::Scan;
use crate::engine::{self, CallerKey, Data};
use crate::expiry;
use crate::forward;
use crate::forward::reject::{self, Report};
use crate::forward::reset;
use crate::fragments;
use crate::helper;
use crate::hop::{self, RouteQuery, Way};
use crate::icmp;
use crate::near;
use crate::one_packet;
use crate::options;
use crate::proto::{self, Direction};
use crate::sched::Flow;
use crate::service::ServiceKey;
use crate::standing::{Standing, standing};
use crate::tables::Tables;
use crate::time::Instant;
use crate::verdict::{Outcome, Reason, Stage, Verdict};

/// What is worked with, one for each packet at a time.
///
/// It is the caller's because an eBPF program has 512 octets of stack.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scratch {
    pub(crate) headers: Headers,
    /// Those of the packet that an ICMP error quotes.
    pub(crate) quoted: Headers,
    pub(crate) tuple: Tuple,
    pub(crate) room: Room,
    /// For a plane that sees what the host sends on: whether the packet is such a one.
    pub is_sent_on: bool,
}

/// Room to build keys, questions and answers in.
#[derive(Clone, Copy, Debug, Default)]
pub struct Room {
    pub(crate) key: Tuple,
    pub(crate) addr: AddrKey,
    pub(crate) service: ServiceKey,
    pub(crate) flow: Flow,
    /// Client and virtual service of the connection in the making.
    pub(crate) client: Tuple,
    /// It takes the key of one that is there.
    pub(crate) replaces: bool,
    /// What is admitted is quoted by the packet, which is an ICMP error.
    pub(crate) quoted: bool,
    /// The connection that makes way for it, or [`NONE`].
    pub(crate) makes_way: ConnId,
    pub(crate) caller: CallerKey,
    pub(crate) query: RouteQuery,
    pub(crate) way: Way,
    /// The connection that admission has found, as [`Found::word`].
    pub(crate) admitted: u32,
    /// The error that answers the packet.
    pub(crate) report: Report,
    /// The template of the connection in the making, or [`NONE`].
    pub(crate) template: ConnId,
    /// The packet's firewall mark, at first the one it came with, in the end the
    /// one it is to leave with; 0 for none.
    pub(crate) mark: u32,
    /// What the persistence engine read.
    pub(crate) data: Data,
    pub(crate) scan: Scan,
}

impl Scratch {
    /// The packet that was read.
    #[inline(always)]
    pub(crate) const fn packet<'a, B>(
        &'a mut self,
        buf: &'a mut B,
        ifindex: u32,
        now: Instant,
    ) -> Packet<'a, B> {
        let Self { headers, tuple, room, .. } = self;
        Packet { buf, headers, tuple, room, ifindex, now }
    }

    /// The neighbour of the last [`Verdict::Resolve`].
    #[inline(always)]
    pub const fn neighbour(&self) -> (Family, Addr) {
        (self.room.way.next_family, self.room.way.next)
    }

    /// The firewall mark of the connection that the last packet went with: what
    /// the packet leaves with where packets have marks. 0 for none.
    #[inline(always)]
    pub const fn mark(&self) -> u32 {
        self.room.mark
    }
}

/// How a frame came in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arrival {
    /// The interface it came in by.
    pub ifindex: u32,
    /// The firewall mark it came with; 0 for none.
    pub mark: u32,
}

impl Arrival {
    /// By this interface, without a mark.
    #[inline(always)]
    pub const fn by(ifindex: u32) -> Self {
        Self { ifindex, mark: 0 }
    }
}

/// A packet on its way through the director.
#[derive(Debug)]
pub struct Packet<'a, B> {
    /// Its octets.
    pub buf: &'a mut B,
    /// Its headers, as it came in.
    pub headers: &'a Headers,
    /// Its key.
    pub tuple: &'a Tuple,
    /// Room to work in.
    pub room: &'a mut Room,
    /// The interface it came in by.
    pub ifindex: u32,
    /// Now.
    pub now: Instant,
}

impl<B: Buffer> Packet<'_, B> {
    /// Whether the frame has a VLAN tag.
    #[inline(always)]
    pub const fn is_tagged(&self) -> bool {
        self.headers.l3 != ethernet::HEADER_LEN
    }

    /// Whether the datagram cannot pass a link of `mtu` octets. A train of
    /// segments can: it is cut where it leaves. So can a datagram of IPv6 that
    /// came in fragments, if they can (recorded).
    #[inline(always)]
    pub fn is_longer_than(&self, mtu: u32) -> bool {
        self.headers.total_len > mtu
            && self.buf.segment_len() == 0
            && (self.headers.version != 6
                || self.buf.longest_piece() == 0
                || self.buf.longest_piece() > mtu)
    }

    /// An identification for a datagram that the director makes, not repeated soon.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "any 16 bits that change will do")]
    pub const fn identification(&self) -> u16 {
        (self.now.nanos() >> 10) as u16 ^ self.headers.source_port
    }
}

/// Takes the frame in `buf`, which came in as `arrival` says, through the
/// director.
#[inline(always)]
pub fn handle<B: Buffer, T: Tables>(
    buf: &mut B,
    tables: &T,
    scratch: &mut Scratch,
    arrival: Arrival,
    now: Instant,
) -> Verdict {
    let outcome = decide(buf, tables, scratch, arrival, now);
    concluded(tables, scratch, outcome)
}

/// Leads a packet on for which the stage before came to
/// [`Verdict::GoOn`]; what that read is still in `scratch`.
#[inline(always)]
pub fn go_on<B: Buffer, T: Tables>(
    stage: Stage,
    buf: &mut B,
    tables: &T,
    scratch: &mut Scratch,
    ifindex: u32,
    now: Instant,
) -> Verdict {
    let outcome = match stage {
        Stage::Icmp => icmp::handle(buf, tables, scratch, ifindex, now),
        Stage::Tunnelled => icmp::tunnelled::handle(buf, tables, scratch, ifindex, now),
        Stage::Admission => start(&mut scratch.packet(buf, ifindex, now), tables),
        Stage::Forwarding => {
            let found = Found::from_word(scratch.room.admitted);
            carry(&mut scratch.packet(buf, ifindex, now), tables, found)
        }
        Stage::Refusal => reject::refuse(&mut scratch.packet(buf, ifindex, now), tables),
    };
    concluded(tables, scratch, outcome)
}

/// Whether a packet with this key is one of a destination to a client.
#[inline(always)]
pub(crate) fn leads_to_client<T: Tables>(tables: &T, tuple: &Tuple, now: Instant) -> bool {
    near::find(tables, tuple).is_some_and(|found| {
        found.reply && tables.conn(found.id).is_some_and(|conn| !conn.has_ended(now))
    })
}

#[inline(always)]
fn concluded<T: Tables>(tables: &T, scratch: &Scratch, outcome: Outcome) -> Verdict {
    let verdict = outcome.verdict(scratch.room.way.hop.mtu);
    match verdict {
        // Whoever passes a packet to a plane that resolves leaves it to that to count it.
        Verdict::Pass(reason) if !T::RESOLVES && reason != Reason::Unresolved => {}
        Verdict::Pass(reason) | Verdict::Drop(reason) => tables.count(reason),
        Verdict::Send { .. } | Verdict::Resolve { .. } | Verdict::Defer(_) | Verdict::GoOn(_) => {}
        Verdict::Deliver => tables.count(Reason::Replied),
    }
    verdict
}

/// Tells the sender of the fragment in `buf`, the first of its datagram, that
/// the others did not come in time, if it was sent to a virtual address. For a
/// plane that puts fragments together.
pub fn reassembly_failed<B: Buffer, T: Tables>(
    buf: &mut B,
    tables: &T,
    scratch: &mut Scratch,
    ifindex: u32,
    now: Instant,
) -> Verdict {
    let Scratch { headers, tuple, room, .. } = scratch;
    if headers.read(buf).is_err() || !fragments::are_for_service(headers, tables, room) {
        return Verdict::Drop(Reason::FragmentTimeout);
    }
    let mut packet = Packet { buf, headers, tuple, room, ifindex, now };
    let outcome = reject::reassembly_failed(&mut packet, tables);
    outcome.verdict(packet.room.way.hop.mtu)
}

#[inline(always)]
fn decide<B: Buffer, T: Tables>(
    buf: &mut B,
    tables: &T,
    scratch: &mut Scratch,
    arrival: Arrival,
    now: Instant,
) -> Outcome {
    let Scratch { headers, tuple, room, .. } = scratch;
    room.mark = arrival.mark;
    room.quoted = false;
    room.makes_way = NONE;
    match headers.read(buf) {
        Ok(()) => {}
        Err(ParseError::NotIp) => return Outcome::pass(Reason::NotIp),
        Err(ParseError::Malformed) => return Outcome::pass(Reason::Malformed),
    }
    let settings = tables.settings();
    let services = if headers.version == 6 { settings.services_v6 } else { settings.services_v4 };
    if services == 0 {
        // An error from inside a tunnel may be of the other family.
        let others = settings.services_v4 | settings.services_v6;
        if others == 0 || !icmp::is_icmp(headers) {
            return Outcome::pass(Reason::NoService);
        }
    }
    if headers.fragment != Fragment::No {
        return if fragments::concern(headers, tables, room) {
            Outcome::defer(Reason::DeferredFragment)
        } else {
            Outcome::pass(Reason::Fragment)
        };
    }
    let is_balanced = headers.is_balanced();
    if is_balanced {
        *tuple = Tuple::of(headers);
    } else if icmp::is_icmp(headers) {
        if T::STAGES_APART {
            return Outcome::go_on(Stage::Icmp);
        }
        return icmp::handle(buf, tables, scratch, arrival.ifindex, now);
    } else if headers.is_ipsec() {
        *tuple = Tuple::of_ike(headers);
    } else {
        return Outcome::pass(Reason::OtherProtocol);
    }
    if options::are_there(headers) {
        if T::CUTS {
            if !options::are_sound(buf, headers) {
                return Outcome::pass(Reason::OptionsRefused);
            }
        } else if fragments::concern(headers, tables, room) {
            return Outcome::defer(Reason::DeferredOptions);
        }
    }
    let ifindex = arrival.ifindex;
    let mut packet = Packet { buf: &mut *buf, headers, tuple, room, ifindex, now };
    if let Some((found, conn)) = live(&mut packet, tables) {
        match standing(&mut packet, tables, found, conn) {
            Standing::Goes => return carry(&mut packet, tables, found),
            Standing::Gone => return Outcome::drop(Reason::DestGone),
            Standing::Over => packet.room.makes_way = found.id,
            Standing::Taken => {}
            Standing::Reset if !T::CUTS => {
                return if T::RESOLVES {
                    Outcome::defer(Reason::DeferredReset)
                } else {
                    Outcome::pass(Reason::LeftToRefuse)
                };
            }
            Standing::Reset => return reset::lead(buf, tables, scratch, arrival.ifindex, now),
        }
    }
    // IPsec starts nothing of its own.
    if !is_balanced {
        return Outcome::pass(Reason::OtherProtocol);
    }
    if T::STAGES_APART { Outcome::go_on(Stage::Admission) } else { start(&mut packet, tables) }
}

/// Starts a connection with the packet, which belongs to none, and has it go
/// with that.
#[inline(always)]
fn start<B: Buffer, T: Tables>(packet: &mut Packet<'_, B>, tables: &T) -> Outcome {
    let found = connect(packet, tables);
    // The kernel ends it at its next tick: until the new one stands, it counts.
    let old = packet.room.makes_way;
    if let Some(conn) = tables.conn(old) {
        expiry::expire(tables, &mut packet.room.key, old, conn, packet.now);
    }
    match found {
        Ok(found) if T::STAGES_APART => {
            packet.room.admitted = found.word();
            Outcome::go_on(if packet.room.quoted { Stage::Icmp } else { Stage::Forwarding })
        }
        Ok(found) => carry(packet, tables, found),
        Err(outcome) => outcome,
    }
}

/// The connection of a packet that belongs to none, or what becomes of it without.
#[inline(always)]
pub(crate) fn connect<B: Buffer, T: Tables>(
    packet: &mut Packet<'_, B>,
    tables: &T,
) -> Result<Found, Outcome> {
    match admit::admit(packet, tables) {
        Ok(id) => Ok(Found { id, reply: false }),
        // No error is made about an error, and nothing is bypassed for one.
        Err(reason) if packet.room.quoted => Err(match reason {
            Reason::NoService if T::STAGES_APART && T::RESOLVES => Outcome::go_on(Stage::Tunnelled),
            reason if reason.drops() => Outcome::drop(reason),
            reason => Outcome::pass(reason),
        }),
        Err(Reason::NoDestination) => match admit::bypass(packet, tables) {
            NONE => Err(reject::no_destination(packet, tables)),
            id => Ok(Found { id, reply: false }),
        },
        Err(Reason::NoService) if tables.settings().callers != 0 => {
            // A destination may have sent it by itself: a reply of the
            // connection that is made for it.
            match engine::outgoing::connect(packet, tables) {
                NONE => Err(stray(packet, tables)),
                id => Ok(Found { id, reply: true }),
            }
        }
        Err(reason) if reason.drops() => Err(Outcome::drop(reason)),
        Err(reason) => Err(Outcome::pass(reason)),
    }
}

/// What a packet comes to that belongs to no service and no connection: if it is a
/// masqueraded destination's, that may be told so (`nat_icmp_send`).
#[inline(always)]
fn stray<B: Buffer, T: Tables>(packet: &mut Packet<'_, B>, tables: &T) -> Outcome {
    let unknown = Outcome::pass(Reason::NoService);
    if tables.settings().nat_icmp_send == 0 || proto::is_abort(packet.headers) {
        return unknown;
    }
    if !T::RESOLVES {
        // Rare, and the packet is changed before it is known whether the plane can send it.
        return unknown;
    }
    packet.room.caller = CallerKey::of(packet.tuple);
    match tables.caller(&packet.room.caller).and_then(|caller| tables.dest(caller.dest)) {
        Some(dest) => reject::stray(packet, tables, dest),
        None => unknown,
    }
}

/// Carries the packet on along its connection.
#[inline(always)]
pub(crate) fn carry<B: Buffer, T: Tables>(
    packet: &mut Packet<'_, B>,
    tables: &T,
    found: Found,
) -> Outcome {
    let Found { id, reply: is_reply } = found;
    let Some(conn) = tables.conn(id) else { return Outcome::drop(Reason::TableFull) };
    if T::CUTS
        && options::are_there(packet.headers)
        && record(packet, tables, found, conn).is_none()
    {
        return Outcome::drop(Reason::Unwritable);
    }
    let outcome =
        if is_reply { reply(packet, tables, id, conn) } else { request(packet, tables, id, conn) };
    if conn.has(ConnFlags::ONE_PACKET) {
        one_packet::conclude(tables, packet.tuple, found.word(), conn, outcome.is_left::<T>());
    }
    outcome
}

/// Fills in the IPv4 options: requests come by the virtual address, replies leave by it.
fn record<B: Buffer, T: Tables>(
    packet: &mut Packet<'_, B>,
    tables: &T,
    found: Found,
    conn: &Conn,
) -> Option<()> {
    let vip = conn.tuple.get().destination;
    let time = match tables.dest(conn.dest.get()) {
        Some(dest) if found.reply => dest.tunnel_source,
        _ => vip,
    };
    let record = options::Record { route: vip, time };
    options::fill(packet.buf, packet.headers, tables, packet.room, record)
}

/// The connection of the packet, unless its time is over.
#[inline(always)]
pub(crate) fn live<'t, B, T: Tables>(
    packet: &mut Packet<'_, B>,
    tables: &'t T,
) -> Option<(Found, &'t Conn)> {
    let found = near::find(tables, packet.tuple)?;
    let conn = tables.conn(found.id)?;
    if conn.has_ended(packet.now)
        && expiry::expire(tables, &mut packet.room.key, found.id, conn, packet.now)
    {
        return None;
    }
    Some((found, conn))
}

/// A client's packet of a connection: counts, takes the state on, forwards.
#[inline(always)]
fn request<B: Buffer, T: Tables>(
    packet: &mut Packet<'_, B>,
    tables: &T,
    id: ConnId,
    conn: &Conn,
) -> Outcome {
    if !T::HELPS && conn.has(ConnFlags::HELPED) {
        return Outcome::defer(Reason::DeferredHelped);
    }
    let dest_id = conn.dest.get();
    let dest = match tables.dest(dest_id) {
        Some(dest) => dest,
        None if conn.is_bypass() => Dest::NOBODY,
        None => return Outcome::drop(Reason::DestGone),
    };
    if conn.is_bypass() {
        forward::find_way_past(packet.room, tables, packet.tuple);
    } else if conn.has(ConnFlags::ELSEWHERE) {
        forward::find_way_elsewhere(packet.room, tables, conn);
    } else {
        forward::find_way_to_dest(packet.room, tables, dest_id, dest, packet.now);
    }
    if !T::RESOLVES {
        if let Some(reason) = forward::why_request_left(packet, conn, dest) {
            return Outcome::pass(reason);
        }
    } else if !T::CUTS {
        if forward::must_cut_request(packet, tables, conn, dest) {
            return Outcome::defer(Reason::DeferredLong);
        }
        if forward::must_complete_request(packet, conn, dest) {
            return Outcome::defer(Reason::DeferredUnfilled);
        }
    }
    if let Some(counters) = tables.counters(dest_id) {
        counters.count_in(u64::from(packet.headers.total_len));
    }
    proto::transition(tables, conn, packet.headers, Direction::FromClient);
    conn.in_packets.set(conn.in_packets.get().wrapping_add(1));
    packet.room.mark = conn.fwmark.get();
    conn.rearm(packet.now);
    forward::to_dest(packet, tables, id, conn, dest)
}

/// A destination's packet of a masqueraded connection.
#[inline(always)]
fn reply<B: Buffer, T: Tables>(
    packet: &mut Packet<'_, B>,
    tables: &T,
    id: ConnId,
    conn: &Conn,
) -> Outcome {
    if !T::HELPS && conn.has(ConnFlags::HELPED) {
        return Outcome::defer(Reason::DeferredHelped);
    }
    let epoch = hop::epoch(packet.now, tables.settings().route_generation);
    forward::find_way_to_client(packet.room, tables, conn, epoch);
    if T::RESOLVES {
        let lives_out = packet.headers.ttl <= 1;
        let too_long = packet.headers.version == 4
            && packet.headers.dont_fragment
            && packet.is_longer_than(packet.room.way.mtu());
        if lives_out || too_long {
            // What a forwarding host finds before it asks us: not counted, not translated.
            return if T::CUTS {
                reject::reply(packet, tables, conn)
            } else {
                Outcome::pass(Reason::LeftToRefuse)
            };
        }
        if !T::CUTS && forward::must_cut_reply(packet) {
            return Outcome::defer(Reason::DeferredLong);
        }
    } else if let Some(reason) = forward::why_left(packet, 0) {
        return Outcome::pass(reason);
    }
    let mut len = packet.headers.total_len;
    if T::HELPS && conn.has(ConnFlags::HELPED) {
        match helper::reply(packet, tables, id, conn) {
            Ok(written) => len = written,
            Err(reason) => return Outcome::drop(reason),
        }
    }
    count_reply(packet, tables, conn, len);
    packet.room.mark = conn.fwmark.get();
    forward::to_client(packet, tables, conn)
}

/// Counts a reply that leaves with `len` octets, and takes the state on.
#[inline(always)]
pub(crate) fn count_reply<B: Buffer, T: Tables>(
    packet: &Packet<'_, B>,
    tables: &T,
    conn: &Conn,
    len: u32,
) {
    let dest_id = conn.dest.get();
    if tables.dest(dest_id).is_some_and(Dest::is_available)
        && let Some(counters) = tables.counters(dest_id)
    {
        counters.count_out(u64::from(len));
    }
    proto::transition(tables, conn, packet.headers, Direction::FromDest);
    conn.rearm(packet.now);
}
