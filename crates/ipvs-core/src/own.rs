//! Packets that the host itself makes: a destination may be on the director.

use ipvs_wire::{Buffer, Fragment};

use crate::admit;
use crate::conn::{Found, Tuple};
use crate::director::{Packet, Scratch, count_reply, live};
use crate::forward;
use crate::icmp;
use crate::tables::Tables;
use crate::time::Instant;
use crate::verdict::{Outcome, Reason, Verdict};

/// The priority that packets have which a plane's own daemon sends: they have been through the
/// director. No class of a queueing discipline has it, and those that go by its low bits take
/// it for none.
pub const FROM_DAEMON: u32 = 0xf1f5_0000;

/// Takes a packet that the host itself sends, by the interface `ifindex`, through the
/// director: a destination on the host may have made it. It goes its way, if need be
/// translated.
#[inline(always)]
pub fn handle<B: Buffer, T: Tables>(
    buf: &mut B,
    tables: &T,
    scratch: &mut Scratch,
    ifindex: u32,
    now: Instant,
) -> Verdict {
    let headers = &mut scratch.headers;
    let settings = tables.settings();
    if settings.services_v4 | settings.services_v6 == 0
        || headers.read(buf).is_err()
        || headers.fragment != Fragment::No
    {
        return Verdict::Pass(Reason::OtherProtocol);
    }
    let outcome = if headers.is_balanced() {
        scratch.tuple = Tuple::of(headers);
        reply(&mut scratch.packet(buf, ifindex, now), tables)
    } else if icmp::is_icmp(headers) {
        icmp::own(buf, tables, scratch, ifindex, now)
    } else {
        Outcome::pass(Reason::OtherProtocol)
    };
    let verdict = outcome.verdict(u32::MAX);
    // What the host sends for itself is no business of the counters of what came in.
    if let Verdict::Drop(reason) = verdict {
        tables.count(reason);
    }
    verdict
}

/// A packet of a protocol that is balanced: a reply, or of no concern.
#[inline(always)]
fn reply<B: Buffer, T: Tables>(packet: &mut Packet<'_, B>, tables: &T) -> Outcome {
    match live(packet, tables) {
        Some((Found { reply: true, .. }, conn)) => {
            count_reply(packet, tables, conn, packet.headers.total_len);
            packet.room.mark = conn.fwmark.get();
            match forward::masquerade::reply(packet, conn) {
                Some(()) => Outcome::pass(Reason::Local),
                None => Outcome::drop(Reason::Unwritable),
            }
        }
        _ => Outcome::pass(admit::direct_reply(packet, tables)),
    }
}
