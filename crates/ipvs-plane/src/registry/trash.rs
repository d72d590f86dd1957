//! Deleted destinations: kept while connections point at them, and taken back
//! with their counts when the same destination is added again.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use ipvs_core::dest::{DestId, DestKey};
use ipvs_core::service::ServiceKey;
use ipvs_core::time::{Instant, Millis};

use crate::store::Store;

/// Between two looks at the trash.
const PERIOD: Millis = Millis(60_000);
/// How long a destination lies without connections before it is freed.
const IDLE: Millis = Millis(120_000);

#[derive(Clone, Copy, Debug)]
pub(super) struct Trashed {
    pub(super) id: DestId,
    pub(super) key: DestKey,
    pub(super) service: ServiceKey,
    /// Which service of that key it belonged to.
    pub(super) serial: u64,
    idle_since: Option<Instant>,
}

/// The deleted destinations of all services.
#[derive(Debug, Default)]
pub(super) struct Trash {
    /// By the keys of service and destination, since an addition looks whether its own is
    /// there; of several with the same keys the last one comes back first.
    entries: HashMap<(ServiceKey, DestKey), Vec<Trashed>>,
    next_look: Option<Instant>,
}

impl Trash {
    pub(super) fn put(
        &mut self,
        id: DestId,
        key: DestKey,
        service: ServiceKey,
        serial: u64,
        now: Instant,
    ) {
        if self.entries.is_empty() {
            self.next_look = Some(now.after(PERIOD));
        }
        self.untake(Trashed { id, key, service, serial, idle_since: None });
    }

    /// Takes back the destination of this key of a service with this key.
    pub(super) fn take(&mut self, service: &ServiceKey, key: &DestKey) -> Option<Trashed> {
        let Entry::Occupied(mut entry) = self.entries.entry((*service, *key)) else { return None };
        let trashed = entry.get_mut().pop();
        if entry.get().is_empty() {
            entry.remove();
        }
        trashed
    }

    /// Puts back what [`take`](Self::take) returned.
    pub(super) fn untake(&mut self, trashed: Trashed) {
        self.entries.entry((trashed.service, trashed.key)).or_default().push(trashed);
    }

    /// Removes and returns what nobody points at any more.
    pub(super) fn due<S: Store>(&mut self, now: Instant, store: &mut S) -> Vec<DestId> {
        match self.next_look {
            Some(next) if now >= next => self.next_look = Some(now.after(PERIOD)),
            _ => return Vec::new(),
        }
        let mut freed = Vec::new();
        let mut cached = None;
        let mut keeps = |entry: &mut Trashed| {
            if store.load_values(entry.id).is_referenced()
                // What lblc and lblcr remember is looked up once, and only if it matters.
                || cached.get_or_insert_with(|| store.cached_dests()).contains(&entry.id)
            {
                entry.idle_since = None;
                return true;
            }
            let since = *entry.idle_since.get_or_insert(now);
            let keep = since.after(IDLE) > now;
            if !keep {
                freed.push(entry.id);
            }
            keep
        };
        self.entries.retain(|_, entries| {
            entries.retain_mut(&mut keeps);
            !entries.is_empty()
        });
        // Places are used again in an order that does not hang on a hash.
        freed.sort_unstable();
        freed
    }
}
