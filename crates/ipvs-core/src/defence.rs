//! Defence against floods: `drop_entry`, `drop_packet` and `secure_tcp`.
//!
//! The control side says by the settings what is in force ([`adjust`]); packets
//! and the sweep do it, with the memory that [`Defence`] is.

use core::cell::Cell;

use ipvs_wire::transport::protocol;
use zerocopy::{FromBytes, IntoBytes, KnownLayout};

use crate::conn::{Conn, ConnFlags, ConnId, NONE, Tuple};
use crate::expiry;
use crate::persistence::ASSURED;
use crate::proto::{sctp, tcp};
use crate::settings::Settings;
use crate::tables::Tables;
use crate::time::{Instant, Millis};

/// A mode that memory decides: not in force at present.
pub const AUTO_OFF: u32 = 1;
/// A mode that memory decides: in force at present.
pub const AUTO_ON: u32 = 2;
/// In force whatever there is of memory.
pub const ALWAYS: u32 = 3;

/// `drop_entry` looks at one of so many places of the table each second.
const SHARE: u32 = 32;
/// How long a connection must have been idle to be dropped by its count of
/// packets, in nanoseconds.
const IDLE: u64 = 60_000_000_000;
/// The most packets that such a connection may have seen.
const MOST_PACKETS: u32 = 8;
/// How many connections hang on each other at most: data, control, template.
const CHAIN: u32 = 3;
/// Attempts to change a countdown while other CPUs do so too.
const ATTEMPTS: u32 = 16;

/// What packets and the sweep remember between each other.
#[derive(Debug, Default, FromBytes, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct Defence {
    /// Packets that start a connection until the next one is dropped.
    pub packets: Cell<u32>,
    /// The second of the plane's clock in which entries were dropped last.
    pub second: Cell<u32>,
    /// Candidates until the next one is dropped, by the packets that they have seen.
    pub candidates: [Cell<u32>; MOST_PACKETS as usize],
}

/// Whether a mode is in force.
#[inline(always)]
pub const fn is_on(mode: u32) -> bool {
    mode >= AUTO_ON
}

/// Brings what memory decides in line with the `available` pages of it.
#[expect(clippy::cast_possible_wrap, reason = "compared as the ints that they are set as")]
pub fn adjust(settings: &mut Settings, available: u64) {
    let threshold = i64::from(settings.amemthresh as i32);
    let available = i64::try_from(available).unwrap_or(i64::MAX);
    let is_short = available < threshold;
    for mode in [&mut settings.drop_entry, &mut settings.drop_packet, &mut settings.secure_tcp] {
        if *mode == AUTO_OFF || *mode == AUTO_ON {
            *mode = if is_short { AUTO_ON } else { AUTO_OFF };
        }
    }
    settings.drop_rate = match settings.drop_packet {
        ALWAYS => settings.am_droprate,
        // Short of memory, so the difference is positive; the rate is no larger than an int.
        AUTO_ON => u32::try_from(threshold / (threshold - available).max(1)).unwrap_or(0),
        _ => 0,
    };
}

/// Whether the packet, which would start a connection, is to be dropped.
#[inline(always)]
pub fn drops_packet<T: Tables>(tables: &T) -> bool {
    let rate = tables.settings().drop_rate;
    rate != 0 && tables.defence().is_some_and(|defence| is_nth(tables, &defence.packets, rate))
}

/// Counts down in `cell`; true for the first of all calls, and then for every
/// `rate`-th. What was begun under another rate is counted to its end.
#[inline(always)]
#[expect(clippy::cast_possible_wrap, reason = "counted as the int that it is set as")]
fn is_nth<T: Tables>(tables: &T, cell: &Cell<u32>, rate: u32) -> bool {
    let mut is_last = 0;
    tables.repeat(ATTEMPTS, |_| {
        let before = cell.get();
        let left = before.wrapping_sub(1);
        is_last = u32::from(left as i32 <= 0);
        !tables.replace(cell, before, if is_last != 0 { rate } else { left })
    });
    is_last != 0
}

/// Drops entries from a share of the `used` places, if that is in force and was
/// not done in this second. `key` is room to build keys in.
#[inline(always)]
pub fn drop_entries<T: Tables>(tables: &T, key: &mut Tuple, used: u32, now: Instant) {
    if !is_on(tables.settings().drop_entry) {
        return;
    }
    let Some(defence) = tables.defence() else { return };
    #[expect(clippy::cast_possible_truncation, reason = "tells seconds apart for 136 years")]
    let second = (now.nanos() / 1_000_000_000) as u32;
    let last = defence.second.get();
    if last == second || !tables.replace(&defence.second, last, second) {
        return;
    }
    let first = drawn(second);
    tables.repeat(used / SHARE + 1, |step| {
        let id = step.wrapping_mul(SHARE).wrapping_add(first);
        if let Some(conn) = tables.conn(id)
            && conn.has(ConnFlags::HASHED)
            && conn.controls.get() == 0
            && is_dropped(tables, defence, conn, now)
        {
            drop_chain(tables, key, id, now);
        }
        true
    });
}

/// A number below [`SHARE`] that tells nothing of the one for the next second: so
/// entries go as if they were drawn, the fewer the fewer are left.
#[inline(always)]
const fn drawn(second: u32) -> u32 {
    const ODD: u32 = 0x9e37_79b1;
    let word = second.wrapping_mul(ODD);
    let word = (word ^ (word >> 15)).wrapping_mul(ODD);
    (word ^ (word >> 13)).wrapping_mul(ODD) >> (32 - SHARE.trailing_zeros())
}

/// Whether the entry, on which nothing hangs, is one to be dropped.
#[inline(always)]
fn is_dropped<T: Tables>(tables: &T, defence: &Defence, conn: &Conn, now: Instant) -> bool {
    let flags = conn.flags.get();
    let state = conn.state.get();
    if flags & ConnFlags::TEMPLATE != 0 && flags & ConnFlags::ONE_PACKET == 0 {
        return state != ASSURED;
    }
    match conn.tuple.get().protocol {
        _ if flags & ConnFlags::TEMPLATE != 0 => {}
        protocol::TCP => match state {
            tcp::SYN_RECV | tcp::SYN_ACK => return true,
            tcp::ESTABLISHED => {}
            _ => return false,
        },
        protocol::SCTP => match state {
            sctp::INIT1 | sctp::INIT => return true,
            sctp::ESTABLISHED => {}
            _ => return false,
        },
        _ => {}
    }
    // Its timer was set when the last packet came.
    let idle_until = now.after(Millis(conn.timeout.get())).nanos();
    if conn.expires.get().saturating_add(IDLE) > idle_until {
        return false;
    }
    let packets = conn.in_packets.get();
    let place = packets.wrapping_sub(1) as usize;
    defence.candidates.get(place).is_some_and(|cell| is_nth(tables, cell, packets))
}

/// Ends an entry, and what it hung on if nothing else hangs there: half-open
/// connections that are dropped do not leave their templates behind.
#[inline(always)]
fn drop_chain<T: Tables>(tables: &T, key: &mut Tuple, id: ConnId, now: Instant) {
    let mut next = id;
    tables.repeat(CHAIN, |_| {
        let Some(conn) = tables.conn(next) else { return false };
        let control = conn.control.get();
        if !expiry::expire(tables, key, next, conn, now) || control == NONE {
            return false;
        }
        next = control;
        tables.conn(control).is_some_and(|control| {
            let is_assured = control.has(ConnFlags::TEMPLATE) && control.state.get() == ASSURED;
            control.has(ConnFlags::HASHED) && control.controls.get() == 0 && !is_assured
        })
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adjusted(change: impl FnOnce(&mut Settings), available: u64) -> Settings {
        let mut settings = Settings::DEFAULT;
        change(&mut settings);
        adjust(&mut settings, available);
        settings
    }

    #[test]
    fn memory_decides_between_one_and_two_and_nothing_else() {
        for (mode, plenty, short) in [(0, 0, 0), (1, 1, 2), (2, 1, 2), (3, 3, 3)] {
            for (available, expect) in [(1024, plenty), (1023, short)] {
                let settings = adjusted(
                    |it| (it.drop_entry, it.drop_packet, it.secure_tcp) = (mode, mode, mode),
                    available,
                );
                let modes = [settings.drop_entry, settings.drop_packet, settings.secure_tcp];
                assert_eq!(modes, [expect; 3], "mode {mode}, {available} pages");
            }
        }
    }

    #[test]
    fn the_rate_is_set_by_hand_or_by_how_short_memory_is() {
        let rate = |mode, available| {
            let settings = adjusted(|it| it.drop_packet = mode, available);
            settings.drop_rate
        };
        assert_eq!((rate(0, 0), rate(1, 2000), rate(3, 2000)), (0, 0, 10));
        assert_eq!((rate(1, 1023), rate(2, 512), rate(2, 0)), (1024, 2, 1));
    }

    #[test]
    fn seconds_draw_shares_evenly_and_apart() {
        let mut drawn_of = [0; SHARE as usize];
        for second in 0..32_000 {
            drawn_of[drawn(second) as usize] += 1;
        }
        assert!(drawn_of.iter().all(|count| (900..1100).contains(count)), "{drawn_of:?}");
        let pairs = (0..32_000).filter(|second| drawn(*second) == drawn(second + 1)).count();
        assert!((900..1100).contains(&pairs), "{pairs} times the same twice");
    }

    #[test]
    fn a_negative_threshold_is_never_fallen_below() {
        let settings = adjusted(|it| (it.drop_packet, it.amemthresh) = (2, u32::MAX), 0);
        assert_eq!((settings.drop_packet, settings.drop_rate), (AUTO_OFF, 0));
    }
}
