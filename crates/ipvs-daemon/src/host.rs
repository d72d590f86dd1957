//! News of the host's network, and which of them matter to a plane.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use ipvs_core::addr::{Addr, Family};
use ipvs_plane::rtnetlink::{Changes, Monitor, Neighbour};

/// The plane is told at most this often; the news of a storm are told together.
const PAUSE: Duration = Duration::from_millis(100);

/// What a plane is told.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct News {
    /// Interfaces, addresses or routes changed.
    pub(crate) routes: bool,
    /// Neighbours that changed.
    pub(crate) neighbours: Vec<Neighbour>,
}

impl News {
    fn are_none(&self) -> bool {
        !self.routes && self.neighbours.is_empty()
    }
}

/// What is heard of the host, until the plane has been told.
#[derive(Debug)]
pub(crate) struct Host {
    monitor: Monitor,
    macs: Macs,
    untold: News,
    /// Before this time the plane is not told again.
    quiet_until: Instant,
}

impl Host {
    /// Listens in the calling thread's network namespace.
    pub(crate) fn listen(now: Instant) -> io::Result<Self> {
        let monitor = Monitor::open()?;
        Ok(Self { monitor, macs: Macs::default(), untold: News::default(), quiet_until: now })
    }

    /// Takes the news that are there.
    pub(crate) fn hear(&mut self) -> io::Result<()> {
        let news = self.monitor.drain()?;
        self.untold.routes |= bears_on_routes(&news);
        // Every neighbour is looked at, so that none is forgotten.
        self.untold.neighbours.extend(news.neighbours.iter().filter(|n| self.macs.differ(n)));
        Ok(())
    }

    /// What the plane is to be told now, if anything; it counts as told.
    pub(crate) fn tells(&mut self, now: Instant) -> Option<News> {
        if self.untold.are_none() || now < self.quiet_until {
            return None;
        }
        self.quiet_until = now + PAUSE;
        Some(std::mem::take(&mut self.untold))
    }

    /// When there is something to tell next.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        (!self.untold.are_none()).then_some(self.quiet_until)
    }
}

impl AsFd for Host {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.monitor.as_fd()
    }
}

fn bears_on_routes(news: &Changes) -> bool {
    news.links || news.addresses || news.routes || news.lost
}

/// The MAC addresses that neighbours had when they were last heard of: a
/// neighbour that was merely confirmed is no news.
#[derive(Debug, Default)]
struct Macs(HashMap<(u32, Family, Addr), [u8; 6]>);

impl Macs {
    /// Whether frames to this neighbour must be sent otherwise than before.
    fn differ(&mut self, neighbour: &Neighbour) -> bool {
        let key = (neighbour.ifindex, neighbour.family, neighbour.addr);
        let before = match neighbour.usable() {
            Some(mac) => self.0.insert(key, mac),
            None => self.0.remove(&key),
        };
        before != neighbour.usable()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipvs_plane::rtnetlink::NeighbourState;

    fn neighbour(state: NeighbourState, mac: Option<[u8; 6]>) -> Neighbour {
        let addr = Addr::v4([10, 1, 0, 11]);
        Neighbour { ifindex: 2, family: Family::V4, addr, mac, state, managed: false }
    }

    #[test]
    fn a_neighbour_is_news_when_its_mac_address_changes() {
        let mut macs = Macs::default();
        for (state, mac, news) in [
            (NeighbourState::Incomplete, None, false),
            (NeighbourState::Valid, Some([2; 6]), true),
            (NeighbourState::Stale, Some([2; 6]), false),
            (NeighbourState::Valid, Some([4; 6]), true),
            (NeighbourState::Unknown, None, true),
            (NeighbourState::Unknown, None, false),
        ] {
            assert_eq!(macs.differ(&neighbour(state, mac)), news, "{state:?} {mac:?}");
        }
    }
}
