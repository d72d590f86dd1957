//! When nobody knows whether a connection is there.
//!
//! The kernel's timers are those of a wheel (the timer wheel of Linux since 4.8): one that was
//! set to a time long ahead fires late by up to a turn of the wheel it is on. So between the time
//! at which a connection ends by its timer and some time later nothing is looked at.

use std::collections::HashMap;
use std::time::Duration;

use ipvs_core::addr::Addr;
use ipvs_core::conn::ConnFlags;
use ipvs_core::snapshot::{ConnStatus, Control};

/// How far apart two clocks may be that count the same time.
const APART: Duration = Duration::from_millis(150);
/// A shift of a connection's end that is none: by so much the two ways to reckon it differ.
const SAME: Duration = Duration::from_millis(2);

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
    edges: HashMap<Key, Edge>,
    /// Until when something that has ended may be there.
    until: Duration,
}

impl Edges {
    /// Looks at the connections at the time `now`, before anything happens.
    pub(crate) fn look(&mut self, now: Duration, control: &mut dyn Control) {
        let before = std::mem::take(&mut self.edges);
        let edges = &mut self.edges;
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
        });
        for (key, edge) in before {
            if edge.end <= now && !self.edges.contains_key(&key) {
                self.until = self.until.max(edge.last());
            }
        }
    }

    /// The first moment from `now` on at which it is known of each connection whether it is there.
    pub(crate) fn clear_of(&self, now: Duration) -> Duration {
        let mut at = now.max(self.until);
        loop {
            let is_on = |it: &&Edge| it.end.saturating_sub(APART) <= at && at <= it.last();
            match self.edges.values().filter(is_on).map(Edge::last).max() {
                Some(last) => at = last + SAME,
                None => return at,
            }
        }
    }

    /// When the last of the connections has ended whose time to that end is not known
    /// as well as listings are compared.
    pub(crate) fn unknown_until(&self) -> Option<Duration> {
        let unknown = self.edges.values().filter(|it| it.late > Duration::from_secs(1));
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
        let edges = HashMap::from([(key(1), edge(100, 60)), (key(2), edge(102, 900))]);
        let edges = Edges { edges, until: Duration::ZERO };
        let clear = |at| edges.clear_of(Duration::from_secs(at)).as_secs();
        assert_eq!(clear(99), 99);
        assert_eq!(clear(101), 118);
        assert_eq!(clear(200), 200);
    }
}
