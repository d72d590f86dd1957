//! What schedulers have of their own besides the service's record: the hash
//! tables of dh, sh and mh, which are filled here whenever a list changes, and
//! the caches of lblc and lblcr, which packets fill.

use std::collections::{HashMap, HashSet};

use ipvs_core::command::CommandError;
use ipvs_core::conn::NONE;
use ipvs_core::dest::DestId;
use ipvs_core::sched::cache;
use ipvs_core::sched::table::{self, BLOCK, Seat};
use ipvs_core::service::{SchedulerKind, ServiceKey};

use super::apply::Draft;
use super::{Entry, Registry, Run};
use crate::store::{Owner, Store};

/// What a scheduler has of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Own {
    /// Nothing.
    #[default]
    Nothing,
    /// A hash table, in these blocks.
    Table(Run),
    /// A cache, at this place.
    Cache(u32),
}

impl Own {
    /// Of a service that was found in the tables.
    pub(super) fn found(kind: SchedulerKind, place: u32) -> Self {
        match blocks_of(kind) {
            _ if place == NONE => Self::Nothing,
            _ if cache::is_kept_by(kind) => Self::Cache(place),
            0 => Self::Nothing,
            len => Self::Table(Run { first: place, len }),
        }
    }

    /// As the service's record says it.
    pub(super) fn place(self) -> u32 {
        match self {
            Self::Nothing => NONE,
            Self::Table(run) => run.first,
            Self::Cache(place) => place,
        }
    }

    /// The blocks of its table.
    pub(super) fn run(self) -> Run {
        match self {
            Self::Table(run) => run,
            Self::Nothing | Self::Cache(_) => Run::default(),
        }
    }
}

const fn blocks_of(kind: SchedulerKind) -> u32 {
    table::len(kind).div_ceil(BLOCK)
}

/// Tables to be written, and services that do not have any more what they had.
#[derive(Debug, Default)]
pub(super) struct Owned {
    tables: Vec<(Run, Vec<DestId>)>,
    caches: Vec<(u32, SchedulerKind)>,
    given: Vec<Own>,
    left: Vec<Own>,
}

impl<S: Store> Registry<S> {
    /// Gives every touched service what its scheduler needs. On an error
    /// nothing is taken.
    pub(super) fn take_owned(&mut self, draft: &mut Draft) -> Result<Owned, CommandError> {
        let mut owned = Owned::default();
        let edited: HashSet<ServiceKey> = draft.memory.iter().map(|(key, _)| *key).collect();
        let keys: Vec<ServiceKey> = draft.services.keys().copied().collect();
        for key in keys {
            let before = self.services.get(&key).map(|entry| (entry.serial, entry.kind, entry.own));
            let touched = draft.services.get(&key).cloned().flatten();
            let had = before.map_or(Own::Nothing, |(.., own)| own);
            let Some(mut entry) = touched else {
                owned.left.push(had);
                continue;
            };
            // What is kept is that of the same service with the same scheduler.
            let kept =
                before.filter(|(serial, kind, _)| *serial == entry.serial && *kind == entry.kind);
            if let (Some((.., own)), false) = (kept, edited.contains(&key)) {
                entry.own = own;
            } else {
                let stays = kept.map(|(.., own)| own);
                match self.take_one(draft, &entry, stays, &mut owned) {
                    Ok(own) => entry.own = own,
                    Err(error) => {
                        owned.given.into_iter().for_each(|own| self.retire_own(own));
                        return Err(error);
                    }
                }
                if entry.own != had {
                    owned.left.push(had);
                }
            }
            draft.services.insert(key, Some(entry));
        }
        Ok(owned)
    }

    fn take_one(
        &mut self,
        draft: &Draft,
        entry: &Entry,
        stays: Option<Own>,
        owned: &mut Owned,
    ) -> Result<Own, CommandError> {
        if cache::is_kept_by(entry.kind) {
            // An edit of the list leaves what was remembered.
            if let Some(own) = stays {
                return Ok(own);
            }
            let limit = self.caches.limit();
            let full = CommandError::Full { what: "services with lblc or lblcr", limit };
            let place = self.caches.take().ok_or(full)?;
            owned.caches.push((place, entry.kind));
            owned.given.push(Own::Cache(place));
            return Ok(Own::Cache(place));
        }
        let len = blocks_of(entry.kind);
        if len == 0 {
            return Ok(Own::Nothing);
        }
        let most = table::max_dests(entry.kind) as usize;
        let mut dests = entry.dests.as_slice();
        if dests.len() > most {
            // A table that its list outgrows stays as it is.
            if let Some(own) = stays.filter(|own| *own != Own::Nothing) {
                return Ok(own);
            }
            dests = dests.get(..most).unwrap_or_default();
        }
        let mut seats: Vec<Seat> =
            dests.iter().rev().filter_map(|id| self.seat(draft, *id)).collect();
        let mut slots = vec![NONE; table::len(entry.kind) as usize];
        if !table::fill(entry.kind, &mut seats, &mut slots) {
            return Ok(Own::Nothing);
        }
        let limit = self.blocks.limit();
        let full = CommandError::Full { what: "blocks of schedulers' hash tables", limit };
        let run = self.blocks.take(len).ok_or(full)?;
        owned.tables.push((run, slots));
        owned.given.push(Own::Table(run));
        Ok(Own::Table(run))
    }

    fn seat(&mut self, draft: &Draft, id: DestId) -> Option<Seat> {
        let dest = draft.dests.get(&id).or_else(|| self.dests.get(&id))?;
        // A slot would be nobody's: neither sh nor mh looks at another one unless told to.
        if dest.is_draining() {
            return None;
        }
        let last_weight = match draft.last_weights.get(&id) {
            Some(weight) => *weight,
            None => self.store.account(Owner::Dest(id)).last_weight,
        };
        Some(Seat::new(id, dest, last_weight))
    }

    /// Writes what no packet looks at yet.
    pub(super) fn write_owned(&mut self, owned: &Owned) -> Result<(), S::Error> {
        for (place, kind) in &owned.caches {
            self.store.open_cache(*place, *kind)?;
        }
        for (run, slots) in &owned.tables {
            for (block, slots) in (run.first..).zip(slots.chunks(BLOCK as usize)) {
                let mut whole = [NONE; BLOCK as usize];
                for (to, from) in whole.iter_mut().zip(slots) {
                    *to = *from;
                }
                self.store.put_block(block, &whole)?;
            }
        }
        Ok(())
    }

    /// Remembers the weights that mh goes by.
    pub(super) fn write_last_weights(
        &mut self,
        weights: &HashMap<DestId, u32>,
    ) -> Result<(), S::Error> {
        for (id, weight) in weights {
            let mut account = self.store.account(Owner::Dest(*id));
            if account.last_weight != *weight {
                account.last_weight = *weight;
                self.store.put_account(Owner::Dest(*id), &account)?;
            }
        }
        Ok(())
    }

    /// Gives back what services had before the edit.
    pub(super) fn retire_owned(&mut self, owned: Owned) {
        owned.left.into_iter().for_each(|own| self.retire_own(own));
    }

    fn retire_own(&mut self, own: Own) {
        self.blocks.retire(own.run());
        if let Own::Cache(place) = own {
            self.caches.retire(place);
        }
    }

    /// Frees what was given back and has rested.
    pub(super) fn reclaim_owned(&mut self) {
        let resting: Vec<u32> = self.blocks.resting().collect();
        self.remove_blocks(resting);
        self.blocks.reclaim();
        self.close_caches(self.caches.resting().to_vec());
        self.caches.reclaim();
    }

    /// Frees what an earlier daemon had no time to.
    pub(super) fn adopt_owned(&mut self) {
        let used: Vec<Run> = self.services.values().map(|entry| entry.own.run()).collect();
        self.blocks.adopt(&used);
        let used: HashSet<u32> =
            used.iter().flat_map(|run| run.first..run.first + run.len).collect();
        let unused =
            self.store.blocks().into_iter().filter(|block| !used.contains(block)).collect();
        self.remove_blocks(unused);
        let kept = |entry: &Entry| match entry.own {
            Own::Cache(place) => Some(place),
            _ => None,
        };
        let used: Vec<u32> = self.services.values().filter_map(kept).collect();
        self.caches.adopt(&used);
        let open = self.store.open_caches().into_iter();
        self.close_caches(open.filter(|place| !used.contains(place)).collect());
    }

    fn remove_blocks(&mut self, blocks: Vec<u32>) {
        for block in blocks {
            if let Err(error) = self.store.remove_block(block) {
                tracing::error!(%error, block, "a block of a hash table stays in memory");
            }
        }
    }

    fn close_caches(&mut self, places: Vec<u32>) {
        for place in places {
            if let Err(error) = self.store.close_cache(place) {
                tracing::error!(%error, place, "a cache keeps what it remembers");
            }
        }
    }
}
