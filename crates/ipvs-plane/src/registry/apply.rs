//! Applying a list of commands: first in a draft, where everything may still
//! be refused, then in the tables.

use std::collections::{HashMap, HashSet};

use ipvs_core::addr::Addr;
use ipvs_core::command::{Command, CommandError};
use ipvs_core::conn::NONE;
use ipvs_core::defence;
use ipvs_core::dest::{Dest, DestId, DestKey, DestSpec};
use ipvs_core::mark::MarkRule;
use ipvs_core::sched::table;
use ipvs_core::service::{ServiceKey, ServiceSpec};
use ipvs_core::settings::Settings;
use ipvs_core::snapshot::Refused;
use ipvs_core::sync::SyncDaemon;

use super::deleted::{Deleted, Left};
use super::in_settings::{count, count_service, set_timeouts};
use super::own::{Own, Owned};
use super::trash::Trashed;
use super::words::MemoryEdit;
use super::{Entry, Registry, Run, check, marks, sync};
use crate::store::{Account, Draining, Owner, Store};

/// Edits that are checked, but not yet in the tables.
#[derive(Debug)]
pub(super) struct Draft {
    /// Touched services; `None` for a deleted one.
    pub(super) services: HashMap<ServiceKey, Option<Entry>>,
    /// Added and edited destinations.
    pub(super) dests: HashMap<DestId, Dest>,
    /// Destinations that came on a list, and `None` for those that left one.
    placed: HashMap<(ServiceKey, DestKey), Option<DestId>>,
    /// Destinations whose drain began, and `None` for those whose drain ended.
    pub(super) drains: HashMap<DestId, Option<Draining>>,
    /// The last weights of these that were not zero, or the weight they were added with.
    pub(super) last_weights: HashMap<DestId, u32>,
    /// Destinations to be cleared before they are listed.
    reset: Vec<(DestId, Reset)>,
    /// Destinations that left their service.
    deleted: Deleted,
    pub(super) memory: Vec<(ServiceKey, MemoryEdit)>,
    zero: Vec<Option<ServiceKey>>,
    /// The mark rules, if they were touched.
    marks: Option<Vec<MarkRule>>,
    /// Sync daemons.
    pub(super) sync: Vec<SyncDaemon>,
    pub(super) settings: Settings,
    taken_services: Vec<u32>,
    taken_dests: Vec<u32>,
    taken_back: Vec<Trashed>,
}

/// What of a destination's past is forgotten when it is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reset {
    /// A new destination: everything.
    All,
    /// One that was deleted goes on counting. With another service object it is shown as
    /// if it began, from the last look on, as after `-Z`: recorded on 6.1.
    Returned {
        /// Whether its service is another one of the same key.
        is_other: bool,
    },
}

impl<S: Store> Registry<S> {
    /// Applies `commands` in order, all or none.
    pub fn apply(&mut self, commands: &[Command]) -> Result<(), Refused> {
        let mut draft = self.draft();
        for (position, command) in commands.iter().enumerate() {
            if let Err(error) = self.stage(&mut draft, command) {
                self.abandon(draft);
                return Err(Refused { position, error });
            }
        }
        let position = commands.len().saturating_sub(1);
        self.commit(draft).map_err(|error| Refused { position, error })
    }

    /// A draft of nothing yet.
    pub(super) fn draft(&self) -> Draft {
        Draft {
            services: HashMap::new(),
            dests: HashMap::new(),
            placed: HashMap::new(),
            drains: HashMap::new(),
            last_weights: HashMap::new(),
            reset: Vec::new(),
            deleted: Deleted::default(),
            memory: Vec::new(),
            zero: Vec::new(),
            marks: None,
            sync: self.sync.clone(),
            settings: self.settings,
            taken_services: Vec::new(),
            taken_dests: Vec::new(),
            taken_back: Vec::new(),
        }
    }

    fn abandon(&mut self, draft: Draft) {
        // Backwards, so that places are first used in their order: what looks for used
        // ones stops at the first that never was.
        draft.taken_services.into_iter().rev().for_each(|id| self.service_ids.untake(id));
        draft.taken_dests.into_iter().rev().for_each(|id| self.dest_ids.untake(id));
        draft.taken_back.into_iter().for_each(|trashed| self.trash.untake(trashed));
    }

    pub(super) fn stage(
        &mut self,
        draft: &mut Draft,
        command: &Command,
    ) -> Result<(), CommandError> {
        match command {
            Command::AddService(key, spec) => self.add_service(draft, key, spec),
            Command::EditService(key, spec) => self.edit_service(draft, key, spec),
            Command::DeleteService(key) => self.delete_service(draft, key),
            Command::AddDest(service, key, spec) => self.add_dest(draft, service, key, spec),
            Command::EditDest(service, key, spec) => self.edit_dest(draft, service, key, spec),
            Command::DeleteDest(service, key) => self.delete_dest(draft, service, key),
            Command::DrainDest(service, key, drain) => self.drain(draft, service, key, *drain),
            Command::UndrainDest(service, key) => self.undrain(draft, service, key),
            Command::Zero(None) => {
                draft.zero.push(None);
                Ok(())
            }
            Command::Zero(Some(key)) => {
                self.entry(draft, key)?;
                draft.zero.push(Some(*key));
                Ok(())
            }
            Command::Flush => {
                let keys: Vec<_> = self.services.keys().copied().collect();
                for key in
                    keys.into_iter().chain(draft.services.keys().copied().collect::<Vec<_>>())
                {
                    if self.entry(draft, &key).is_ok() {
                        self.delete_service(draft, &key)?;
                    }
                }
                Ok(())
            }
            Command::SetTimeouts(edit) => set_timeouts(&mut draft.settings, edit),
            Command::StartSync(daemon) => self.start_sync(draft, daemon),
            Command::StopSync(state) => sync::stop(draft, *state),
            Command::AddMarkRule(rule) => marks::add(self.drafted_marks(draft), rule),
            Command::DeleteMarkRule(rule) => marks::delete(self.drafted_marks(draft), rule),
            Command::FlushMarkRules => {
                draft.marks = Some(Vec::new());
                Ok(())
            }
            Command::SetSysctl(sysctl, value) => {
                let put = sysctl.put(&mut draft.settings, *value);
                defence::adjust(&mut draft.settings, self.store.memory().free);
                put.or(Err(CommandError::Invalid))
            }
        }
    }

    /// The mark rules as the draft has them.
    fn drafted_marks<'d>(&self, draft: &'d mut Draft) -> &'d mut Vec<MarkRule> {
        draft.marks.get_or_insert_with(|| self.marks.rules.clone())
    }

    /// The service as the draft has it.
    pub(super) fn entry<'e>(
        &'e self,
        draft: &'e Draft,
        key: &ServiceKey,
    ) -> Result<&'e Entry, CommandError> {
        match draft.services.get(key) {
            Some(touched) => touched.as_ref(),
            None => self.services.get(key),
        }
        .ok_or(CommandError::NoSuchService)
    }

    /// The service in the draft, to be touched. Lists may be long: it is copied once.
    pub(super) fn entry_mut<'d>(
        &self,
        draft: &'d mut Draft,
        key: &ServiceKey,
    ) -> Result<&'d mut Entry, CommandError> {
        let present = || self.services.get(key).cloned();
        let touched = draft.services.entry(*key).or_insert_with(present);
        touched.as_mut().ok_or(CommandError::NoSuchService)
    }

    fn add_service(
        &mut self,
        draft: &mut Draft,
        key: &ServiceKey,
        spec: &ServiceSpec,
    ) -> Result<(), CommandError> {
        if self.entry(draft, key).is_ok() {
            return Err(CommandError::ServiceExists);
        }
        let kind = check::service(key, spec)?;
        // One that was there before the list began, and is added anew, keeps its place: so
        // a whole configuration can be replaced by its like without room for both.
        let id = if let Some(before) = self.services.get(key) {
            before.id
        } else {
            let limit = self.service_ids.limit();
            let full = CommandError::Full { what: "services", limit };
            let id = self.service_ids.take().ok_or(full)?;
            draft.taken_services.push(id);
            id
        };
        self.serial += 1;
        let entry = Entry {
            key: *key,
            spec: *spec,
            kind,
            id,
            serial: self.serial,
            run: Run::default(),
            own: Own::Nothing,
            dests: Vec::new(),
        };
        draft.memory.push((*key, MemoryEdit::Reset(self.levels(draft, &entry))));
        draft.services.insert(*key, Some(entry));
        Ok(())
    }

    fn edit_service(
        &mut self,
        draft: &mut Draft,
        key: &ServiceKey,
        spec: &ServiceSpec,
    ) -> Result<(), CommandError> {
        let mut entry = self.entry(draft, key)?.clone();
        let kind = check::service(key, spec)?;
        if kind != entry.kind {
            if entry.dests.len() > table::max_dests(kind) as usize {
                return Err(CommandError::Invalid);
            }
            entry.kind = kind;
            draft.memory.push((*key, MemoryEdit::Reset(self.levels(draft, &entry))));
        }
        entry.spec = *spec;
        draft.services.insert(*key, Some(entry));
        Ok(())
    }

    fn delete_service(&mut self, draft: &mut Draft, key: &ServiceKey) -> Result<(), CommandError> {
        let (serial, dests) = {
            let entry = self.entry(draft, key)?;
            (entry.serial, entry.dests.clone())
        };
        for id in dests {
            if let Some(dest) = self.dest_in(draft, id) {
                draft.placed.insert((*key, dest.key), None);
                draft.deleted.put(dest.key, Left { id, service: *key, serial });
            }
        }
        draft.services.insert(*key, None);
        Ok(())
    }

    pub(super) fn dest_in(&self, draft: &Draft, id: DestId) -> Option<Dest> {
        draft.dests.get(&id).or_else(|| self.dests.get(&id)).copied()
    }

    /// The destination on the service's list, as the draft has it.
    pub(super) fn placed_in(
        &self,
        draft: &Draft,
        service: &ServiceKey,
        key: &DestKey,
    ) -> Option<DestId> {
        let keys = (*service, *key);
        draft.placed.get(&keys).copied().unwrap_or_else(|| self.placed.get(&keys).copied())
    }

    fn add_dest(
        &mut self,
        draft: &mut Draft,
        service: &ServiceKey,
        key: &DestKey,
        spec: &DestSpec,
    ) -> Result<(), CommandError> {
        let entry = self.entry(draft, service)?;
        let (service_id, serial) = (entry.id, entry.serial);
        check::dest(service, key, spec, !draft.sync.is_empty())?;
        check::address(key.family(), key.addr)?;
        let source = self.store.source_towards(key.family(), key.addr);
        let tunnel_source = source.ok_or(CommandError::Invalid)?;
        if self.placed_in(draft, service, key).is_some() {
            return Err(CommandError::DestExists);
        }
        let id = if let Some(left) = draft.deleted.take(service, key) {
            // Its count never left a service that stays.
            if left.serial != serial {
                draft.reset.push((left.id, Reset::Returned { is_other: true }));
            }
            left.id
        } else if let Some(trashed) = self.trash.take(service, key) {
            draft.taken_back.push(trashed);
            let is_other = trashed.serial != serial;
            draft.reset.push((trashed.id, Reset::Returned { is_other }));
            trashed.id
        } else {
            let limit = self.dest_ids.limit();
            let full = CommandError::Full { what: "destinations", limit };
            let id = self.dest_ids.take().ok_or(full)?;
            draft.taken_dests.push(id);
            draft.reset.push((id, Reset::All));
            id
        };
        let dest = Dest {
            key: *key,
            spec: *spec,
            service: service_id,
            flags: Dest::AVAILABLE,
            tunnel_source,
        };
        draft.dests.insert(id, dest);
        draft.last_weights.insert(id, spec.weight.unsigned_abs());
        draft.placed.insert((*service, *key), Some(id));
        self.entry_mut(draft, service)?.dests.push(id);
        self.has_changed(draft, service)
    }

    fn edit_dest(
        &mut self,
        draft: &mut Draft,
        service: &ServiceKey,
        key: &DestKey,
        spec: &DestSpec,
    ) -> Result<(), CommandError> {
        self.entry(draft, service)?;
        check::dest(service, key, spec, !draft.sync.is_empty())?;
        let id = self.placed_in(draft, service, key).ok_or(CommandError::NoSuchDest)?;
        let mut dest = self.dest_in(draft, id).ok_or(CommandError::NoSuchDest)?;
        dest.spec = *spec;
        self.keep_drained(draft, id, spec.weight);
        let source = self.store.source_towards(key.family(), key.addr);
        dest.tunnel_source = source.unwrap_or(Addr::UNSPECIFIED);
        draft.dests.insert(id, dest);
        if spec.weight != 0 {
            draft.last_weights.insert(id, spec.weight.unsigned_abs());
        }
        self.entry_mut(draft, service)?;
        self.has_changed(draft, service)
    }

    /// A destination of this service was added or edited.
    pub(super) fn has_changed(
        &self,
        draft: &mut Draft,
        service: &ServiceKey,
    ) -> Result<(), CommandError> {
        let levels = self.levels(draft, self.entry(draft, service)?);
        draft.has_changed(service, levels);
        Ok(())
    }

    fn delete_dest(
        &mut self,
        draft: &mut Draft,
        service: &ServiceKey,
        key: &DestKey,
    ) -> Result<(), CommandError> {
        self.entry(draft, service)?;
        let id = self.placed_in(draft, service, key).ok_or(CommandError::NoSuchDest)?;
        let entry = self.entry_mut(draft, service)?;
        let position = entry.dests.iter().position(|it| *it == id);
        let position = position.ok_or(CommandError::NoSuchDest)?;
        let (len, serial) = (entry.dests.len(), entry.serial);
        entry.dests.remove(position);
        draft.placed.insert((*service, *key), None);
        draft.deleted.put(*key, Left { id, service: *service, serial });
        let levels = self.levels(draft, self.entry(draft, service)?);
        #[expect(clippy::cast_possible_truncation, reason = "a list is shorter than 2^32")]
        draft.memory.push((*service, MemoryEdit::Removed(position as u32, len as u32, levels)));
        Ok(())
    }

    /// Writes the draft: first what no packet looks at yet, then the services,
    /// which make it visible one by one, then what became unused.
    pub(super) fn commit(&mut self, mut draft: Draft) -> Result<(), CommandError> {
        let runs = match self.take_runs(&mut draft) {
            Ok(runs) => runs,
            Err(error) => {
                self.abandon(draft);
                return Err(error);
            }
        };
        let owned = match self.take_owned(&mut draft) {
            Ok(owned) => owned,
            Err(error) => {
                let taken = runs.iter().filter_map(|key| draft.services.get(key)?.as_ref());
                taken.for_each(|entry| self.runs.retire(entry.run));
                self.abandon(draft);
                return Err(error);
            }
        };
        let failed = |error: S::Error| {
            tracing::error!(%error, "a table could not be written");
            CommandError::Plane
        };
        let list = match &draft.marks {
            Some(rules) => self.write_marks(rules).map_err(failed)?,
            None => None,
        };
        draft.settings.mark_rules = list.unwrap_or(draft.settings.mark_rules);
        self.write(&draft, &runs, &owned).map_err(failed)?;
        if let (Some(rules), Some(list)) = (draft.marks.take(), list) {
            self.take_marks(rules, list);
        }
        self.addrs.stale |= draft.services.values().any(Option::is_none);
        self.retire_owned(owned);
        let now = self.store.now();
        for Left { id, service, serial } in draft.deleted.iter() {
            if let Some(dest) = self.dests.get(id) {
                self.trash.put(*id, dest.key, *service, *serial, now);
            }
        }
        for (keys, placed) in draft.placed {
            match placed {
                Some(id) => self.placed.insert(keys, id),
                None => self.placed.remove(&keys),
            };
        }
        let mut kept = HashSet::new();
        for (key, touched) in draft.services {
            let id = touched.as_ref().map(|entry| entry.id);
            let serial = touched.as_ref().map(|entry| entry.serial);
            kept.extend(id);
            let before = match touched {
                Some(entry) => self.services.insert(key, entry),
                None => self.services.remove(&key),
            };
            let Some(before) = before else { continue };
            if id != Some(before.id) {
                self.service_ids.retire(before.id);
            }
            if serial != Some(before.serial) {
                self.estimates.forget_service(before.id);
            }
            if runs.contains(&key) {
                self.runs.retire(before.run);
            }
        }
        let came_and_went = draft.taken_services.into_iter().filter(|id| !kept.contains(id));
        came_and_went.for_each(|id| self.service_ids.untake(id));
        for daemon in draft.sync.iter().filter(|daemon| !self.sync.contains(daemon)) {
            tracing::warn!(interface = %daemon.interface, "a sync daemon {}", sync::NO_MESSAGES);
        }
        self.sync = draft.sync;
        // The number of services was counted while they were written.
        Ok(())
    }

    /// Gives every touched list a run of its own; returns whose lists changed.
    fn take_runs(&mut self, draft: &mut Draft) -> Result<Vec<ServiceKey>, CommandError> {
        let mut changed = Vec::new();
        let mut taken = Vec::new();
        for (key, touched) in &mut draft.services {
            let before = self.services.get(key);
            let after = touched.as_ref().map(|entry| &entry.dests);
            if before.map(|entry| &entry.dests) == after {
                if let (Some(before), Some(entry)) = (before, touched) {
                    entry.run = before.run;
                }
                continue;
            }
            changed.push(*key);
            let Some(entry) = touched else { continue };
            #[expect(clippy::cast_possible_truncation, reason = "a list is shorter than 2^32")]
            let Some(run) = self.runs.take(entry.dests.len() as u32) else {
                for run in taken {
                    self.runs.retire(run);
                }
                let limit = self.runs.limit();
                return Err(CommandError::Full { what: "places in destination lists", limit });
            };
            taken.push(run);
            entry.run = run;
        }
        Ok(changed)
    }

    fn write(&mut self, draft: &Draft, runs: &[ServiceKey], owned: &Owned) -> Result<(), S::Error> {
        let listed = draft.services.iter().filter(|(_, touched)| touched.is_some());
        self.add_addrs(listed.map(|(key, _)| key), draft.dests.values())?;
        for (key, touched) in &draft.services {
            let Some(entry) = touched else { continue };
            if self.services.get(key).is_none_or(|before| before.serial != entry.serial) {
                self.store.put_account(Owner::Service(entry.id), &Account::default())?;
            }
        }
        for (id, reset) in &draft.reset {
            self.write_reset(*id, *reset, draft)?;
        }
        self.write_last_weights(&draft.last_weights)?;
        self.write_drains(&draft.drains)?;
        self.write_owned(owned)?;
        for (id, dest) in &draft.dests {
            self.store.put_dest(*id, &dest.as_seen())?;
            self.store.forget_hop(*id)?;
            self.refresh_overload(*id, dest)?;
            self.dests.insert(*id, *dest);
        }
        for (key, touched) in &draft.services {
            let Some(entry) = touched else { continue };
            if runs.contains(key) {
                for (place, id) in (entry.run.first..).zip(&entry.dests) {
                    self.store.put_member(place, *id)?;
                }
            }
        }
        let callers = self.callers_after(draft);
        self.add_callers(&callers)?;
        // Old and new services together, until the change is made.
        let mut settings = draft.settings;
        for (key, touched) in &draft.services {
            if touched.is_some() && !self.services.contains_key(key) {
                count_service(&mut settings, key, 1);
            }
        }
        settings.callers = count(&self.callers);
        self.store.put_settings(&settings)?;
        for (key, touched) in &draft.services {
            match touched {
                Some(entry) => self.store.put_service(&entry.record(&self.dests))?,
                None => self.store.remove_service(key)?,
            }
        }
        self.write_words(draft)?;
        self.remove_callers(&callers)?;
        self.retire_dests(draft)?;
        for zero in &draft.zero {
            self.write_zero(*zero, draft)?;
        }
        let together = settings;
        for (key, touched) in &draft.services {
            if touched.is_none() && self.services.contains_key(key) {
                count_service(&mut settings, key, -1);
            }
        }
        settings.callers = count(&self.callers);
        self.settings = settings;
        if settings == together { Ok(()) } else { self.store.put_settings(&settings) }
    }

    fn write_reset(&mut self, id: DestId, reset: Reset, draft: &Draft) -> Result<(), S::Error> {
        match reset {
            Reset::All => self.store.reset_load(id)?,
            Reset::Returned { is_other } => {
                // What it goes on counting with was moved to the total when it was deleted, if
                // it was, and is none of what its service has counted.
                if !self.dests.get(&id).is_some_and(Dest::is_available) {
                    self.give_back_count(id, Owner::Total)?;
                }
                let service = draft.dests.get(&id).map_or(0, |dest| dest.service);
                self.give_back_count(id, Owner::Service(service))?;
                if is_other {
                    self.zero(Owner::Dest(id))?;
                }
                return Ok(());
            }
        }
        self.estimates.forget_dest(id);
        self.store.reset_counters(id)?;
        let last_weight = draft.last_weights.get(&id).copied().unwrap_or(0);
        self.store.put_account(Owner::Dest(id), &Account { last_weight, ..Account::default() })
    }

    /// The overload mark by the new thresholds and the present load.
    fn refresh_overload(&mut self, id: DestId, dest: &Dest) -> Result<(), S::Error> {
        let load = self.store.load_values(id);
        let total = u64::from(load.active) + u64::from(load.inactive);
        let overloaded = if dest.spec.upper != 0 && total >= u64::from(dest.spec.upper) {
            true
        } else if ipvs_core::expiry::is_relieved(dest, total) {
            false
        } else {
            return Ok(());
        };
        self.store.set_overloaded(id, overloaded)
    }

    /// Marks deleted destinations, moves what they counted into their
    /// service's base and lets the sweep end their connections if it shall.
    fn retire_dests(&mut self, draft: &Draft) -> Result<(), S::Error> {
        for Left { id, service, serial } in draft.deleted.iter() {
            let Some(mut dest) = self.dests.get(id).copied() else { continue };
            dest.flags = 0;
            // Another service of this key may have its place by now: it counts from zero, and
            // a new daemon must not take what the old one left for its own.
            let new = draft.services.get(service).and_then(Option::as_ref);
            if new.is_none_or(|new| new.serial == *serial) {
                self.retire_count(*id, Owner::Service(dest.service))?;
            } else {
                dest.service = NONE;
            }
            self.retire_count(*id, Owner::Total)?;
            self.store.put_dest(*id, &dest)?;
            self.dests.insert(*id, dest);
        }
        let gone: HashSet<DestId> = draft.deleted.iter().map(|left| left.id).collect();
        if draft.settings.expire_nodest_conn != 0 && !gone.is_empty() {
            self.end_connections_of(&gone)?;
        }
        Ok(())
    }

    /// Adds what a destination has counted to the base of `owner`.
    fn retire_count(&mut self, id: DestId, owner: Owner) -> Result<(), S::Error> {
        let counted = self.store.counter_values(id);
        let mut account = self.store.account(owner);
        account.base = account.base.plus(counted);
        self.store.put_account(owner, &account)
    }

    /// Takes what a destination has counted off the base of `owner`.
    fn give_back_count(&mut self, id: DestId, owner: Owner) -> Result<(), S::Error> {
        let counted = self.store.counter_values(id);
        let mut account = self.store.account(owner);
        account.base = account.base.since(counted);
        self.store.put_account(owner, &account)
    }

    /// Ends the connections and templates of deleted destinations now (`expire_nodest_conn`):
    /// those on which others hang after these, and only if none is left.
    fn end_connections_of(&mut self, gone: &HashSet<DestId>) -> Result<(), S::Error> {
        // A data connection hangs on one of control, and that on a template.
        for _ in 0..3 {
            let mut ending = Vec::new();
            self.store.each_conn(&mut |id, conn| {
                if gone.contains(&conn.dest.get()) && conn.controls.get() == 0 {
                    ending.push(id);
                }
            });
            if ending.is_empty() {
                break;
            }
            ending.into_iter().try_for_each(|id| self.store.end(id))?;
        }
        Ok(())
    }

    fn write_zero(&mut self, which: Option<ServiceKey>, draft: &Draft) -> Result<(), S::Error> {
        let entries: Vec<Entry> = match which {
            Some(key) => self.entry(draft, &key).into_iter().cloned().collect(),
            None => self
                .services
                .keys()
                .chain(draft.services.keys())
                .filter_map(|key| self.entry(draft, key).ok().cloned())
                .collect(),
        };
        for entry in entries {
            self.zero_service(&entry)?;
        }
        if which.is_none() {
            self.zero(Owner::Total)?;
        }
        Ok(())
    }
}
