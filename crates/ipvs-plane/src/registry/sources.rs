//! What follows from the host's routes: the source address of each tunnel, and whatever
//! a plane makes of a destination's way.
//!
//! A change of routes is followed in shares, so that with very many destinations nobody
//! has to wait for all of them.

use std::collections::{HashSet, VecDeque};

use ipvs_core::addr::Addr;
use ipvs_core::dest::{Dest, DestId};

use super::Registry;
use crate::store::Store;

impl<S: Store> Registry<S> {
    /// The host's routes have changed: every destination is to be looked at, those first
    /// that still were.
    pub fn routes_changed(&mut self) {
        let waiting: HashSet<DestId> = self.unsettled.iter().copied().collect();
        let listed = self.services.values().flat_map(|entry| &entry.dests).copied();
        self.unsettled.extend(listed.filter(|id| !waiting.contains(id)));
    }

    /// Whether there are destinations to be looked at.
    pub fn is_unsettled(&self) -> bool {
        !self.unsettled.is_empty()
    }

    /// Looks at the next destinations, so many at most: asks the host for its address
    /// towards each. Returns them.
    pub fn settle_some(&mut self, most: usize) -> Vec<(DestId, Dest)> {
        let mut settled = Vec::new();
        let ids = take(&mut self.unsettled, most);
        let keys = ids.iter().filter_map(|id| self.dests.get(id)).map(|dest| dest.key);
        self.store.look_ahead(&keys.map(|key| (key.family(), key.addr)).collect::<Vec<_>>());
        for id in ids {
            let Some(dest) = self.dests.get_mut(&id).filter(|dest| dest.is_available()) else {
                continue;
            };
            let source = self.store.source_towards(dest.key.family(), dest.key.addr);
            let source = source.unwrap_or(Addr::UNSPECIFIED);
            if source != dest.tunnel_source {
                dest.tunnel_source = source;
                if let Err(error) = self.store.put_dest(id, &dest.as_seen()) {
                    tracing::error!(%error, dest = ?dest.key, "its tunnel keeps the old source");
                }
            }
            settled.push((id, *dest));
        }
        self.store.look_ahead(&[]);
        settled
    }
}

fn take(from: &mut VecDeque<DestId>, most: usize) -> Vec<DestId> {
    from.drain(..most.min(from.len())).collect()
}

#[cfg(test)]
mod tests {
    use ipvs_core::snapshot::Control as _;

    use super::super::tests::{add_dest, add_service, registry};

    #[test]
    fn every_destination_is_looked_at_however_often_routes_change() {
        let mut registry = registry();
        registry.apply(&[add_service(80)]).unwrap();
        let all: Vec<_> = (1..=4).map(|number| add_dest(80, number)).collect();
        registry.apply(&all).unwrap();
        let mut seen = std::collections::HashSet::new();
        for _ in 0..4 {
            // Again before the share is done that was to be.
            registry.routes_changed();
            seen.extend(registry.settle_some(1).into_iter().map(|(id, _)| id));
        }
        assert_eq!(seen.len(), 4);
        assert!(registry.is_unsettled());
        while registry.is_unsettled() {
            assert_eq!(registry.settle_some(1).len(), 1);
        }
    }

    #[test]
    fn a_destination_that_has_gone_is_not_looked_at() {
        let mut registry = registry();
        registry.apply(&[add_service(80), add_dest(80, 1)]).unwrap();
        registry.routes_changed();
        registry.apply(&[ipvs_core::command::Command::Flush]).unwrap();
        assert!(registry.settle_some(9).is_empty());
        assert_eq!(registry.statistics().0.conns, 0);
    }
}
