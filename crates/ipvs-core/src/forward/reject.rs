//! The errors that the director sends: ICMP and ICMPv6, made out of the packet
//! at fault and sent back to its sender.

use ipvs_wire::checksum::Sum;
use ipvs_wire::icmp::{self, IcmpError};
use ipvs_wire::ipv4::Ipv4Fields;
use ipvs_wire::ipv6::Ipv6Fields;
use ipvs_wire::transport::protocol;
use ipvs_wire::{Buffer, Outer, ipv4, ipv6};

use crate::addr::{Addr, Family};
use crate::conn::{Conn, NONE};
use crate::dest::{Dest, DestId, ForwardingMethod};
use crate::director::Packet;
use crate::hop::WayKind;
use crate::tables::Tables;
use crate::verdict::{Outcome, Reason, Stage};

/// Longest IPv4 error, in octets (RFC 1812, section 4.3.2.3).
const LONGEST_V4: u32 = 576;
/// Longest IPv6 error, in octets (RFC 4443, section 2.4).
const LONGEST_V6: u32 = 1280;
/// Octets in front of the packet quoted in an IPv4 error.
const HEADERS_V4: u32 = ipv4::HEADER_LEN + icmp::HEADER_LEN;
/// Octets in front of the packet quoted in an IPv6 error.
const HEADERS_V6: u32 = ipv6::HEADER_LEN + icmp::HEADER_LEN;
/// Hop limit of what the host makes itself.
const TTL: u8 = 64;
/// The bits of the type of service that an error takes over (RFC 1812, section 4.3.2.5) …
const TOS_KEPT: u8 = 0x1e;
/// … and the precedence it gets: internetwork control.
const TOS_SET: u8 = 0xc0;

/// An error to be sent: what it says, and from whom.
///
/// Aligned, and laid out in groups of eight octets, because the compiler writes
/// neighbours at once, which the verifier takes on the stack at multiples of
/// eight only.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
pub(crate) struct Report {
    source: Addr,
    error: IcmpError,
    sent: Reason,
    unsent: Reason,
    /// Whose outgoing packets it is counted among, if anybody's.
    dest: DestId,
    /// The virtual port that a reply quoted in it was translated to, and back; 0 if none
    /// was. The virtual address is `source`.
    translated: u16,
    ttl: u8,
}

impl Default for Report {
    fn default() -> Self {
        Self {
            source: Addr::UNSPECIFIED,
            error: IcmpError::V4_PORT_UNREACHABLE,
            sent: Reason::SentUnreachable,
            unsent: Reason::NoDestination,
            dest: NONE,
            translated: 0,
            ttl: TTL,
        }
    }
}

/// No destination: port unreachable, for TCP too.
#[inline(always)]
pub(crate) fn no_destination<B: Buffer, T: Tables>(
    packet: &mut Packet<'_, B>,
    tables: &T,
) -> Outcome {
    let error = by_family(packet, IcmpError::V4_PORT_UNREACHABLE, IcmpError::V6_PORT_UNREACHABLE);
    let marked = packet.room.mark != 0;
    // It is taken for one of the connection that makes way, as long as that is there.
    let dest = tables.conn(packet.room.makes_way).map_or(NONE, |conn| counted(conn).0);
    send(packet, tables, error, (dest, marked), [Reason::SentUnreachable, Reason::NoDestination])
}

/// No route to the destination: host unreachable.
#[inline(always)]
pub(crate) fn no_route<B: Buffer, T: Tables>(
    packet: &mut Packet<'_, B>,
    tables: &T,
    conn: &Conn,
) -> Outcome {
    let error =
        by_family(packet, IcmpError::V4_HOST_UNREACHABLE, IcmpError::V6_ADDRESS_UNREACHABLE);
    send(packet, tables, error, counted(conn), [Reason::SentUnreachable, Reason::NoRoute])
}

/// The time to live of a client's packet ends here.
#[inline(always)]
pub(crate) fn time_exceeded<B: Buffer, T: Tables>(
    packet: &mut Packet<'_, B>,
    tables: &T,
    conn: &Conn,
) -> Outcome {
    let error = by_family(packet, IcmpError::V4_TIME_EXCEEDED, IcmpError::V6_TIME_EXCEEDED);
    let reasons = [Reason::SentTimeExceeded, Reason::NoRoute];
    send(packet, tables, error, counted(conn), reasons)
}

/// Fragments for a virtual address, of which `packet` is the first, did not
/// become a datagram in time: a host's error.
#[inline(always)]
pub(crate) fn reassembly_failed<B: Buffer, T: Tables>(
    packet: &mut Packet<'_, B>,
    tables: &T,
) -> Outcome {
    let error = by_family(
        packet,
        IcmpError::V4_REASSEMBLY_TIME_EXCEEDED,
        IcmpError::V6_REASSEMBLY_TIME_EXCEEDED,
    );
    send(packet, tables, error, (NONE, false), [Reason::SentTimeExceeded, Reason::FragmentTimeout])
}

/// A client's packet is longer than the path.
#[inline(always)]
pub(crate) fn too_big<B: Buffer, T: Tables>(
    packet: &mut Packet<'_, B>,
    tables: &T,
    conn: &Conn,
    mtu: u32,
) -> Outcome {
    let error =
        by_family(packet, IcmpError::fragmentation_needed(mtu), IcmpError::packet_too_big(mtu));
    send(packet, tables, error, counted(conn), [Reason::SentTooBig, Reason::TooLong])
}

/// An error from inside a tunnel about the client's packet, which alone is left of it.
#[inline(always)]
pub(crate) fn relay<B: Buffer, T: Tables>(
    packet: &mut Packet<'_, B>,
    tables: &T,
    conn: &Conn,
    error: IcmpError,
) -> Outcome {
    let sent = match error {
        IcmpError { kind: 3, code: 4, .. } => Reason::SentTooBig,
        IcmpError { kind: 11, .. } => Reason::SentTimeExceeded,
        _ => Reason::SentUnreachable,
    };
    send(packet, tables, error, counted(conn), [sent, Reason::Unanswerable])
}

/// A reply's time to live ends here, or it is longer than the path: the
/// destination is told, by the director's address towards it.
#[inline(always)]
pub(crate) fn reply<B: Buffer, T: Tables>(
    packet: &mut Packet<'_, B>,
    tables: &T,
    conn: &Conn,
) -> Outcome {
    let source = match tables.dest(conn.dest.get()) {
        Some(dest) => dest.tunnel_source,
        None => return Outcome::drop(Reason::DestGone),
    };
    let mtu = packet.room.way.mtu();
    let (error, sent) = if packet.headers.ttl <= 1 {
        let error = by_family(packet, IcmpError::V4_TIME_EXCEEDED, IcmpError::V6_TIME_EXCEEDED);
        (error, Reason::SentTimeExceeded)
    } else {
        (IcmpError::fragmentation_needed(mtu), Reason::SentTooBig)
    };
    packet.room.report =
        Report { source, error, sent, unsent: Reason::NoRoute, ..Report::default() };
    answer(packet, tables)
}

/// A masqueraded destination's packet of no connection: port unreachable, by the
/// director's address towards it, about the packet as it would have left. One that is for
/// the host, or ends here anyway, is the host's.
#[inline(always)]
pub(crate) fn stray<B: Buffer, T: Tables>(
    packet: &mut Packet<'_, B>,
    tables: &T,
    dest: &Dest,
) -> Outcome {
    let h = packet.headers;
    if h.ttl <= 1 || super::is_for_host(packet.room, tables, packet.tuple) {
        return Outcome::pass(Reason::NoService);
    }
    if super::decrement_ttl(packet.buf, h).is_none() {
        return Outcome::drop(Reason::Unwritable);
    }
    let error = by_family(packet, IcmpError::V4_PORT_UNREACHABLE, IcmpError::V6_PORT_UNREACHABLE);
    packet.room.report = Report { source: dest.tunnel_source, error, ..Report::default() };
    answer(packet, tables)
}

/// A reply is longer than the path to the client: the destination is told, by
/// the virtual address and with a TTL that has passed the director.
#[inline(always)]
pub(crate) fn too_big_reply<B: Buffer, T: Tables>(
    packet: &mut Packet<'_, B>,
    tables: &T,
    conn: &Conn,
    mtu: u32,
) -> Outcome {
    report_too_big_reply(packet, tables, conn, mtu);
    answer(packet, tables)
}

/// Puts into the room what is said about the reply, with a share of the stack of its own.
/// Always true: an eBPF function must return a number.
#[inline(never)]
fn report_too_big_reply<B: Buffer, T: Tables>(
    packet: &mut Packet<'_, B>,
    tables: &T,
    conn: &Conn,
    mtu: u32,
) -> bool {
    let error =
        by_family(packet, IcmpError::fragmentation_needed(mtu), IcmpError::packet_too_big(mtu));
    let source = conn.tuple.get().destination;
    let is_v6 = packet.headers.version == 6;
    if is_v6 && let Some(counters) = tables.counters(conn.dest.get()) {
        counters.count_in(u64::from(error_len(packet)));
    }
    packet.room.report = Report {
        error,
        source,
        translated: if is_v6 { conn.tuple.get().destination_port } else { 0 },
        ttl: TTL - 1,
        sent: Reason::SentTooBig,
        unsent: Reason::TooLong,
        dest: NONE,
    };
    true
}

/// Makes a reply over IPv6 what the kernel quotes of it: it is translated before its length
/// is found, and the error, which is to the virtual address, comes back as one about a
/// connection, in which addresses and ports are put back but no checksum (recorded).
#[inline(never)]
fn translate_to_and_fro<B: Buffer>(packet: &mut Packet<'_, B>) -> bool {
    let h = packet.headers;
    let (source, port) = (packet.room.report.source, packet.room.report.translated);
    super::decrement_ttl(packet.buf, h)
        .and_then(|()| super::masquerade::set_source(packet, source, port))
        .and_then(|()| packet.buf.store_words(h.l3 + ipv6::SOURCE, h.source))
        .and_then(|()| packet.buf.store(h.l4, h.source_port.to_be_bytes()))
        .is_some()
}

#[inline(always)]
const fn by_family<B: Buffer>(packet: &Packet<'_, B>, v4: IcmpError, v6: IcmpError) -> IcmpError {
    if packet.headers.version == 6 { v6 } else { v4 }
}

/// Whose outgoing packets an error about a client's packet is counted among:
/// the destination's, unless replies are translated. The quoted packet is then
/// taken for one of its connection, as by the kernel (recorded).
///
/// And whether the connection was made under a mark.
#[inline(always)]
fn counted(conn: &Conn) -> (DestId, bool) {
    let dest = match ForwardingMethod::from_flags(conn.flags.get()) {
        ForwardingMethod::Masquerade => NONE,
        _ => conn.dest.get(),
    };
    (dest, conn.fwmark.get() != 0)
}

/// Sends the error from the address the packet was sent to. Under a mark that
/// may be no address of the host: it then says nothing over IPv4 (recorded).
#[inline(always)]
fn send<B: Buffer, T: Tables>(
    packet: &mut Packet<'_, B>,
    tables: &T,
    error: IcmpError,
    (dest, marked): (DestId, bool),
    [sent, unsent]: [Reason; 2],
) -> Outcome {
    let source = Addr::from_words(packet.headers.destination);
    if marked
        && packet.headers.version == 4
        && !super::is_for_host(packet.room, tables, packet.tuple)
    {
        return Outcome::drop(unsent);
    }
    packet.room.report = Report { source, error, sent, unsent, dest, ..Report::default() };
    answer(packet, tables)
}

/// Sends what is in the room.
#[inline(always)]
fn answer<B: Buffer, T: Tables>(packet: &mut Packet<'_, B>, tables: &T) -> Outcome {
    if T::STAGES_APART { Outcome::go_on(Stage::Refusal) } else { refuse(packet, tables) }
}

/// Makes the error in the room out of the packet, and sends it. In two steps, each with
/// its own share of the stack.
#[inline(always)]
pub(crate) fn refuse<B: Buffer, T: Tables>(packet: &mut Packet<'_, B>, tables: &T) -> Outcome {
    // A plane that only sends leaves replies of any length but those that fit.
    if T::RESOLVES && packet.room.report.translated != 0 && !translate_to_and_fro(packet) {
        return Outcome::drop(Reason::Unwritable);
    }
    send_report(packet, tables)
}

#[inline(never)]
fn send_report<B: Buffer, T: Tables>(packet: &mut Packet<'_, B>, tables: &T) -> Outcome {
    let report = packet.room.report;
    let report = &report;
    let h = packet.headers;
    packet.room.query.family = Family::from_tag(h.version);
    packet.room.query.destination = Addr::from_words(h.source);
    packet.room.query.source = report.source;
    tables.route(&packet.room.query, &mut packet.room.way);
    if !T::RESOLVES && packet.room.way.kind == WayKind::Unresolved {
        return Outcome::pass(Reason::Unresolved);
    }
    let written = if h.version == 6 { write_v6(packet, report) } else { write_v4(packet, report) };
    if written.is_none() {
        return Outcome::drop(Reason::Unwritable);
    }
    match packet.room.way.kind {
        WayKind::Known | WayKind::Unresolved
            if !packet.is_tagged() || packet.room.way.hop.ifindex == packet.ifindex =>
        {
            tables.count(report.sent);
            if let Some(counters) = tables.counters(report.dest) {
                counters.count_out(u64::from(error_len(packet)));
            }
            super::leave(packet)
        }
        _ => Outcome::drop(report.unsent),
    }
}

/// Octets of the error made out of the packet.
#[inline(always)]
fn error_len<B>(packet: &Packet<'_, B>) -> u32 {
    let total_len = packet.headers.total_len;
    if packet.headers.version == 6 {
        HEADERS_V6 + quoted(total_len, LONGEST_V6 - HEADERS_V6)
    } else {
        HEADERS_V4 + quoted(total_len, LONGEST_V4 - HEADERS_V4)
    }
}

/// Octets of the packet that are quoted.
#[inline(always)]
fn quoted(total_len: u32, longest: u32) -> u32 {
    if total_len < longest { total_len } else { longest }
}

#[inline(always)]
fn write_v4<B: Buffer>(packet: &mut Packet<'_, B>, report: &Report) -> Option<()> {
    let h = packet.headers;
    let quote = quoted(h.total_len, LONGEST_V4 - HEADERS_V4);
    let id = packet.identification();
    packet.buf.truncate(h.l3 + quote)?;
    packet.buf.insert(h.l3, HEADERS_V4, Outer::Own)?;
    let fields = Ipv4Fields {
        tos: h.tos & TOS_KEPT | TOS_SET,
        total_len: u16::try_from(HEADERS_V4 + quote).unwrap_or(0),
        id,
        flags: 0,
        ttl: report.ttl,
        protocol: protocol::ICMP,
        source: report.source.words()[0],
        destination: h.source[0],
    };
    packet.buf.store(h.l3, fields.octets())?;
    write_icmp(packet, h.l3 + ipv4::HEADER_LEN, report, quote, Sum::ZERO)
}

#[inline(always)]
fn write_v6<B: Buffer>(packet: &mut Packet<'_, B>, report: &Report) -> Option<()> {
    let h = packet.headers;
    let quote = quoted(h.total_len, LONGEST_V6 - HEADERS_V6);
    packet.buf.truncate(h.l3 + quote)?;
    packet.buf.insert(h.l3, HEADERS_V6, Outer::Own)?;
    let len = icmp::HEADER_LEN + quote;
    let fields = Ipv6Fields {
        class: 0,
        payload_len: u16::try_from(len).unwrap_or(0),
        next: protocol::ICMPV6,
        hop_limit: report.ttl,
        source: report.source.words(),
        destination: h.source,
    };
    fields.store(packet.buf, h.l3)?;
    let pseudo = Sum::ZERO
        .addr(fields.source)
        .addr(fields.destination)
        .add32(len.to_be())
        .add16(u16::from_ne_bytes([0, protocol::ICMPV6]));
    write_icmp(packet, h.l3 + ipv6::HEADER_LEN, report, quote, pseudo)
}

#[inline(always)]
fn write_icmp<B: Buffer>(
    packet: &mut Packet<'_, B>,
    at: u32,
    report: &Report,
    quote: u32,
    pseudo: Sum,
) -> Option<()> {
    let IcmpError { kind, code, info } = report.error;
    let [a, b, c, d] = info.to_be_bytes();
    packet.buf.store(at, [kind, code, 0, 0, a, b, c, d])?;
    let sum = pseudo.add16(packet.buf.sum(at, icmp::HEADER_LEN + quote)?);
    packet.buf.store(at + 2, sum.checksum().to_ne_bytes())
}
