//! Taking over tables that an earlier daemon filled.

use std::collections::{HashMap, HashSet, VecDeque};

use ipvs_core::addr::AddrKey;
use ipvs_core::dest::{Dest, DestId, DestKey};
use ipvs_core::engine::{Caller, CallerKey};
use ipvs_core::mark::MarkRule;
use ipvs_core::service::{Service, ServiceKey};
use ipvs_core::settings::Settings;
use ipvs_core::time::Instant;

use super::addrs::Addrs;
use super::drains::Drains;
use super::estimates::Estimates;
use super::ids::{Ids, Runs};
use super::in_settings::counted;
use super::marks::Marks;
use super::own::Own;
use super::trash::Trash;
use super::{Entry, Registry, Run};
use crate::store::{Owner, Store};

/// What was found in the tables.
#[derive(Debug, Default)]
pub struct Found {
    /// Settings.
    pub settings: Settings,
    /// Services, each with its destinations, oldest first.
    pub services: Vec<(Service, Vec<DestId>)>,
    /// Every destination that is listed, or that a connection points at.
    pub dests: HashMap<DestId, Dest>,
    /// What addresses are used for.
    pub addrs: HashMap<AddrKey, u32>,
    /// Mark rules, in order.
    pub mark_rules: Vec<MarkRule>,
    /// Destinations that send by themselves.
    pub callers: HashMap<CallerKey, Caller>,
}

impl<S: Store> Registry<S> {
    /// A registry over tables that hold `found`.
    pub fn adopt(mut store: S, found: Found) -> Self {
        let limits = store.limits();
        let mut service_ids = Ids::new(limits.services);
        let mut dest_ids = Ids::new(limits.dests);
        let mut runs = Runs::new(limits.members);
        let used: Vec<u32> = found.services.iter().map(|(service, _)| service.id).collect();
        service_ids.adopt(&used);
        let used: Vec<u32> = found.dests.keys().copied().collect();
        dest_ids.adopt(&used);
        let used: Vec<Run> = found
            .services
            .iter()
            .map(|(service, _)| Run { first: service.first, len: service.len })
            .collect();
        runs.adopt(&used);
        let now = store.now();
        let mut trash = Trash::default();
        let mut gone: HashMap<u32, Vec<(DestId, DestKey)>> = HashMap::new();
        for (id, dest) in found.dests.iter().filter(|(_, dest)| !dest.is_available()) {
            gone.entry(dest.service).or_default().push((*id, dest.key));
        }
        let mut services = HashMap::new();
        let mut placed = HashMap::new();
        let mut serial = 0;
        for (service, dests) in found.services {
            serial += 1;
            let run = Run { first: service.first, len: service.len };
            for id in &dests {
                if let Some(dest) = found.dests.get(id) {
                    placed.insert((service.key, dest.key), *id);
                }
            }
            for (id, key) in gone.get(&service.id).into_iter().flatten() {
                trash.put(*id, *key, service.key, serial, now);
            }
            services.insert(
                service.key,
                Entry {
                    key: service.key,
                    spec: service.spec,
                    kind: service.kind(),
                    id: service.id,
                    serial,
                    run,
                    own: Own::found(service.kind(), service.table),
                    dests,
                },
            );
        }
        // What is left of deleted services waits for its connections, too, and is
        // freed after them. Which service it was is not known any more.
        let ids: HashSet<u32> = services.values().map(|entry: &Entry| entry.id).collect();
        for (id, dest) in found.dests.iter().filter(|(_, dest)| !ids.contains(&dest.service)) {
            trash.put(*id, dest.key, ServiceKey::default(), 0, now);
        }
        let rules = found.mark_rules.iter().copied().map(MarkRule::named).collect();
        let mut registry = Self {
            store,
            estimates: Estimates::from(now),
            // An edit may have been cut short between a service and the count of them.
            settings: counted(&found.settings, services.keys()),
            services,
            dests: found.dests,
            placed,
            trash,
            drains: Drains::default(),
            addrs: Addrs::adopt(found.addrs),
            callers: found.callers,
            service_ids,
            dest_ids,
            runs,
            blocks: Runs::new(limits.blocks),
            // Their words were in the daemon that has ended.
            sync: Vec::new(),
            marks: Marks::adopt(rules, found.settings.mark_rules),
            caches: Ids::new(limits.caches()),
            serial,
            unsettled: VecDeque::new(),
            swept: Instant::default(),
        };
        registry.adopt_owned();
        registry.adopt_drains();
        registry.begin_estimates();
        registry.count_adoption();
        registry
    }

    fn count_adoption(&mut self) {
        let mut account = self.store.account(Owner::Total);
        account.adoptions = account.adoptions.wrapping_add(1);
        if let Err(error) = self.store.put_account(Owner::Total, &account) {
            tracing::warn!(%error, "that the tables were taken over is not counted");
        }
    }
}
