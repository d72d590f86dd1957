//! Destinations that are drained: what the edits do, and the end at the deadline.

use std::collections::HashMap;

use ipvs_core::command::CommandError;
use ipvs_core::conn::ConnFlags;
use ipvs_core::dest::{Dest, DestId, DestKey};
use ipvs_core::drain::{AtDeadline, Drain, DrainStatus, is_open, millis_between};
use ipvs_core::service::ServiceKey;
use ipvs_core::time::Instant;

use super::Registry;
use super::apply::Draft;
use crate::store::{Draining, Owner, Store};

/// The deadline of a drain that has none.
const NEVER: u64 = u64::MAX;

/// Every destination that is drained. A deleted one may still be named: it is drained no more.
#[derive(Debug, Default)]
pub(super) struct Drains(HashMap<DestId, Draining>);

/// Connections of a destination.
#[derive(Clone, Copy, Debug, Default)]
struct Left {
    open: u32,
    over: u32,
}

impl<S: Store> Registry<S> {
    pub(super) fn drain(
        &mut self,
        draft: &mut Draft,
        service: &ServiceKey,
        key: &DestKey,
        drain: Drain,
    ) -> Result<(), CommandError> {
        let (id, mut dest) = self.listed_in(draft, service, key)?;
        let now = self.store.now();
        // One that is drained already goes on; what is new is its end.
        let draining = self.draining(draft, id).unwrap_or_else(|| Draining {
            since: now.nanos(),
            weight: dest.spec.weight,
            began_with: self.connections_of(&[id]).get(&id).map_or(0, |left| left.open),
            ..Draining::default()
        });
        let until = drain.limit.map_or(NEVER, |limit| now.after(limit).nanos());
        let draining = Draining { until, then: drain.then as u32, ..draining };
        dest.flags = Dest::AVAILABLE | Dest::DRAINING;
        self.put_drain(draft, service, id, dest, Some(draining))
    }

    pub(super) fn undrain(
        &mut self,
        draft: &mut Draft,
        service: &ServiceKey,
        key: &DestKey,
    ) -> Result<(), CommandError> {
        let (id, mut dest) = self.listed_in(draft, service, key)?;
        if !dest.is_draining() {
            return Err(CommandError::NotDrained);
        }
        dest.flags = Dest::AVAILABLE;
        self.put_drain(draft, service, id, dest, None)
    }

    fn listed_in(
        &self,
        draft: &Draft,
        service: &ServiceKey,
        key: &DestKey,
    ) -> Result<(DestId, Dest), CommandError> {
        self.entry(draft, service)?;
        let id = self.placed_in(draft, service, key).ok_or(CommandError::NoSuchDest)?;
        Ok((id, self.dest_in(draft, id).ok_or(CommandError::NoSuchDest)?))
    }

    /// The drain of a destination as the draft has it.
    fn draining(&self, draft: &Draft, id: DestId) -> Option<Draining> {
        let is_draining = self.dest_in(draft, id).is_some_and(|dest| dest.is_draining());
        let known = draft.drains.get(&id).copied();
        known.unwrap_or_else(|| self.drains.0.get(&id).copied()).filter(|_| is_draining)
    }

    fn put_drain(
        &mut self,
        draft: &mut Draft,
        service: &ServiceKey,
        id: DestId,
        dest: Dest,
        draining: Option<Draining>,
    ) -> Result<(), CommandError> {
        draft.dests.insert(id, dest);
        draft.drains.insert(id, draining);
        self.entry_mut(draft, service)?;
        // As if its weight had been edited.
        self.has_changed(draft, service)
    }

    /// A destination gets another weight: if it is drained, once it is so no more.
    pub(super) fn keep_drained(&self, draft: &mut Draft, id: DestId, weight: i32) {
        if let Some(draining) = self.draining(draft, id) {
            draft.drains.insert(id, Some(Draining { weight, ..draining }));
        }
    }

    /// Writes what must outlive the daemon.
    pub(super) fn write_drains(
        &mut self,
        drains: &HashMap<DestId, Option<Draining>>,
    ) -> Result<(), S::Error> {
        for (id, draining) in drains {
            let mut account = self.store.account(Owner::Dest(*id));
            account.drain = draining.unwrap_or_default();
            self.store.put_account(Owner::Dest(*id), &account)?;
            match draining {
                Some(draining) => self.drains.0.insert(*id, *draining),
                None => self.drains.0.remove(id),
            };
        }
        Ok(())
    }

    /// Takes up the drains of an earlier daemon.
    pub(super) fn adopt_drains(&mut self) {
        let drained = self.dests.iter().filter(|(_, dest)| dest.is_draining());
        for id in drained.map(|(id, _)| *id).collect::<Vec<_>>() {
            let draining = self.store.account(Owner::Dest(id)).drain;
            self.drains.0.insert(id, draining);
            if let Some(dest) = self.dests.get_mut(&id) {
                dest.spec.weight = draining.weight;
            }
        }
    }

    /// Ends what is due, and forgets what is drained no more.
    pub(super) fn look_after_drains(&mut self, now: Instant) {
        let dests = &self.dests;
        self.drains.0.retain(|id, _| dests.get(id).is_some_and(Dest::is_draining));
        for (id, draining) in &self.drains.0 {
            let Some(dest) = self.dests.get_mut(id) else { continue };
            let then = AtDeadline::from_number(draining.then).unwrap_or_default();
            let more = match then {
                AtDeadline::Wait => continue,
                AtDeadline::Rehash => Dest::OVER,
                AtDeadline::Reset => Dest::OVER | Dest::RESETS,
            };
            if now.nanos() < draining.until || dest.flags & Dest::OVER != 0 {
                continue;
            }
            let over = Dest { flags: dest.flags | more, ..*dest };
            match self.store.put_dest(*id, &over.as_seen()) {
                Ok(()) => *dest = over,
                // It is tried again.
                Err(error) => tracing::error!(%error, "a drain cannot be ended"),
            }
        }
    }

    /// What is left of the connections of these destinations.
    fn connections_of(&mut self, ids: &[DestId]) -> HashMap<DestId, Left> {
        let mut all: HashMap<DestId, Left> = ids.iter().map(|id| (*id, Left::default())).collect();
        if all.is_empty() {
            return all;
        }
        self.store.each_conn(&mut |_, conn| {
            let Some(left) = all.get_mut(&conn.dest.get()) else { return };
            if is_open(conn) {
                left.open += 1;
            } else if !conn.has(ConnFlags::TEMPLATE) {
                left.over += 1;
            }
        });
        all
    }

    /// How far every drain is.
    pub(super) fn drain_statuses(&mut self) -> Vec<DrainStatus> {
        let now = self.store.now();
        let ids: Vec<DestId> = self.drains.0.keys().copied().collect();
        let left = self.connections_of(&ids);
        let mut statuses = Vec::new();
        for (key, entry) in &self.services {
            for id in &entry.dests {
                let Some(draining) = self.drains.0.get(id) else { continue };
                let Some(dest) = self.dests.get(id).filter(|dest| dest.is_draining()) else {
                    continue;
                };
                let left = left.get(id).copied().unwrap_or_default();
                let until = Instant::from_nanos(draining.until);
                statuses.push(DrainStatus {
                    service: *key,
                    dest: dest.key,
                    then: AtDeadline::from_number(draining.then).unwrap_or_default(),
                    since: millis_between(Instant::from_nanos(draining.since), now),
                    deadline: (draining.until != NEVER).then(|| millis_between(now, until)),
                    began_with: draining.began_with,
                    open: left.open,
                    over: left.over,
                    persistent: self.store.load_values(*id).persistent,
                });
            }
        }
        statuses
    }
}
