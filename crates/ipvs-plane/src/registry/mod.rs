//! The configuration: what runs, as the control side knows it, and the only
//! code that decides what a command does.
//!
//! The registry mirrors what stands in the tables, so it can be rebuilt from
//! them: the daemon may die and come back while packets flow.

mod addrs;
pub mod adopt;
mod apply;
mod callers;
mod check;
mod deleted;
mod drains;
mod estimates;
mod ids;
mod in_settings;
mod marks;
mod measure;
mod own;
mod sources;
mod status;
pub mod sync;
#[cfg(test)]
mod tests;
mod together;
mod trash;
mod words;

use std::collections::{HashMap, VecDeque};

use ipvs_core::defence;
use ipvs_core::dest::{Dest, DestId, DestKey};
use ipvs_core::engine::{self, Caller, CallerKey};
use ipvs_core::service::{SchedulerKind, Service, ServiceKey, ServiceSpec};
use ipvs_core::settings::Settings;
use ipvs_core::sync::SyncDaemon;
use ipvs_core::time::{Instant, Millis};

use crate::store::Store;
use addrs::Addrs;
use drains::Drains;
use estimates::Estimates;
use ids::{Ids, Runs};
use marks::Marks;
use own::Own;
use trash::Trash;

/// For how long a sweep is good enough for listings.
const LISTING: Millis = Millis(50);

/// The places of a service's destinations in the member lists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Run {
    first: u32,
    len: u32,
}

/// A service and its destinations, oldest first.
#[derive(Clone, Debug)]
struct Entry {
    key: ServiceKey,
    spec: ServiceSpec,
    kind: SchedulerKind,
    id: u32,
    /// Tells this service from an earlier one with the same key.
    serial: u64,
    run: Run,
    own: Own,
    dests: Vec<DestId>,
}

impl Entry {
    fn record(&self, dests: &HashMap<DestId, Dest>) -> Service {
        let weights = || self.dests.iter().filter_map(|id| dests.get(id)).map(Dest::weight);
        let (gcd, top) = wrr_levels(weights());
        Service {
            key: self.key,
            spec: self.spec,
            id: self.id,
            scheduler: self.kind as u32,
            first: self.run.first,
            len: self.run.len,
            weight_gcd: gcd,
            weight_top: top,
            table: self.own.place(),
            engine: engine::by_name(&self.spec.engine).unwrap_or(engine::NONE),
        }
    }
}

/// The greatest common divisor of the positive weights (1 if there is none),
/// and the level at which weighted round robin starts (0 if there is none).
fn wrr_levels(weights: impl Iterator<Item = i32>) -> (u32, u32) {
    let mut gcd = 0;
    let mut largest = 0;
    for weight in weights.filter(|weight| *weight > 0).map(i32::unsigned_abs) {
        largest = largest.max(weight);
        let (mut a, mut b) = (gcd, weight);
        while b != 0 {
            (a, b) = (b, a % b);
        }
        gcd = a;
    }
    let gcd = gcd.max(1);
    (gcd, if largest == 0 { 0 } else { largest - (gcd - 1) })
}

/// The configuration of one plane.
#[derive(Debug)]
pub struct Registry<S> {
    store: S,
    settings: Settings,
    services: HashMap<ServiceKey, Entry>,
    /// Every destination, those in the trash included.
    dests: HashMap<DestId, Dest>,
    /// Those on the lists, by the keys of service and destination.
    placed: HashMap<(ServiceKey, DestKey), DestId>,
    trash: Trash,
    drains: Drains,
    addrs: Addrs,
    estimates: Estimates,
    /// What stands in the table of callers.
    callers: HashMap<CallerKey, Caller>,
    service_ids: Ids,
    dest_ids: Ids,
    runs: Runs,
    /// Blocks of hash tables.
    blocks: Runs,
    marks: Marks,
    sync: Vec<SyncDaemon>,
    /// Caches of lblc and lblcr.
    caches: Ids,
    serial: u64,
    /// Destinations whose way may be another one by now.
    unsettled: VecDeque<DestId>,
    /// When what was due was last ended for a listing.
    swept: Instant,
}

impl<S: Store> Registry<S> {
    /// A registry over tables that hold nothing yet.
    pub fn new(mut store: S) -> Result<Self, S::Error> {
        let limits = store.limits();
        let estimates = Estimates::from(store.now());
        let mut registry = Self {
            store,
            settings: Settings::DEFAULT,
            services: HashMap::new(),
            dests: HashMap::new(),
            placed: HashMap::new(),
            trash: Trash::default(),
            drains: Drains::default(),
            addrs: Addrs::default(),
            estimates,
            callers: HashMap::new(),
            service_ids: Ids::new(limits.services),
            dest_ids: Ids::new(limits.dests),
            runs: Runs::new(limits.members),
            blocks: Runs::new(limits.blocks),
            marks: Marks::default(),
            sync: Vec::new(),
            caches: Ids::new(limits.caches()),
            serial: 0,
            unsettled: VecDeque::new(),
            swept: Instant::default(),
        };
        // One in 32 pages, as on a kernel.
        let messages = registry.store.memory().total / 32;
        #[expect(clippy::cast_possible_truncation, reason = "split into two halves")]
        let halves = [messages as u32, (messages >> 32) as u32];
        registry.settings.sync_qlen_max = halves;
        registry.store.put_settings(&registry.settings)?;
        Ok(registry)
    }

    /// The tables.
    pub fn store(&self) -> &S {
        &self.store
    }

    /// The tables, to be driven by their plane.
    pub fn store_mut(&mut self) -> &mut S {
        &mut self.store
    }

    /// The settings in force.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Changes settings.
    pub fn change_settings(&mut self, change: impl FnOnce(&mut Settings)) -> Result<(), S::Error> {
        let mut settings = self.settings;
        change(&mut settings);
        self.store.put_settings(&settings)?;
        self.settings = settings;
        Ok(())
    }

    /// Has memory decide which defence is in force.
    fn watch_memory(&mut self) {
        let mut settings = self.settings;
        defence::adjust(&mut settings, self.store.memory().free);
        if settings == self.settings {
            return;
        }
        if let Err(error) = self.change_settings(|it| *it = settings) {
            tracing::error!(%error, "defence stays as it is");
        }
    }

    /// Every service's key, in no particular order.
    pub fn keys(&self) -> impl Iterator<Item = ServiceKey> {
        self.services.keys().copied()
    }

    /// The key of every service, in no particular order.
    pub fn service_keys(&self) -> impl Iterator<Item = &ServiceKey> {
        self.services.keys()
    }

    /// Every destination that is on a list, in no particular order.
    pub fn listed_dests(&self) -> impl Iterator<Item = (DestId, &Dest)> {
        self.services
            .values()
            .flat_map(|entry| &entry.dests)
            .filter_map(|id| Some((*id, self.dests.get(id)?)))
    }

    /// A destination of a service, if it is on its list.
    pub fn listed_dest(&self, service: &ServiceKey, key: &DestKey) -> Option<(DestId, Dest)> {
        let id = *self.placed.get(&(*service, *key))?;
        Some((id, *self.dests.get(&id)?))
    }

    /// Ends what is due, so that a listing does not show it: once for the many questions
    /// that a listing is made of.
    fn sweep_for_listing(&mut self) {
        let now = self.store.now();
        if now >= self.swept.after(LISTING) {
            self.store.sweep();
            self.swept = now;
        }
    }

    /// Gives back what edits left behind. To be called about once a second of
    /// the plane's clock: no packet looks at a replaced list for that long.
    pub fn tick(&mut self) {
        self.watch_memory();
        let now = self.store.now();
        self.estimate(now);
        for id in self.trash.due(now, &mut self.store) {
            self.dests.remove(&id);
            self.estimates.forget_dest(id);
            self.dest_ids.retire(id);
            self.addrs.stale = true;
        }
        self.look_after_drains(now);
        self.remove_stale_addrs();
        self.service_ids.reclaim();
        self.dest_ids.reclaim();
        self.runs.reclaim();
        self.reclaim_owned();
        self.marks.reclaim();
    }
}
