//! News of the host's network, and which of them matter to a plane.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use ipvs_core::addr::{Addr, Family};
use ipvs_plane::rtnetlink::{Changes, Monitor, Neighbour};

/// The plane is told at most this often; the news of a storm are told together.
const PAUSE: Duration = Duration::from_millis(100);

/// What is heard of the host, until the plane has been told.
#[derive(Debug)]
pub(crate) struct Host {
    monitor: Monitor,
    macs: Macs,
    untold: bool,
    /// Before this time the plane is not told again.
    quiet_until: Instant,
}

impl Host {
    /// Listens in the calling thread's network namespace.
    pub(crate) fn listen(now: Instant) -> io::Result<Self> {
        let monitor = Monitor::open()?;
        Ok(Self { monitor, macs: Macs::default(), untold: false, quiet_until: now })
    }

    /// Takes the news that are there.
    pub(crate) fn hear(&mut self) -> io::Result<()> {
        let news = self.monitor.drain()?;
        // Every neighbour is looked at, so that none is forgotten.
        let neighbours = news.neighbours.iter().filter(|n| self.macs.differ(n)).count();
        self.untold |= neighbours > 0 || bears_on_routes(&news);
        Ok(())
    }

    /// Whether the plane is to be told now; if so, it counts as told.
    pub(crate) fn tells(&mut self, now: Instant) -> bool {
        if !self.untold || now < self.quiet_until {
            return false;
        }
        self.untold = false;
        self.quiet_until = now + PAUSE;
        true
    }

    /// When there is something to tell next.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.untold.then_some(self.quiet_until)
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
        Neighbour { ifindex: 2, family: Family::V4, addr, mac, state }
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
