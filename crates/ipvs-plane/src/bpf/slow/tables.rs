//! The core's tables for the slow path: the same maps that the programs use,
//! the arrays mapped, the others by system calls.

use std::cell::{Cell, OnceCell, RefCell};

use aya::maps::{HashMap, Map, MapData, MapError, Queue};
use ipvs_core::addr::AddrKey;
use ipvs_core::conn::{Conn, ConnId, Found, NONE, Tuple};
use ipvs_core::defence::Defence;
use ipvs_core::dest::{Dest, DestId, Load};
use ipvs_core::engine::{Caller, CallerKey, Data};
use ipvs_core::hop::{CachedHop, PathMtu, RouteQuery, Way};
use ipvs_core::mark::MarkRule;
use ipvs_core::near::Bucket;
use ipvs_core::sched::cache::{Cache, CacheKey, Cached};
use ipvs_core::sched::table::BLOCK;
use ipvs_core::service::{Service, ServiceKey};
use ipvs_core::settings::Settings;
use ipvs_core::stats::LiveCounters;
use ipvs_core::tables::{Linked, Tables};
use ipvs_core::time::Instant;
use ipvs_core::verdict::Reason;
use rustix::time::ClockId;
use zerocopy::{FromBytes, transmute};

use crate::bpf::StartError;
use crate::bpf::mapped::{self, Mapped};
use crate::bpf::object::Maps;
use crate::memory::{Host as _, time_of_day};
use crate::packet::host::LinuxHost;

/// Update a map's element only if it is not there (`BPF_NOEXIST`).
const ONLY_NEW: u64 = 1;
/// Only if it is there (`BPF_EXIST`).
const ONLY_OLD: u64 = 2;
/// Entries of caches that one packet can meet, at most.
const ENTRIES: usize = 4;
/// Services that one packet can meet, at most: by port, by FTP, of all ports, by mark.
const SERVICES: usize = 8;

type Octets<const N: usize> = [u8; N];

/// The tables.
pub(super) struct SlowTables {
    pub(super) host: LinuxHost,
    settings: Mapped<Settings>,
    services:
        HashMap<MapData, Octets<{ size_of::<ServiceKey>() }>, Octets<{ size_of::<Service>() }>>,
    /// Copies of the services that the present packet has met.
    met: [OnceCell<Service>; SERVICES],
    scheduler: Mapped<Cell<u64>>,
    members: Mapped<DestId>,
    slots: HashMap<MapData, u32, [DestId; BLOCK as usize]>,
    marks: Mapped<MarkRule>,
    caches: Mapped<Cache>,
    cached: RefCell<
        HashMap<MapData, Octets<{ size_of::<CacheKey>() }>, Octets<{ size_of::<Cached>() }>>,
    >,
    /// Copies of the entries that the present packet has met, with their keys;
    /// written back after it.
    met_cached: [OnceCell<(CacheKey, Cached)>; ENTRIES],
    engine_data: RefCell<HashMap<MapData, ConnId, Octets<{ size_of::<Data>() }>>>,
    callers: HashMap<MapData, Octets<{ size_of::<CallerKey>() }>, Octets<{ size_of::<Caller>() }>>,
    /// The caller that the present packet is of.
    met_caller: OnceCell<Caller>,
    dests: Mapped<Dest>,
    loads: Mapped<Load>,
    counters: Mapped<LiveCounters>,
    hops: Mapped<CachedHop>,
    path_mtus: RefCell<
        HashMap<MapData, Octets<{ size_of::<AddrKey>() }>, Octets<{ size_of::<PathMtu>() }>>,
    >,
    addrs: HashMap<MapData, Octets<{ size_of::<AddrKey>() }>, u32>,
    near: Mapped<Bucket>,
    near_buckets: u32,
    index: RefCell<HashMap<MapData, Octets<{ size_of::<Tuple>() }>, u32>>,
    conns: Mapped<Conn>,
    free: RefCell<Queue<MapData, ConnId>>,
    used: Mapped<Cell<u32>>,
    expected: Mapped<Cell<u32>>,
    defence: Mapped<Defence>,
    reasons: Mapped<Cell<u64>>,
}

impl SlowTables {
    /// Opens the tables in `maps`, on this host.
    pub(super) fn new(maps: &mut Maps, host: LinuxHost) -> Result<Self, StartError> {
        let near_buckets = entries(maps, "IPVS_NEAR")?;
        Ok(Self {
            host,
            settings: array(maps, "IPVS_SETTINGS")?,
            services: typed(maps, "IPVS_SERVICES")?,
            met: Default::default(),
            scheduler: array(maps, "IPVS_SCHED")?,
            members: array(maps, "IPVS_MEMBERS")?,
            slots: typed(maps, "IPVS_SLOTS")?,
            marks: array(maps, "IPVS_MARKS")?,
            caches: array(maps, "IPVS_CACHES")?,
            cached: RefCell::new(typed(maps, "IPVS_CACHED")?),
            met_cached: Default::default(),
            engine_data: RefCell::new(typed(maps, "IPVS_ENGINE_DATA")?),
            callers: typed(maps, "IPVS_CALLERS")?,
            met_caller: OnceCell::new(),
            dests: array(maps, "IPVS_DESTS")?,
            loads: array(maps, "IPVS_LOADS")?,
            counters: array(maps, "IPVS_SLOW_COUNTERS")?,
            hops: array(maps, "IPVS_HOPS")?,
            path_mtus: RefCell::new(typed(maps, "IPVS_PATH_MTUS")?),
            addrs: typed(maps, "IPVS_ADDRS")?,
            near: array(maps, "IPVS_NEAR")?,
            near_buckets,
            index: RefCell::new(typed(maps, "IPVS_INDEX")?),
            conns: array(maps, "IPVS_CONNS")?,
            free: RefCell::new(typed(maps, "IPVS_FREE")?),
            used: array(maps, "IPVS_USED")?,
            expected: array(maps, "IPVS_EXPECTED")?,
            defence: array(maps, "IPVS_DEFENCE")?,
            reasons: array(maps, "IPVS_SLOW_REASONS")?,
        })
    }

    /// Gets ready for the next packet.
    pub(super) fn begin(&mut self) {
        self.end();
        self.met = Default::default();
        self.met_caller = OnceCell::new();
    }

    /// Writes back what the present packet has changed in copies.
    pub(super) fn end(&mut self) {
        for (key, cached) in self.met_cached.iter_mut().filter_map(OnceCell::take) {
            let key: Octets<{ size_of::<CacheKey>() }> = transmute!(key);
            let cached: Octets<{ size_of::<Cached>() }> = transmute!(cached);
            // One that was removed meanwhile stays so.
            let _written = self.cached.borrow_mut().insert(key, cached, ONLY_OLD);
        }
    }

    /// Now, on the plane's clock.
    pub(super) fn now(&self) -> Instant {
        let now = rustix::time::clock_gettime(ClockId::MonotonicCoarse);
        let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
        let nanos = u64::try_from(now.tv_nsec).unwrap_or(0);
        let offset = self.settings().clock_offset();
        Instant::from_nanos((seconds * 1_000_000_000 + nanos).wrapping_add(offset))
    }
}

fn missing(maps: &Maps, name: &str, reason: &dyn ToString) -> StartError {
    StartError::OtherVersion { path: maps.directory.join(name), reason: reason.to_string() }
}

fn entries(maps: &Maps, name: &str) -> Result<u32, StartError> {
    let map = maps.by_name.get(name).ok_or_else(|| missing(maps, name, &"missing"))?;
    map.info().map(|info| info.max_entries()).map_err(StartError::map)
}

/// An array of the plane, mapped.
fn array<T: FromBytes>(maps: &Maps, name: &'static str) -> Result<Mapped<T>, StartError> {
    let map = maps.by_name.get(name).ok_or_else(|| missing(maps, name, &"missing"))?;
    Mapped::new(&map.fd(), entries(maps, name)?).map_err(|error| missing(maps, name, &error))
}

/// A map of the plane, taken out of those that were opened.
pub(super) fn typed<T>(maps: &mut Maps, name: &'static str) -> Result<T, StartError>
where
    T: TryFrom<Map, Error = MapError>,
{
    let data = maps.by_name.remove(name).ok_or_else(|| missing(maps, name, &"missing"))?;
    let map = Map::from_map_data(data).map_err(|error| missing(maps, name, &error))?;
    T::try_from(map).map_err(|error| missing(maps, name, &error))
}

/// What a system call on a map came to: nothing there is an answer, anything
/// else that fails is a mistake to be heard of.
fn answer<T>(what: &str, result: Result<T, MapError>) -> Option<T> {
    match result {
        Ok(found) => Some(found),
        Err(MapError::KeyNotFound | MapError::ElementNotFound) => None,
        Err(error) => {
            tracing::error!(%error, "the slow path cannot use {what}");
            None
        }
    }
}

fn errno(error: &MapError) -> Option<i32> {
    match error {
        MapError::SyscallError(error) => error.io_error.raw_os_error(),
        _ => None,
    }
}

impl Tables for SlowTables {
    const RESOLVES: bool = true;
    const CUTS: bool = true;
    const HELPS: bool = true;
    const STAGES_APART: bool = false;

    fn settings(&self) -> &Settings {
        const NONE: &Settings = &Settings::DEFAULT;
        self.settings.get(0).unwrap_or(NONE)
    }

    fn service(&self, key: &ServiceKey) -> Option<&Service> {
        let octets: Octets<{ size_of::<ServiceKey>() }> = transmute!(*key);
        let octets = answer("the services", self.services.get(&octets, 0))?;
        let place = self.met.iter().find(|place| place.get().is_none())?;
        Some(place.get_or_init(|| transmute!(octets)))
    }

    fn scheduler_word(&self, service: u32) -> Option<&Cell<u64>> {
        self.scheduler.get(service)
    }

    fn member(&self, place: u32) -> Option<DestId> {
        self.members.get(place).copied()
    }

    fn slot(&self, block: u32, slot: u32) -> Option<DestId> {
        let block = block.checked_add(slot / BLOCK)?;
        let slots = answer("the hash tables", self.slots.get(&block, 0))?;
        slots.get((slot % BLOCK) as usize).copied().filter(|id| *id != NONE)
    }

    fn dest(&self, id: DestId) -> Option<&Dest> {
        self.dests.get(id)
    }

    fn load(&self, id: DestId) -> Option<&Load> {
        self.loads.get(id)
    }

    fn counters(&self, id: DestId) -> Option<&LiveCounters> {
        self.counters.get(id)
    }

    fn dest_hop(&self, id: DestId) -> Option<&CachedHop> {
        self.hops.get(id)
    }

    fn mark_rule(&self, place: u32) -> Option<&MarkRule> {
        self.marks.get(place)
    }

    fn cache(&self, place: u32) -> Option<&Cache> {
        self.caches.get(place)
    }

    fn cached(&self, key: &CacheKey) -> Option<&Cached> {
        let met = || self.met_cached.iter().filter_map(OnceCell::get);
        if let Some((_, cached)) = met().find(|(met, _)| met == key) {
            return Some(cached);
        }
        let octets: Octets<{ size_of::<CacheKey>() }> = transmute!(*key);
        let octets = answer("the caches", self.cached.borrow().get(&octets, 0))?;
        let place = self.met_cached.iter().find(|place| place.get().is_none())?;
        Some(&place.get_or_init(|| (*key, transmute!(octets))).1)
    }

    fn make_cached(&self, key: &CacheKey) -> bool {
        let octets: Octets<{ size_of::<CacheKey>() }> = transmute!(*key);
        let empty = [0; size_of::<Cached>()];
        self.cached.borrow_mut().insert(octets, empty, ONLY_NEW).is_ok()
    }

    fn forget_cached(&self, key: &CacheKey) -> bool {
        let octets: Octets<{ size_of::<CacheKey>() }> = transmute!(*key);
        self.cached.borrow_mut().remove(&octets).is_ok()
    }

    fn each_cached<F: FnMut(&CacheKey, &Cached) -> bool>(&self, mut step: F) {
        let keys: Vec<_> = self.cached.borrow().keys().filter_map(Result::ok).collect();
        for key in keys {
            let found = self.cached.borrow().get(&key, 0);
            let Ok(octets) = found else { continue };
            let cached: Cached = transmute!(octets);
            if !step(&transmute!(key), &cached) {
                break;
            }
        }
    }

    fn engine_data_is(&self, id: ConnId, data: &Data) -> bool {
        let kept = answer("the engines' data", self.engine_data.borrow().get(&id, 0));
        kept.is_some_and(|octets| {
            let kept: Data = transmute!(octets);
            kept.is(data)
        })
    }

    fn put_engine_data(&self, id: ConnId, data: &Data) -> bool {
        let octets: Octets<{ size_of::<Data>() }> = transmute!(*data);
        self.engine_data.borrow_mut().insert(id, octets, 0).is_ok()
    }

    fn forget_engine_data(&self, id: ConnId) {
        // Gone already is as good as removed.
        let _gone = self.engine_data.borrow_mut().remove(&id);
    }

    fn caller(&self, key: &CallerKey) -> Option<&Caller> {
        let octets: Octets<{ size_of::<CallerKey>() }> = transmute!(*key);
        let octets = answer("the callers", self.callers.get(&octets, 0))?;
        Some(self.met_caller.get_or_init(|| transmute!(octets)))
    }

    fn addr_use(&self, key: &AddrKey) -> u32 {
        let octets: Octets<{ size_of::<AddrKey>() }> = transmute!(*key);
        answer("the addresses", self.addrs.get(&octets, 0)).unwrap_or(0)
    }

    fn path_mtu(&self, key: &AddrKey) -> Option<PathMtu> {
        let octets: Octets<{ size_of::<AddrKey>() }> = transmute!(*key);
        let found = answer("the paths' MTUs", self.path_mtus.borrow().get(&octets, 0))?;
        Some(transmute!(found))
    }

    fn learn_mtu(&self, key: &AddrKey, mtu: &PathMtu) {
        let octets: Octets<{ size_of::<AddrKey>() }> = transmute!(*key);
        let mtu: Octets<{ size_of::<PathMtu>() }> = transmute!(*mtu);
        // Without room the next error says it again.
        let _kept = self.path_mtus.borrow_mut().insert(octets, mtu, 0);
    }

    fn route(&self, query: &RouteQuery, way: &mut Way) {
        *way = self.host.route(query);
    }

    fn time_of_day(&self) -> u32 {
        time_of_day()
    }

    fn near(&self, hash: u32) -> Option<&Bucket> {
        let bucket = (u64::from(hash) * u64::from(self.near_buckets)) >> 32;
        self.near.get(u32::try_from(bucket).ok()?)
    }

    fn find(&self, tuple: &Tuple) -> Option<Found> {
        let octets: Octets<{ size_of::<Tuple>() }> = transmute!(*tuple);
        answer("the index", self.index.borrow().get(&octets, 0)).map(Found::from_word)
    }

    fn link(&self, tuple: &Tuple, to: Found) -> Linked {
        let octets: Octets<{ size_of::<Tuple>() }> = transmute!(*tuple);
        let linked = self.index.borrow_mut().insert(octets, to.word(), ONLY_NEW);
        match linked {
            Ok(()) => Linked::New,
            Err(error) if errno(&error) == Some(libc::EEXIST) => {
                self.find(tuple).map_or(Linked::Full, Linked::Taken)
            }
            Err(_) => Linked::Full,
        }
    }

    fn relink(&self, tuple: &Tuple, to: Found) -> bool {
        let octets: Octets<{ size_of::<Tuple>() }> = transmute!(*tuple);
        self.index.borrow_mut().insert(octets, to.word(), 0).is_ok()
    }

    fn unlink(&self, tuple: &Tuple) {
        let octets: Octets<{ size_of::<Tuple>() }> = transmute!(*tuple);
        // Gone already is as good as removed.
        let _gone = self.index.borrow_mut().remove(&octets);
    }

    fn conn(&self, id: ConnId) -> Option<&Conn> {
        self.conns.get(id)
    }

    fn allocate(&self) -> Option<ConnId> {
        if let Ok(id) = self.free.borrow_mut().pop(0) {
            return Some(id);
        }
        let used = self.used.get(0)?;
        self.conns.get(used.get())?;
        let id = mapped::add(used, 1).wrapping_sub(1);
        // A program may have met the last place at the same time.
        self.conns.get(id).map(|_| id)
    }

    fn release(&self, id: ConnId) {
        // The queue has room for every place there is.
        let _pushed = self.free.borrow_mut().push(id, 0);
    }

    fn defence(&self) -> Option<&Defence> {
        self.defence.get(0)
    }

    fn expected(&self) -> Option<&Cell<u32>> {
        self.expected.get(0)
    }

    fn add(&self, cell: &Cell<u32>, delta: u32) -> u32 {
        mapped::add(cell, delta)
    }

    fn replace(&self, cell: &Cell<u32>, old: u32, new: u32) -> bool {
        mapped::replace(cell, old, new)
    }

    fn replace64(&self, cell: &Cell<u64>, old: u64, new: u64) -> bool {
        mapped::replace64(cell, old, new)
    }

    fn repeat<F: FnMut(u32) -> bool>(&self, count: u32, mut step: F) {
        for turn in 0..count {
            if !step(turn) {
                break;
            }
        }
    }

    fn count(&self, reason: Reason) {
        if let Some(count) = self.reasons.get(reason as u32) {
            count.set(count.get().wrapping_add(1));
        }
    }
}
