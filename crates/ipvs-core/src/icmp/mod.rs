//! ICMP and ICMPv6 errors about the packets of connections.
//!
//! An error quotes the packet that it is about, and the quoted packet says
//! which connection that is. An error from the path to the client quotes a
//! reply and goes to the destination; one from the path to the destination
//! quotes a request and goes to the client. Neither changes the connection's
//! state or its timer.

mod relay;
mod translate;
pub(crate) mod tunnelled;

use ipvs_wire::icmp::HEADER_LEN;
use ipvs_wire::transport::protocol;
use ipvs_wire::{Buffer, Fragment, Headers, ethernet};

use crate::conn::{Conn, ConnFlags, Found, Tuple};
use crate::dest::{Dest, ForwardingMethod};
use crate::director::{self, Packet, Scratch};
use crate::one_packet;
use crate::tables::Tables;
use crate::time::Instant;
use crate::verdict::{Outcome, Reason, Stage};

/// Octets that hold all headers that are looked at: the frame's, the error's,
/// those of the quoted packet and, if it is a tunnel's, of the one in it.
const HEADERS_LEN: u32 = 256;

/// The IPv4 errors that are heeded: destination unreachable, source quench,
/// time exceeded. Redirects and parameter problems are not (recorded on 6.1).
const HEEDED_V4: [u8; 3] = [3, 4, 11];
/// Types of ICMPv6 from this one on are no errors (RFC 4443, section 2.1).
const INFORMATIONAL_V6: u8 = 128;

/// Whether the packet is one of ICMP, by its family's protocol.
#[inline(always)]
pub(crate) const fn is_icmp(h: &Headers) -> bool {
    h.protocol == if h.version == 6 { protocol::ICMPV6 } else { protocol::ICMP }
}

/// Takes an ICMP packet, whose headers were read, through the director.
#[inline(always)]
pub(crate) fn handle<B: Buffer, T: Tables>(
    buf: &mut B,
    tables: &T,
    scratch: &mut Scratch,
    ifindex: u32,
    now: Instant,
) -> Outcome {
    let Scratch { headers, quoted, tuple, room, .. } = scratch;
    buf.reach(HEADERS_LEN);
    // A frame to a group address reached us with others.
    if ethernet::destination(buf).is_none_or(|[first, ..]| first & 1 != 0) {
        return Outcome::pass(Reason::OtherHost);
    }
    if headers.transport_len() < HEADER_LEN {
        return Outcome::drop(Reason::ShortTransport);
    }
    let Some([kind]) = buf.load(headers.l4) else { return Outcome::pass(Reason::Malformed) };
    if !is_heeded(headers.version, kind) {
        return Outcome::pass(Reason::OtherProtocol);
    }
    let (at, end) = (headers.l4 + HEADER_LEN, headers.l3 + headers.total_len);
    if quoted.read_quoted(buf, headers.version, at, end).is_none() {
        return Outcome::pass(Reason::Malformed);
    }
    // The way that an answer to the quoted packet would go.
    if set_answer_tuple(quoted, tuple) {
        let mut packet = Packet { buf, headers, tuple, room, ifindex, now };
        let found = if packet.room.quoted {
            Some(Found::from_word(packet.room.admitted))
        } else {
            director::live(&mut packet, tables).map(|(found, _)| found)
        };
        if let Some(found) = found {
            return explained(&mut packet, quoted, tables, found);
        }
        if is_about_direct(&mut packet, tables) {
            return Outcome::pass(Reason::DirectReply);
        }
        // By the plane that it is passed to, if this one may not be able to send it.
        if T::RESOLVES && tables.settings().schedule_icmp != 0 && quoted.has_ports {
            packet.room.quoted = true;
            if T::STAGES_APART {
                return Outcome::go_on(Stage::Admission);
            }
            match director::connect(&mut packet, tables) {
                Ok(found) => return explained(&mut packet, quoted, tables, found),
                Err(outcome) if outcome != Outcome::pass(Reason::NoService) => return outcome,
                Err(_) => {}
            }
        }
    }
    match quoted.protocol {
        protocol::IPIP | protocol::IPV6 | protocol::GRE => {}
        protocol::UDP if quoted.has_ports => {}
        protocol::TCP | protocol::SCTP if quoted.has_ports => {
            return Outcome::pass(Reason::NoService);
        }
        _ => return Outcome::pass(Reason::OtherProtocol),
    }
    if !T::RESOLVES {
        // Rare, and the packet is changed before it is known whether the plane can send it:
        // for the one that it is passed to.
        return Outcome::pass(Reason::NoService);
    }
    if T::STAGES_APART {
        return Outcome::go_on(Stage::Tunnelled);
    }
    tunnelled::handle(buf, tables, scratch, ifindex, now)
}

/// Leads an error on that is about a packet of this connection.
#[inline(always)]
fn explained<B: Buffer, T: Tables>(
    packet: &mut Packet<'_, B>,
    quoted: &Headers,
    tables: &T,
    found: Found,
) -> Outcome {
    let Some(conn) = tables.conn(found.id) else { return Outcome::drop(Reason::TableFull) };
    if found.reply {
        return relay::to_client(packet, quoted, tables, conn);
    }
    let outcome = relay::to_dest(packet, quoted, tables, conn);
    if packet.room.quoted && conn.has(ConnFlags::ONE_PACKET) {
        one_packet::end(tables, found.id, conn, !outcome.is_left::<T>());
    }
    outcome
}

/// Whether an ICMP packet, whose headers were read, is an error about a client's
/// packet to a masqueraded destination, on its way to the client.
#[inline(always)]
pub(crate) fn is_answer<B: Buffer, T: Tables>(
    buf: &mut B,
    tables: &T,
    scratch: &mut Scratch,
    now: Instant,
) -> bool {
    let Scratch { headers, quoted, tuple, .. } = scratch;
    read(buf, headers, quoted, tuple) && director::leads_to_client(tables, tuple, now)
}

/// Counts an ICMP packet, whose headers were read, if it is an error about a client's packet
/// that went on unchanged, and passes the director on its way to the client.
#[inline(always)]
pub(crate) fn pass_by<B: Buffer, T: Tables>(
    buf: &mut B,
    tables: &T,
    scratch: &mut Scratch,
    ifindex: u32,
    now: Instant,
) {
    let Scratch { headers, quoted, tuple, room, .. } = scratch;
    if read(buf, headers, quoted, tuple) {
        is_about_direct(&mut Packet { buf, headers, tuple, room, ifindex, now }, tables);
    }
}

/// Whether an ICMP packet, whose headers were read, is an error from inside a tunnel of ours.
#[inline(always)]
pub(crate) fn is_from_tunnel<B: Buffer, T: Tables>(
    buf: &mut B,
    tables: &T,
    scratch: &mut Scratch,
    ifindex: u32,
    now: Instant,
) -> bool {
    let Scratch { headers, quoted, .. } = scratch;
    read_quote(buf, headers, quoted)
        && tunnelled::find(buf, tables, scratch, ifindex, now).is_some()
}

/// An ICMP packet that the host itself has made, whose headers were read. An error about a
/// client's packet to a destination on the host counts as its reply, and is translated if
/// that would be.
#[inline(always)]
pub(crate) fn own<B: Buffer, T: Tables>(
    buf: &mut B,
    tables: &T,
    scratch: &mut Scratch,
    ifindex: u32,
    now: Instant,
) -> Outcome {
    let Scratch { headers, quoted, tuple, room, .. } = scratch;
    if !read(buf, headers, quoted, tuple) {
        return Outcome::pass(Reason::OtherProtocol);
    }
    let mut packet = Packet { buf, headers, tuple, room, ifindex, now };
    if let Some((Found { reply: true, .. }, conn)) = director::live(&mut packet, tables) {
        count_out(&packet, tables, conn);
        let service = conn.tuple.get();
        let service = (service.destination, service.destination_port);
        return match translate::for_client(&mut packet, quoted, service) {
            Some(()) => Outcome::pass(Reason::Local),
            None => Outcome::drop(Reason::Unwritable),
        };
    }
    if is_about_direct(&mut packet, tables) {
        return Outcome::pass(Reason::DirectReply);
    }
    Outcome::pass(Reason::NoService)
}

/// Reads the packet that an error quotes, and makes `tuple` the key of an answer to it;
/// returns whether it is one that is heeded.
#[inline(always)]
fn read<B: Buffer>(
    buf: &mut B,
    headers: &Headers,
    quoted: &mut Headers,
    tuple: &mut Tuple,
) -> bool {
    read_quote(buf, headers, quoted) && set_answer_tuple(quoted, tuple)
}

/// Reads the packet that an error quotes; returns whether it is one that is heeded.
#[inline(always)]
fn read_quote<B: Buffer>(buf: &mut B, headers: &Headers, quoted: &mut Headers) -> bool {
    buf.reach(HEADERS_LEN);
    let Some([kind]) = buf.load(headers.l4) else { return false };
    let (at, end) = (headers.l4 + HEADER_LEN, headers.l3 + headers.total_len);
    is_heeded(headers.version, kind) && quoted.read_quoted(buf, headers.version, at, end).is_some()
}

#[inline(always)]
fn is_heeded(version: u8, kind: u8) -> bool {
    if version == 6 {
        kind < INFORMATIONAL_V6
    } else {
        let [unreachable, quench, exceeded] = HEEDED_V4;
        kind == unreachable || kind == quench || kind == exceeded
    }
}

/// Makes `tuple` the key of an answer to the quoted packet; returns whether
/// there can be one.
#[inline(always)]
fn set_answer_tuple(quoted: &Headers, tuple: &mut Tuple) -> bool {
    match quoted.protocol {
        protocol::TCP | protocol::UDP | protocol::SCTP if quoted.has_ports => {
            *tuple = Tuple::of(quoted).reversed();
            true
        }
        _ if quoted.is_ipsec() && quoted.fragment != Fragment::Later => {
            *tuple = Tuple::of_ike(quoted).reversed();
            true
        }
        _ => false,
    }
}

/// Whether an error that no lookup by the answer's key explains is about a client's packet
/// that went on unchanged, and passes the director on its way back to the client. It is
/// counted then, as the kernel does.
#[inline(always)]
fn is_about_direct<B: Buffer, T: Tables>(packet: &mut Packet<'_, B>, tables: &T) -> bool {
    packet.room.key = packet.tuple.reversed();
    let Some(Found { id, reply: false }) = tables.find(&packet.room.key) else { return false };
    let Some(conn) = tables.conn(id).filter(|conn| !conn.has_ended(packet.now)) else {
        return false;
    };
    if is_masqueraded(conn) {
        return false;
    }
    // Else the plane that it is passed to finds it, too.
    if T::RESOLVES {
        count_out(packet, tables, conn);
    }
    true
}

#[inline(always)]
fn is_masqueraded(conn: &Conn) -> bool {
    ForwardingMethod::from_flags(conn.flags.get()) == ForwardingMethod::Masquerade
}

#[inline(always)]
fn count_out<B, T: Tables>(packet: &Packet<'_, B>, tables: &T, conn: &Conn) {
    let dest_id = conn.dest.get();
    if tables.dest(dest_id).is_some_and(Dest::is_available)
        && let Some(counters) = tables.counters(dest_id)
    {
        counters.count_out(u64::from(packet.headers.total_len));
    }
}
