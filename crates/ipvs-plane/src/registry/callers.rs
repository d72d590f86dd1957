//! Which destinations send datagrams by themselves that leave as their
//! service's: those of services with a persistence engine.

use std::collections::HashMap;

use ipvs_core::engine::{Caller, CallerKey, may_call};

use super::apply::Draft;
use super::{Entry, Registry};
use crate::store::Store;

impl<S: Store> Registry<S> {
    /// Those that there are once `draft` is in force. Of two services with one
    /// such destination either may have its datagrams.
    pub(super) fn callers_after(&self, draft: &Draft) -> HashMap<CallerKey, Caller> {
        let drafted = draft.services.values().flatten();
        // As a rule nobody has an engine, and an edit must not look at every service.
        if self.callers.is_empty() && drafted.clone().all(|entry| entry.spec.engine.is_empty()) {
            return HashMap::new();
        }
        let kept = self.services.iter().filter(|(key, _)| !draft.services.contains_key(*key));
        drafted
            .chain(kept.map(|(_, entry)| entry))
            .flat_map(|entry| self.callers_of(entry))
            .collect()
    }

    /// Those of one service, the destinations of which are written already.
    fn callers_of(&self, entry: &Entry) -> Vec<(CallerKey, Caller)> {
        if entry.spec.engine.is_empty() || entry.key.is_fwmark() {
            return Vec::new();
        }
        let dests = entry.dests.iter().filter_map(|id| Some((*id, self.dests.get(id)?)));
        dests
            .filter(|(_, dest)| may_call(entry.key.port, dest))
            .map(|(id, dest)| {
                let key = CallerKey {
                    addr: dest.key.addr,
                    port: dest.key.port,
                    protocol: entry.key.protocol,
                    family: dest.key.family().tag(),
                };
                (key, Caller { service: entry.key, dest: id })
            })
            .collect()
    }

    /// Writes what is new among `callers`.
    pub(super) fn add_callers(
        &mut self,
        callers: &HashMap<CallerKey, Caller>,
    ) -> Result<(), S::Error> {
        for (key, caller) in callers {
            if self.callers.get(key) != Some(caller) {
                self.store.put_caller(key, Some(caller))?;
                self.callers.insert(*key, *caller);
            }
        }
        Ok(())
    }

    /// Takes out what is not among `callers`.
    pub(super) fn remove_callers(
        &mut self,
        callers: &HashMap<CallerKey, Caller>,
    ) -> Result<(), S::Error> {
        let gone: Vec<CallerKey> =
            self.callers.keys().filter(|key| !callers.contains_key(*key)).copied().collect();
        for key in gone {
            self.store.put_caller(&key, None)?;
            self.callers.remove(&key);
        }
        Ok(())
    }
}
