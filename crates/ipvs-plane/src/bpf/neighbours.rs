//! The neighbours that destinations are reached by, kept resolved by the kernel itself,
//! with or without a daemon.
//!
//! Only so many: the kernel's table of neighbours has room for a thousand or so of all
//! namespaces together, and throws out what is there once it is half full. Behind a
//! router there is one neighbour for any number of destinations. One that is not kept is
//! resolved once a packet needs it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::{fs, io};

use ipvs_core::addr::{Addr, Family};
use ipvs_core::dest::DestId;

use crate::rtnetlink::{FoundRoute, Rtnetlink};

/// Interface and address.
pub(super) type NeighbourKey = (u32, Family, Addr);

/// Neighbours of one family that are kept, unless the host says what it has room for:
/// half of what the kernel lets stand without looking for old ones.
const MOST: usize = 256;

/// Which neighbours are kept, and for how many destinations.
#[derive(Debug)]
pub(super) struct Neighbours {
    by_dest: HashMap<DestId, NeighbourKey>,
    used: HashMap<NeighbourKey, Use>,
    most: [usize; 2],
    kept: [usize; 2],
}

#[derive(Clone, Copy, Debug, Default)]
struct Use {
    dests: u32,
    kept: bool,
}

/// What the kernel is asked to do.
pub(super) trait Keeper {
    /// Keeps a neighbour resolved.
    fn keep(&mut self, neighbour: NeighbourKey) -> io::Result<()>;
    /// Keeps it no longer.
    fn release(&mut self, neighbour: NeighbourKey) -> io::Result<()>;
}

impl Keeper for Rtnetlink {
    fn keep(&mut self, (ifindex, family, addr): NeighbourKey) -> io::Result<()> {
        self.manage_neighbour(ifindex, family, addr)
    }

    fn release(&mut self, (ifindex, family, addr): NeighbourKey) -> io::Result<()> {
        self.release_neighbour(ifindex, family, addr)
    }
}

impl Neighbours {
    /// None, on this host.
    pub(super) fn new() -> Self {
        Self::with_room([room("ipv4"), room("ipv6")])
    }

    fn with_room(most: [usize; 2]) -> Self {
        Self { by_dest: HashMap::new(), used: HashMap::new(), most, kept: [0; 2] }
    }

    /// A destination is reached by this way.
    pub(super) fn follow(
        &mut self,
        id: DestId,
        family: Family,
        addr: Addr,
        way: Option<FoundRoute>,
        keeper: &mut dyn Keeper,
    ) {
        let Some(FoundRoute::Unicast { ifindex, gateway, .. }) = way else {
            return self.forget(id, keeper);
        };
        let (family, next) = gateway.unwrap_or((family, addr));
        let neighbour = (ifindex, family, next);
        if self.by_dest.get(&id) == Some(&neighbour) {
            return;
        }
        // The new one first: so it is never without.
        let before = self.by_dest.insert(id, neighbour);
        self.used.entry(neighbour).or_default().dests += 1;
        if let Some(before) = before {
            self.leave(before, keeper);
        }
        self.keep(neighbour, keeper);
    }

    /// Keeps only what these destinations need.
    pub(super) fn retain(&mut self, is_listed: impl Fn(DestId) -> bool, keeper: &mut dyn Keeper) {
        let gone: Vec<DestId> = self.by_dest.keys().copied().filter(|id| !is_listed(*id)).collect();
        for id in gone {
            self.forget(id, keeper);
        }
    }

    /// The kernel has lost a neighbour; one that was kept is kept again.
    pub(super) fn lost(&mut self, neighbour: NeighbourKey, keeper: &mut dyn Keeper) {
        if self.used.get(&neighbour).is_some_and(|used| used.kept) {
            report(neighbour, keeper.keep(neighbour));
        }
    }

    /// How many are kept resolved, and how many are not.
    pub(super) fn count(&self) -> [u64; 2] {
        let kept = self.used.values().filter(|used| used.kept).count();
        [kept as u64, (self.used.len() - kept) as u64]
    }

    /// A line for what an administrator should know.
    pub(super) fn report(&self) -> Option<String> {
        let [kept, left] = self.count();
        (left > 0).then(|| {
            format!(
                "{left} neighbours of destinations are resolved once they are needed; \
                 {kept} are kept resolved"
            )
        })
    }

    fn forget(&mut self, id: DestId, keeper: &mut dyn Keeper) {
        if let Some(neighbour) = self.by_dest.remove(&id) {
            self.leave(neighbour, keeper);
        }
    }

    fn leave(&mut self, neighbour: NeighbourKey, keeper: &mut dyn Keeper) {
        let Entry::Occupied(mut entry) = self.used.entry(neighbour) else { return };
        entry.get_mut().dests -= 1;
        if entry.get().dests != 0 {
            return;
        }
        if entry.remove().kept {
            if let Some(kept) = self.kept.get_mut(place(neighbour.1)) {
                *kept -= 1;
            }
            report(neighbour, keeper.release(neighbour));
        }
    }

    fn keep(&mut self, neighbour: NeighbourKey, keeper: &mut dyn Keeper) {
        let place = place(neighbour.1);
        let (Some(most), Some(kept)) = (self.most.get(place), self.kept.get_mut(place)) else {
            return;
        };
        let Some(used) = self.used.get_mut(&neighbour).filter(|used| !used.kept) else { return };
        if *kept >= *most {
            return;
        }
        let outcome = keeper.keep(neighbour);
        used.kept = outcome.is_ok();
        *kept += usize::from(used.kept);
        report(neighbour, outcome);
    }
}

const fn place(family: Family) -> usize {
    match family {
        Family::V4 => 0,
        Family::V6 => 1,
    }
}

/// As many as the host has room for. Only its first network namespace says so.
fn room(family: &str) -> usize {
    let path = format!("/proc/sys/net/{family}/neigh/default/gc_thresh2");
    let said = fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<usize>().ok());
    said.map_or(MOST, |limit| limit / 2)
}

fn report(neighbour: NeighbourKey, outcome: io::Result<()>) {
    if let Err(error) = outcome {
        tracing::debug!(%error, ?neighbour, "a neighbour is not kept as it should be");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[derive(Debug, Default)]
    struct Table(HashSet<NeighbourKey>, u32);

    impl Keeper for Table {
        fn keep(&mut self, neighbour: NeighbourKey) -> io::Result<()> {
            self.1 += 1;
            self.0.insert(neighbour);
            Ok(())
        }

        fn release(&mut self, neighbour: NeighbourKey) -> io::Result<()> {
            self.0.remove(&neighbour);
            Ok(())
        }
    }

    const fn addr(number: u8) -> Addr {
        Addr::v4([10, 1, 0, number])
    }

    fn by(gateway: Option<u8>) -> FoundRoute {
        let gateway = gateway.map(|number| (Family::V4, addr(number)));
        FoundRoute::Unicast { ifindex: 2, gateway, source: None, mtu: None }
    }

    #[test]
    fn behind_a_router_one_neighbour_is_kept_until_the_last_destination_goes() {
        let (mut neighbours, mut table) = (Neighbours::with_room([9; 2]), Table::default());
        for number in 0..100 {
            neighbours.follow(
                number.into(),
                Family::V4,
                addr(number),
                Some(by(Some(254))),
                &mut table,
            );
        }
        assert_eq!((table.1, table.0.len()), (1, 1));
        neighbours.retain(|id| id == 7, &mut table);
        assert_eq!(table.0.len(), 1);
        neighbours.follow(7, Family::V4, addr(7), Some(FoundRoute::Unreachable), &mut table);
        assert!(table.0.is_empty());
    }

    #[test]
    fn no_more_are_kept_than_there_is_room_for() {
        let (mut neighbours, mut table) = (Neighbours::with_room([3; 2]), Table::default());
        for number in 0..5 {
            neighbours.follow(number.into(), Family::V4, addr(number), Some(by(None)), &mut table);
        }
        assert_eq!(table.0.len(), 3);
        assert!(neighbours.report().unwrap().starts_with("2 neighbours"));
        neighbours.retain(|id| id != 0, &mut table);
        neighbours.follow(9, Family::V4, addr(9), Some(by(None)), &mut table);
        assert!(table.0.contains(&(2, Family::V4, addr(9))), "there is room again");
    }

    #[test]
    fn one_that_the_kernel_has_lost_is_kept_again_and_no_other() {
        let (mut neighbours, mut table) = (Neighbours::with_room([1; 2]), Table::default());
        for number in [1, 2] {
            neighbours.follow(number.into(), Family::V4, addr(number), Some(by(None)), &mut table);
        }
        table.0.clear();
        neighbours.lost((2, Family::V4, addr(1)), &mut table);
        neighbours.lost((2, Family::V4, addr(2)), &mut table);
        neighbours.lost((2, Family::V4, addr(3)), &mut table);
        assert_eq!(table.0, HashSet::from([(2, Family::V4, addr(1))]));
    }
}
