//! When nobody knows whether a connection is there.
//!
//! The kernel's timers are those of a wheel (the timer wheel of Linux since 4.8): one that was
//! set to a time long ahead fires late by up to a turn of the wheel it is on. So between the time
//! at which a connection ends by its timer and some time later nothing is looked at.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use ipvs_core::addr::Addr;
use ipvs_core::conn::ConnFlags;
use ipvs_core::snapshot::{ConnStatus, Control};

/// How far apart two clocks may be that count the same time.
const APART: Duration = Duration::from_millis(150);
/// A shift of a connection's end that is none: by so much the two ways to reckon it differ.
const SAME: Duration = Duration::from_millis(2);

/// Turns of a cache's cleaning of which it is known when they are.
const TURNS: u32 = 12;
/// How long a deleted destination is there at least.
const KEPT: Duration = Duration::from_mins(2);
/// After what time without connections it is there no more: it is looked for once a minute.
const FREED: Duration = Duration::from_secs(260);
/// How long it may take until the destination is there again.
const SOON: Duration = Duration::from_secs(10);

/// By up to how much a timer is late that is set to so much ahead: the wheels of a kernel
/// whose ticks are 4 ms.
fn lateness(ahead: Duration) -> Duration {
    const TICK: Duration = Duration::from_millis(4);
    let mut turn = TICK;
    let mut reach = TICK * 63;
    while ahead >= reach {
        turn *= 8;
        reach *= 8;
    }
    turn
}

/// Which connection: protocol, client, virtual address, destination, and whether it is a template.
type Key = (u8, (Addr, u16), (Addr, u16), (Addr, u16), bool);

#[derive(Clone, Copy, Debug)]
struct Edge {
    /// When it ends.
    end: Duration,
    /// How long after what set its timer.
    timeout: Duration,
    /// By how much later that may be, since a timer that was late set it.
    late: Duration,
}

/// The ends of connections.
#[derive(Debug, Default)]
pub(crate) struct Edges {
    /// After what time without use lblc and lblcr forget what they remember, if that matters.
    pub(crate) forgets: Option<Duration>,
    ends: HashMap<Key, Edge>,
    /// When connections pointed at a destination last.
    used: HashMap<SocketAddr, Duration>,
    /// When destinations were taken away.
    deleted: HashMap<SocketAddr, Duration>,
    /// Until when something that has ended may be there.
    until: Duration,
}

impl Edges {
    /// Looks at the connections at the time `now`, before anything happens.
    pub(crate) fn look(&mut self, now: Duration, control: &mut dyn Control) {
        let before = std::mem::take(&mut self.ends);
        let (edges, used) = (&mut self.ends, &mut self.used);
        control.connections(&mut |conn| {
            let left = Duration::from_millis(conn.expires_ms);
            let end = now + left;
            let new = Edge { end, timeout: left, late: Duration::ZERO };
            let edge = match before.get(&key(&conn)) {
                Some(old) if old.end.abs_diff(end) <= SAME => *old,
                // It has ended, and others that hang on it have set its timer anew.
                Some(old) if old.end < now => {
                    Edge { late: old.late + lateness(old.timeout) + APART, ..new }
                }
                _ => new,
            };
            edges.insert(key(&conn), edge);
            let dest = SocketAddr::new(conn.dest.to_ip(conn.dest_family), conn.dest_port);
            used.insert(dest, now);
        });
        for (key, edge) in before {
            if edge.end <= now && !self.ends.contains_key(&key) {
                self.until = self.until.max(edge.last());
            }
        }
    }

    /// The first moment from `now` on at which it is known of each connection whether it is there.
    pub(crate) fn clear_of(&self, now: Duration) -> Duration {
        let mut at = self.clear_of_turns(now.max(self.until));
        loop {
            let is_on = |it: &&Edge| it.end.saturating_sub(APART) <= at && at <= it.last();
            match self.ends.values().filter(is_on).map(Edge::last).max() {
                Some(last) => at = last + SAME,
                None => return at,
            }
        }
    }

    /// The caches of lblc and lblcr are looked through by turns, each half an hour of minutes
    /// that may be late; what is used now may be forgotten then, or in any turn after it.
    fn clear_of_turns(&self, now: Duration) -> Duration {
        const TURN: Duration = Duration::from_mins(30);
        let Some(forgets) = self.forgets else { return now };
        let mut at = now;
        for number in 1..=TURNS {
            let first = TURN * number;
            let last = first + first / 25 + SOON;
            if at + forgets + SOON >= first && at <= last {
                at = last + SAME;
            }
        }
        at
    }

    /// A destination is taken away: it lies in the trash while connections point at it.
    pub(crate) fn deleted(&mut self, dest: SocketAddr, now: Duration) {
        self.deleted.insert(dest, now);
    }

    /// Whether it is known of this destination whether it is in the trash: the kernel looks at
    /// that once a minute, and keeps what has lain there for less than two.
    pub(crate) fn may_add(&self, dest: SocketAddr, now: Duration) -> bool {
        let Some(deleted) = self.deleted.get(&dest) else { return true };
        let free = self.used.get(&dest).map_or(*deleted, |used| *used.max(deleted));
        now + SOON < *deleted + KEPT || now > free.max(self.until) + FREED
    }

    /// When the last of the connections has ended whose time to that end is not known
    /// as well as listings are compared.
    pub(crate) fn unknown_until(&self) -> Option<Duration> {
        let unknown = self.ends.values().filter(|it| it.late > Duration::from_secs(1));
        unknown.map(Edge::last).max()
    }
}

impl Edge {
    /// The last moment at which it may be there.
    fn last(&self) -> Duration {
        self.end + self.late + lateness(self.timeout) + APART
    }
}

fn key(conn: &ConnStatus) -> Key {
    (
        conn.protocol,
        (conn.client, conn.client_port),
        (conn.virtual_addr, conn.virtual_port),
        (conn.dest, conn.dest_port),
        conn.flags & ConnFlags::TEMPLATE != 0,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_is_late_by_the_turn_of_its_wheel() {
        let of = |seconds| lateness(Duration::from_secs(seconds));
        assert_eq!(of(3), Duration::from_millis(256));
        assert_eq!(of(60), Duration::from_millis(2048));
        assert_eq!(of(300), Duration::from_millis(16_384));
        assert_eq!(of(900), Duration::from_millis(16_384));
        assert_eq!(of(3600), Duration::from_millis(131_072));
    }

    #[test]
    fn what_is_near_an_end_is_put_off_behind_all_that_may_end_until_then() {
        let edge = |end, timeout| Edge {
            end: Duration::from_secs(end),
            timeout: Duration::from_secs(timeout),
            late: Duration::ZERO,
        };
        let key = |port| {
            let addr = Addr::UNSPECIFIED;
            (6, (addr, port), (addr, 80), (addr, 80), false)
        };
        let ends = HashMap::from([(key(1), edge(100, 60)), (key(2), edge(102, 900))]);
        let edges = Edges { ends, ..Edges::default() };
        let clear = |at| edges.clear_of(Duration::from_secs(at)).as_secs();
        assert_eq!(clear(99), 99);
        assert_eq!(clear(101), 118);
        assert_eq!(clear(200), 200);
    }

    #[test]
    fn a_destination_comes_back_while_it_is_surely_in_the_trash_or_surely_not() {
        let dest = SocketAddr::from(([10, 1, 0, 11], 80));
        let at = Duration::from_secs;
        let mut edges = Edges::default();
        assert!(edges.may_add(dest, at(0)));
        edges.deleted(dest, at(100));
        edges.used.insert(dest, at(150));
        assert!(edges.may_add(dest, at(200)));
        assert!(!edges.may_add(dest, at(215)) && !edges.may_add(dest, at(400)));
        assert!(edges.may_add(dest, at(411)));
    }

    #[test]
    fn nothing_is_used_shortly_before_a_cache_is_cleaned() {
        let edges = Edges { forgets: Some(Duration::from_mins(5)), ..Edges::default() };
        let clear = |at| edges.clear_of(Duration::from_secs(at)).as_secs();
        assert_eq!(clear(1480), 1480);
        assert_eq!(clear(1500), 1882);
        assert_eq!(clear(1900), 1900);
    }
}
