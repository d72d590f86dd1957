//! Which destinations may send by themselves: what those of services with a
//! persistence engine send leaves as their service's, and with `nat_icmp_send`
//! the others are told that nobody waits for it.

use std::collections::HashMap;

use ipvs_core::dest::{Dest, ForwardingMethod};
use ipvs_core::engine::{Caller, CallerKey, may_call};
use ipvs_wire::transport::protocol;

use super::apply::Draft;
use super::{Entry, Registry};
use crate::store::Store;

impl<S: Store> Registry<S> {
    /// Those that there are once `draft` is in force. Of two services with one
    /// such destination either may have its datagrams.
    pub(super) fn callers_after(&self, draft: &Draft) -> HashMap<CallerKey, Caller> {
        let drafted = draft.services.values().flatten();
        // As a rule nobody has an engine, and an edit must not look at every service.
        if self.callers.is_empty()
            && draft.settings.nat_icmp_send == 0
            && drafted.clone().all(|entry| entry.spec.engine.is_empty())
        {
            return HashMap::new();
        }
        let kept = self.services.iter().filter(|(key, _)| !draft.services.contains_key(*key));
        self.callers_of(draft, &drafted.chain(kept.map(|(_, entry)| entry)))
    }

    /// Those of services, the destinations of which are written already.
    fn callers_of<'e>(
        &self,
        draft: &Draft,
        entries: &(impl Iterator<Item = &'e Entry> + Clone),
    ) -> HashMap<CallerKey, Caller> {
        let mut callers = HashMap::new();
        // Those of services with an engine last: they win.
        for with_engine in [false, true] {
            if !with_engine && draft.settings.nat_icmp_send == 0 {
                continue;
            }
            for entry in entries.clone() {
                if entry.spec.engine.is_empty() || entry.key.is_fwmark() {
                    if !with_engine {
                        self.add_callers_of(entry, &mut callers, |dest| {
                            dest.spec.forwarding() == ForwardingMethod::Masquerade
                        });
                    }
                } else if with_engine {
                    self.add_callers_of(entry, &mut callers, |dest| may_call(entry.key.port, dest));
                }
            }
        }
        callers
    }

    /// Adds those destinations of a service that `may`, each under the protocols that it
    /// is known by: for a service by mark that is every one.
    fn add_callers_of(
        &self,
        entry: &Entry,
        callers: &mut HashMap<CallerKey, Caller>,
        may: impl Fn(&Dest) -> bool,
    ) {
        let every = [protocol::TCP, protocol::UDP, protocol::SCTP];
        let own = [entry.key.protocol];
        let protocols: &[u8] = if entry.key.is_fwmark() { &every } else { &own };
        let dests = entry.dests.iter().filter_map(|id| Some((*id, self.dests.get(id)?)));
        for (id, dest) in dests.filter(|(_, dest)| may(dest)) {
            for protocol in protocols {
                let key = CallerKey {
                    addr: dest.key.addr,
                    port: dest.key.port,
                    protocol: *protocol,
                    family: dest.key.family().tag(),
                };
                callers.insert(key, Caller { service: entry.key, dest: id });
            }
        }
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
