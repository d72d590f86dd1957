//! Errors from inside a tunnel: what they quote is the tunnel's packet, and in that is the
//! client's.
//!
//! The path's MTU is learnt of them. Where a tunnel and what is in it are IPv4, the client
//! is told besides, as if the error had come up here; other errors are the host's
//! (recorded for IPv4 in IPv4; the kernel does no more than that).

use ipvs_wire::{Buffer, Fragment, icmp, tunnel};

use super::{HEADERS_LEN, count_out, translate};
use crate::addr::{Addr, AddrKey, Family};
use crate::conn::{Conn, Found, Tuple};
use crate::dest::{Dest, ForwardingMethod};
use crate::director::{self, Packet, Scratch};
use crate::forward::{self, reject};
use crate::hop::PathMtu;
use crate::tables::Tables;
use crate::time::Instant;
use crate::verdict::{Outcome, Reason};

/// Place of the word behind the checksum, in which errors say an MTU.
const INFO: u32 = 4;
/// IPv4: destination unreachable, …
const UNREACHABLE_V4: u8 = 3;
/// … since the packet is too long and may not be cut.
const FRAGMENTATION_NEEDED: u8 = 4;
/// IPv6: packet too big.
const TOO_BIG_V6: u8 = 2;
/// What is told a client is left as it is if the tunnel's headers would leave no more.
const LEAST: u32 = 68;

/// The tunnel's packet that is quoted.
#[derive(Clone, Copy)]
struct Outer {
    destination: Addr,
    l3: u32,
    protocol: u8,
    port: u16,
}

/// A tunnel's packet that an error quotes, and what is in it.
pub(super) struct Quoted<'t> {
    conn: &'t Conn,
    dest: &'t Dest,
    outer: Outer,
    /// IP version of the packet in the tunnel.
    version: u8,
}

/// The tunnel of ours that an ICMP packet is about whose headers and quote were read; what was
/// quoted is now the packet in the tunnel, and the key that of its connection.
#[inline(always)]
pub(super) fn find<'t, B: Buffer, T: Tables>(
    buf: &mut B,
    tables: &'t T,
    scratch: &mut Scratch,
    ifindex: u32,
    now: Instant,
) -> Option<Quoted<'t>> {
    let Scratch { headers, quoted, tuple, room, .. } = scratch;
    if quoted.fragment == Fragment::Later {
        return None;
    }
    let (at, version) = tunnel::inside(buf, quoted.protocol, quoted.l4)?;
    let outer = Outer {
        destination: Addr::from_words(quoted.destination),
        l3: quoted.l3,
        protocol: quoted.protocol,
        port: quoted.destination_port,
    };
    let end = headers.l3 + headers.total_len;
    if quoted.read_quoted(buf, version, at, end).is_none() || !quoted.has_ports {
        return None;
    }
    *tuple = Tuple::of(quoted);
    let mut packet = Packet { buf, headers, tuple, room, ifindex, now };
    let Some((Found { reply: false, .. }, conn)) = director::live(&mut packet, tables) else {
        return None;
    };
    let dest = tables.dest(conn.dest.get()).filter(|dest| is_of(dest, conn, &packet, outer))?;
    Some(Quoted { conn, dest, outer, version })
}

/// Takes an ICMP packet whose headers and quote were read, and which no connection
/// explains, through the director.
#[inline(always)]
pub(crate) fn handle<B: Buffer, T: Tables>(
    buf: &mut B,
    tables: &T,
    scratch: &mut Scratch,
    ifindex: u32,
    now: Instant,
) -> Outcome {
    buf.reach(HEADERS_LEN);
    let Some(Quoted { conn, dest, outer, version }) = find(buf, tables, scratch, ifindex, now)
    else {
        return Outcome::pass(Reason::NoService);
    };
    let Scratch { headers, quoted, tuple, room, .. } = scratch;
    let is_v4 = headers.version == 4 && version == 4;
    let (kind, code, info) = match (buf.load(headers.l4), buf.load(headers.l4 + INFO)) {
        (Some([kind, code]), Some(info)) => (kind, code, u32::from_be_bytes(info)),
        _ => return Outcome::pass(Reason::Malformed),
    };
    let mut packet = Packet { buf, headers, tuple, room, ifindex, now };
    if !translate::is_sound(&packet) {
        return Outcome::drop(Reason::BadChecksum);
    }
    let mut told = info;
    let reported = match (packet.headers.version, kind, code) {
        (4, UNREACHABLE_V4, FRAGMENTATION_NEEDED) => Some(info & 0xffff),
        (6, TOO_BIG_V6, _) => Some(info),
        _ => None,
    };
    if let Some(reported) = reported {
        let known = learn(&mut packet, tables, conn, dest, reported);
        if is_v4 && !quoted.dont_fragment {
            return Outcome::drop(Reason::PathMtuLearnt);
        }
        let overhead = quoted.l3 - outer.l3;
        told = if known > LEAST + overhead { known - overhead } else { known };
    }
    if !is_v4 {
        let learnt = reported.is_some();
        return Outcome::pass(if learnt { Reason::PathMtuLearnt } else { Reason::NoService });
    }
    let in_front = quoted.l3 - headers.l3;
    if packet.buf.remove(packet.headers.l3, in_front).is_none() {
        return Outcome::drop(Reason::Unwritable);
    }
    *headers = *quoted;
    headers.l3 -= in_front;
    headers.l4 -= in_front;
    let mut packet = Packet { buf, headers, tuple, room, ifindex, now };
    // Counted twice, the second time as the error that is sent (recorded).
    count_out(&packet, tables, conn);
    reject::relay(&mut packet, tables, conn, icmp::IcmpError { kind, code, info: told })
}

/// Whether the tunnel's packet is one of the director's to this destination.
#[inline(always)]
fn is_of<B>(dest: &Dest, conn: &Conn, packet: &Packet<'_, B>, outer: Outer) -> bool {
    let h = packet.headers;
    let carrier = dest.spec.carrier();
    ForwardingMethod::from_flags(conn.flags.get()) == ForwardingMethod::Tunnel
        && dest.is_available()
        && dest.key.family() == Family::from_tag(h.version)
        && dest.key.addr == outer.destination
        && dest.tunnel_source == Addr::from_words(h.destination)
        && carrier.protocol(packet.tuple.family() == Family::V6) == outer.protocol
        && (!carrier.has_port() || dest.spec.tunnel_port == outer.port)
}

/// Learns the MTU of the path to the destination, for all who go there. Returns what the
/// client is told: at first what was known before, else what is known now (recorded).
#[inline(always)]
fn learn<B: Buffer, T: Tables>(
    packet: &mut Packet<'_, B>,
    tables: &T,
    conn: &Conn,
    dest: &Dest,
    reported: u32,
) -> u32 {
    let dest_id = conn.dest.get();
    forward::find_way_to_dest(packet.room, tables, dest_id, dest, packet.now);
    let known = packet.room.way.mtu();
    packet.room.addr = AddrKey::new(dest.key.family(), dest.key.addr);
    let before = tables.path_mtu(&packet.room.addr).and_then(|path| path.believed(packet.now));
    let Some(learnt) = PathMtu::learnt(dest.key.family(), reported, known, packet.now) else {
        return known;
    };
    tables.learn_mtu(&packet.room.addr, &learnt);
    if let Some(hop) = tables.dest_hop(dest_id) {
        hop.clear();
    }
    if before.is_some() || known == u32::MAX { learnt.mtu } else { known }
}
