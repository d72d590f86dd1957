//! Frames that wait until a neighbour's MAC address is known.

use std::collections::HashMap;

use ipvs_core::time::{Instant, Millis};

use super::host::NeighbourKey;
use super::pool::Pool;
use crate::frame::Frame;

/// Frames kept for one neighbour.
const PER_NEIGHBOUR: usize = 64;
/// Neighbours waited for.
const NEIGHBOURS: usize = 1024;
/// The kernel asks three times, a second apart, and gives up.
const PATIENCE: Millis = Millis(4_000);

/// A neighbour that is waited for.
#[derive(Debug)]
struct Waiting {
    until: Instant,
    frames: Vec<Frame>,
}

/// The frames, by neighbour.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    waiting: HashMap<NeighbourKey, Waiting>,
    /// Frames that were given up.
    pub(crate) dropped: u64,
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Queued {
    /// It is the first one: the neighbour is to be resolved.
    First,
    /// It waits with others.
    Behind,
    /// There was no room.
    Dropped,
}

impl Pending {
    /// Keeps a frame.
    pub(crate) fn add(
        &mut self,
        key: NeighbourKey,
        frame: Frame,
        now: Instant,
        pool: &mut Pool,
    ) -> Queued {
        let known = self.waiting.len();
        match self.waiting.get_mut(&key) {
            Some(waiting) if waiting.frames.len() < PER_NEIGHBOUR => {
                waiting.frames.push(frame);
                Queued::Behind
            }
            None if known < NEIGHBOURS => {
                let waiting = Waiting { until: now.after(PATIENCE), frames: vec![frame] };
                self.waiting.insert(key, waiting);
                Queued::First
            }
            _ => {
                self.dropped += 1;
                pool.give(frame);
                Queued::Dropped
            }
        }
    }

    /// The frames of a neighbour that is known now.
    pub(crate) fn release(&mut self, key: NeighbourKey) -> Vec<Frame> {
        self.waiting.remove(&key).map_or_else(Vec::new, |waiting| waiting.frames)
    }

    /// Gives up the frames of a neighbour that does not answer.
    pub(crate) fn give_up(&mut self, key: NeighbourKey, pool: &mut Pool) {
        for frame in self.release(key) {
            self.dropped += 1;
            pool.give(frame);
        }
    }

    /// Gives up what has waited too long.
    pub(crate) fn expire(&mut self, now: Instant, pool: &mut Pool) {
        let due = self.waiting.iter().filter(|(_, waiting)| waiting.until <= now);
        let due: Vec<_> = due.map(|(key, _)| *key).collect();
        for key in due {
            self.give_up(key, pool);
        }
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The neighbours that are waited for.
    pub(crate) fn keys(&self) -> Vec<NeighbourKey> {
        self.waiting.keys().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use ipvs_core::addr::{Addr, Family};

    use super::*;

    const KEY: NeighbourKey = (1, Family::V4, Addr::v4([10, 1, 0, 11]));

    fn add(pending: &mut Pending, key: NeighbourKey) -> Queued {
        pending.add(key, Frame::new(vec![1]), Instant::default(), &mut Pool::default())
    }

    #[test]
    fn frames_wait_in_order_and_in_bounds() {
        let mut pending = Pending::default();
        assert_eq!(add(&mut pending, KEY), Queued::First);
        for _ in 1..PER_NEIGHBOUR {
            assert_eq!(add(&mut pending, KEY), Queued::Behind);
        }
        assert_eq!((add(&mut pending, KEY), pending.dropped), (Queued::Dropped, 1));
        assert_eq!(pending.release(KEY).len(), PER_NEIGHBOUR);
        assert!(pending.waiting.is_empty());
    }

    #[test]
    fn neighbours_are_bounded_too() {
        let mut pending = Pending::default();
        for index in 0..NEIGHBOURS {
            let key = (u32::try_from(index).unwrap(), KEY.1, KEY.2);
            assert_eq!(add(&mut pending, key), Queued::First);
        }
        assert_eq!(add(&mut pending, (u32::MAX, KEY.1, KEY.2)), Queued::Dropped);
    }

    #[test]
    fn frames_are_given_up_after_the_kernel_has() {
        let (mut pending, mut pool) = (Pending::default(), Pool::default());
        add(&mut pending, KEY);
        let patience = Instant::default().after(PATIENCE);
        pending.expire(Instant::from_nanos(patience.nanos() - 1), &mut pool);
        assert!(!pending.waiting.is_empty());
        pending.expire(patience, &mut pool);
        assert!(pending.waiting.is_empty() && pending.dropped == 1);
    }
}
