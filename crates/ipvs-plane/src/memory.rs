//! Tables in this process's memory: those of the user-space plane and of
//! tests.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::time::{SystemTime, UNIX_EPOCH};

use ipvs_core::addr::{Addr, AddrKey, Family};
use ipvs_core::conn::{Conn, ConnFlags, ConnId, Found, NONE, Tuple};
use ipvs_core::defence::{self, Defence};
use ipvs_core::dest::{Dest, DestId, Load};
use ipvs_core::engine::{Caller, CallerKey, Data};
use ipvs_core::expiry;
use ipvs_core::hop::{CachedHop, PathMtu, RouteQuery, Way, WayKind};
use ipvs_core::mark::MarkRule;
use ipvs_core::near::Bucket;
use ipvs_core::sched::cache::{self, Cache, CacheKey, Cached};
use ipvs_core::sched::table::BLOCK;
use ipvs_core::service::{SchedulerKind, Service, ServiceKey};
use ipvs_core::settings::Settings;
use ipvs_core::stats::{Counters, LiveCounters};
use ipvs_core::tables::{Linked, Tables};
use ipvs_core::time::Instant;
use ipvs_core::verdict::Reason;
use zerocopy::FromZeros;

use crate::store::{Account, HostMemory, Limits, LoadValues, Owner, Store};

/// Milliseconds since midnight UT.
pub(crate) fn time_of_day() -> u32 {
    const DAY: u128 = 24 * 60 * 60 * 1000;
    // A clock before 1970 knows no time.
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u32::try_from(since.as_millis() % DAY).unwrap_or(0)
}

/// Paths whose MTU is remembered, at most: as many as on the eBPF plane.
const PATHS: usize = 16384;

/// What the tables ask of the host they are on.
pub trait Host {
    /// The way to an address.
    fn route(&self, query: &RouteQuery) -> Way;
    /// The host's own address towards `addr`; `None` if that is one of a group.
    fn source_towards(&self, family: Family, addr: Addr) -> Option<Addr>;
    /// See [`Store::look_ahead`].
    fn look_ahead(&self, addrs: &[(Family, Addr)]) {
        let _ = addrs;
    }
    /// Now, on the plane's clock.
    fn now(&self) -> Instant;
    /// Whether the destination in `query` is an address of the host, or is
    /// reached by clients as if it were.
    fn is_local(&self, query: &RouteQuery) -> bool {
        self.route(query).kind == WayKind::Host
    }
    /// The number of the interface of this name.
    fn interface(&self, name: &str) -> Option<u32>;
    /// The MTU of the interface of this name.
    fn mtu(&self, name: &str) -> Option<u32>;
    /// Its memory.
    fn memory(&self) -> HostMemory {
        HostMemory::PLENTY
    }
}

/// What belongs to one destination.
#[derive(Debug, Default)]
struct DestSlot {
    dest: Option<Dest>,
    load: Load,
    counters: LiveCounters,
    hop: CachedHop,
    account: Account,
}

/// What belongs to one service besides its record.
#[derive(Debug, Default)]
struct ServiceSlot {
    word: Cell<u64>,
    account: Account,
}

/// The entries of caches, in places that stay while they come and go.
#[derive(Debug)]
struct CachedTable {
    index: RefCell<HashMap<CacheKey, usize>>,
    entries: Box<[Cached]>,
    fresh: Cell<usize>,
    free: RefCell<Vec<usize>>,
}

impl CachedTable {
    fn new(limit: u32) -> Result<Self, zerocopy::error::AllocError> {
        Ok(Self {
            index: RefCell::default(),
            entries: <[Cached]>::new_box_zeroed_with_elems(limit as usize)?,
            fresh: Cell::new(0),
            free: RefCell::default(),
        })
    }

    fn get(&self, key: &CacheKey) -> Option<&Cached> {
        self.entries.get(*self.index.borrow().get(key)?)
    }

    fn make(&self, key: &CacheKey) -> bool {
        let mut index = self.index.borrow_mut();
        if index.contains_key(key) {
            return false;
        }
        let place = self.free.borrow_mut().pop().unwrap_or_else(|| {
            let fresh = self.fresh.get();
            self.fresh.set((fresh + 1).min(self.entries.len()));
            fresh
        });
        let Some(entry) = self.entries.get(place) else { return false };
        entry.clear();
        index.insert(*key, place);
        true
    }

    fn forget(&self, key: &CacheKey) -> bool {
        let place = self.index.borrow_mut().remove(key);
        place.map(|place| self.free.borrow_mut().push(place)).is_some()
    }

    fn keys(&self) -> Vec<CacheKey> {
        self.index.borrow().keys().copied().collect()
    }
}

/// The tables, on a host that answers for routes and time.
#[derive(Debug)]
pub struct MemoryTables<H> {
    /// The host.
    pub host: H,
    limits: Limits,
    settings: Settings,
    defence: Defence,
    total: Account,
    services: HashMap<ServiceKey, Service>,
    service_slots: Vec<ServiceSlot>,
    members: Vec<DestId>,
    blocks: HashMap<u32, Box<[DestId; BLOCK as usize]>>,
    mark_rules: Vec<Option<MarkRule>>,
    caches: Box<[Cache]>,
    cached: CachedTable,
    dests: Vec<DestSlot>,
    path_mtus: RefCell<HashMap<AddrKey, PathMtu>>,
    addrs: HashMap<AddrKey, u32>,
    near: Box<[Bucket]>,
    index: RefCell<HashMap<Tuple, Found>>,
    conns: Box<[Conn]>,
    fresh: Cell<ConnId>,
    expected: Cell<u32>,
    engine_data: RefCell<HashMap<ConnId, Data>>,
    callers: HashMap<CallerKey, Caller>,
    free: RefCell<Vec<ConnId>>,
    reasons: Vec<Cell<u64>>,
}

impl<H> MemoryTables<H> {
    /// Empty tables.
    ///
    /// # Errors
    ///
    /// There is no memory for `limits.conns` connections.
    pub fn new(host: H, limits: Limits) -> Result<Self, zerocopy::error::AllocError> {
        Ok(Self {
            host,
            limits,
            settings: Settings::DEFAULT,
            defence: Defence::default(),
            total: Account::default(),
            services: HashMap::new(),
            service_slots: Vec::new(),
            members: Vec::new(),
            blocks: HashMap::new(),
            mark_rules: Vec::new(),
            caches: <[Cache]>::new_box_zeroed_with_elems(limits.caches() as usize)?,
            cached: CachedTable::new(limits.cached)?,
            dests: Vec::new(),
            path_mtus: RefCell::default(),
            addrs: HashMap::new(),
            near: (0..limits.near_buckets()).map(|_| Bucket::default()).collect(),
            index: RefCell::default(),
            conns: <[Conn]>::new_box_zeroed_with_elems(limits.conns as usize)?,
            fresh: Cell::new(0),
            expected: Cell::new(0),
            engine_data: RefCell::default(),
            callers: HashMap::new(),
            free: RefCell::default(),
            reasons: Reason::ALL.iter().map(|_| Cell::new(0)).collect(),
        })
    }

    /// Packets counted under `reason`.
    pub fn counted(&self, reason: Reason) -> u64 {
        self.reasons.get(reason as usize).map_or(0, Cell::get)
    }

    /// Places for connections that were in use at some time: the first ones.
    pub fn touched(&self) -> u32 {
        self.fresh.get()
    }

    fn slot(&mut self, id: DestId) -> &mut DestSlot {
        grown(&mut self.dests, id)
    }
}

/// The element at `place` of a table that grows as it is written.
fn grown<T: Default>(table: &mut Vec<T>, place: u32) -> &mut T {
    let place = place as usize;
    if table.len() <= place {
        table.resize_with(place + 1, T::default);
    }
    #[expect(clippy::indexing_slicing, reason = "the table was just grown")]
    &mut table[place]
}

impl<H: Host> Tables for MemoryTables<H> {
    const RESOLVES: bool = true;
    const CUTS: bool = true;
    const HELPS: bool = true;
    const STAGES_APART: bool = false;

    fn settings(&self) -> &Settings {
        &self.settings
    }

    fn service(&self, key: &ServiceKey) -> Option<&Service> {
        self.services.get(key)
    }

    fn mark_rule(&self, place: u32) -> Option<&MarkRule> {
        self.mark_rules.get(place as usize)?.as_ref()
    }

    fn scheduler_word(&self, service: u32) -> Option<&Cell<u64>> {
        self.service_slots.get(service as usize).map(|slot| &slot.word)
    }

    fn member(&self, place: u32) -> Option<DestId> {
        self.members.get(place as usize).copied()
    }

    fn slot(&self, block: u32, slot: u32) -> Option<DestId> {
        let slots = self.blocks.get(&block.checked_add(slot / BLOCK)?)?;
        slots.get((slot % BLOCK) as usize).copied().filter(|id| *id != NONE)
    }

    fn cache(&self, place: u32) -> Option<&Cache> {
        self.caches.get(place as usize)
    }

    fn cached(&self, key: &CacheKey) -> Option<&Cached> {
        self.cached.get(key)
    }

    fn make_cached(&self, key: &CacheKey) -> bool {
        self.cached.make(key)
    }

    fn forget_cached(&self, key: &CacheKey) -> bool {
        self.cached.forget(key)
    }

    fn each_cached<F: FnMut(&CacheKey, &Cached) -> bool>(&self, mut step: F) {
        for key in self.cached.keys() {
            if self.cached.get(&key).is_some_and(|entry| !step(&key, entry)) {
                break;
            }
        }
    }

    fn dest(&self, id: DestId) -> Option<&Dest> {
        self.dests.get(id as usize)?.dest.as_ref()
    }

    fn defence(&self) -> Option<&Defence> {
        Some(&self.defence)
    }

    fn load(&self, id: DestId) -> Option<&Load> {
        self.dests.get(id as usize).map(|slot| &slot.load)
    }

    fn counters(&self, id: DestId) -> Option<&LiveCounters> {
        self.dests.get(id as usize).map(|slot| &slot.counters)
    }

    fn dest_hop(&self, id: DestId) -> Option<&CachedHop> {
        self.dests.get(id as usize).map(|slot| &slot.hop)
    }

    fn addr_use(&self, key: &AddrKey) -> u32 {
        self.addrs.get(key).copied().unwrap_or(0)
    }

    fn path_mtu(&self, key: &AddrKey) -> Option<PathMtu> {
        self.path_mtus.borrow().get(key).copied()
    }

    fn learn_mtu(&self, key: &AddrKey, mtu: &PathMtu) {
        let mut learnt = self.path_mtus.borrow_mut();
        if learnt.len() >= PATHS {
            let now = self.host.now();
            learnt.retain(|_, path| path.believed(now).is_some());
        }
        if learnt.len() >= PATHS {
            learnt.clear();
        }
        learnt.insert(*key, *mtu);
    }

    fn route(&self, query: &RouteQuery, way: &mut Way) {
        *way = self.host.route(query);
    }

    fn is_local(&self, query: &RouteQuery, _: &mut Way) -> bool {
        self.host.is_local(query)
    }

    fn time_of_day(&self) -> u32 {
        time_of_day()
    }

    fn near(&self, hash: u32) -> Option<&Bucket> {
        let bucket = (u64::from(hash) * self.near.len() as u64) >> 32;
        self.near.get(usize::try_from(bucket).ok()?)
    }

    fn find(&self, tuple: &Tuple) -> Option<Found> {
        self.index.borrow().get(tuple).copied()
    }

    fn link(&self, tuple: &Tuple, to: Found) -> Linked {
        let mut index = self.index.borrow_mut();
        if let Some(found) = index.get(tuple) {
            return Linked::Taken(*found);
        }
        index.insert(*tuple, to);
        Linked::New
    }

    fn relink(&self, tuple: &Tuple, to: Found) -> bool {
        self.index.borrow_mut().insert(*tuple, to);
        true
    }

    fn unlink(&self, tuple: &Tuple) {
        self.index.borrow_mut().remove(tuple);
    }

    fn conn(&self, id: ConnId) -> Option<&Conn> {
        self.conns.get(id as usize)
    }

    fn allocate(&self) -> Option<ConnId> {
        if let Some(id) = self.free.borrow_mut().pop() {
            return Some(id);
        }
        let id = self.fresh.get();
        (id < self.limits.conns).then(|| {
            self.fresh.set(id + 1);
            id
        })
    }

    fn release(&self, id: ConnId) {
        self.free.borrow_mut().push(id);
    }

    fn engine_data_is(&self, id: ConnId, data: &Data) -> bool {
        self.engine_data.borrow().get(&id).is_some_and(|kept| kept.is(data))
    }

    fn put_engine_data(&self, id: ConnId, data: &Data) -> bool {
        self.engine_data.borrow_mut().insert(id, *data);
        true
    }

    fn forget_engine_data(&self, id: ConnId) {
        self.engine_data.borrow_mut().remove(&id);
    }

    fn caller(&self, key: &CallerKey) -> Option<&Caller> {
        self.callers.get(key)
    }

    fn expected(&self) -> Option<&Cell<u32>> {
        Some(&self.expected)
    }

    fn add(&self, cell: &Cell<u32>, delta: u32) -> u32 {
        let value = cell.get().wrapping_add(delta);
        cell.set(value);
        value
    }

    fn replace(&self, cell: &Cell<u32>, old: u32, new: u32) -> bool {
        let same = cell.get() == old;
        if same {
            cell.set(new);
        }
        same
    }

    fn replace64(&self, cell: &Cell<u64>, old: u64, new: u64) -> bool {
        let same = cell.get() == old;
        if same {
            cell.set(new);
        }
        same
    }

    fn repeat<F: FnMut(u32) -> bool>(&self, count: u32, mut step: F) {
        for turn in 0..count {
            if !step(turn) {
                break;
            }
        }
    }

    fn count(&self, reason: Reason) {
        if let Some(count) = self.reasons.get(reason as usize) {
            count.set(count.get() + 1);
        }
    }
}

impl<H: Host> Store for MemoryTables<H> {
    type Error = Infallible;

    fn limits(&self) -> Limits {
        self.limits
    }

    fn memory(&mut self) -> HostMemory {
        self.host.memory()
    }

    fn now(&mut self) -> Instant {
        self.host.now()
    }

    fn put_settings(&mut self, settings: &Settings) -> Result<(), Infallible> {
        self.settings = *settings;
        Ok(())
    }

    fn put_service(&mut self, service: &Service) -> Result<(), Infallible> {
        grown(&mut self.service_slots, service.id);
        self.services.insert(service.key, *service);
        Ok(())
    }

    fn remove_service(&mut self, key: &ServiceKey) -> Result<(), Infallible> {
        self.services.remove(key);
        Ok(())
    }

    fn put_mark_rule(&mut self, place: u32, rule: &MarkRule) -> Result<(), Infallible> {
        *grown(&mut self.mark_rules, place) = Some(*rule);
        Ok(())
    }

    fn mark_rule_at(&mut self, place: u32) -> Option<MarkRule> {
        self.mark_rules.get(place as usize).copied().flatten()
    }

    fn put_member(&mut self, place: u32, dest: DestId) -> Result<(), Infallible> {
        *grown(&mut self.members, place) = dest;
        Ok(())
    }

    fn open_cache(&mut self, place: u32, scheduler: SchedulerKind) -> Result<(), Infallible> {
        cache::open(self, place, scheduler as u32, self.host.now());
        Ok(())
    }

    fn close_cache(&mut self, place: u32) -> Result<(), Infallible> {
        cache::close(self, place);
        Ok(())
    }

    fn open_caches(&mut self) -> Vec<u32> {
        (0..).zip(&self.caches).filter(|(_, cache)| cache.is_open()).map(|(at, _)| at).collect()
    }

    fn cached_dests(&mut self) -> HashSet<DestId> {
        let keys = self.cached.keys();
        keys.iter().filter_map(|key| self.cached.get(key)).flat_map(Cached::dests).collect()
    }

    fn put_block(
        &mut self,
        block: u32,
        slots: &[DestId; BLOCK as usize],
    ) -> Result<(), Infallible> {
        self.blocks.insert(block, Box::new(*slots));
        Ok(())
    }

    fn remove_block(&mut self, block: u32) -> Result<(), Infallible> {
        self.blocks.remove(&block);
        Ok(())
    }

    fn blocks(&mut self) -> Vec<u32> {
        self.blocks.keys().copied().collect()
    }

    fn put_dest(&mut self, id: DestId, dest: &Dest) -> Result<(), Infallible> {
        self.slot(id).dest = Some(*dest);
        Ok(())
    }

    fn put_addr_use(&mut self, key: &AddrKey, uses: u32) -> Result<(), Infallible> {
        match uses {
            0 => self.addrs.remove(key),
            uses => self.addrs.insert(*key, uses),
        };
        Ok(())
    }

    fn load_values(&mut self, id: DestId) -> LoadValues {
        let load = &self.slot(id).load;
        LoadValues {
            active: load.active.get(),
            inactive: load.inactive.get(),
            persistent: load.persistent.get(),
            overloaded: load.overloaded.get(),
        }
    }

    fn reset_load(&mut self, id: DestId) -> Result<(), Infallible> {
        self.slot(id).load = Load::default();
        Ok(())
    }

    fn set_overloaded(&mut self, id: DestId, overloaded: bool) -> Result<(), Infallible> {
        self.slot(id).load.overloaded.set(u32::from(overloaded));
        Ok(())
    }

    fn counter_values(&mut self, id: DestId) -> Counters {
        self.slot(id).counters.read()
    }

    fn cpu_counter_values(&mut self, id: DestId) -> Vec<Counters> {
        vec![self.counter_values(id)]
    }

    fn reset_counters(&mut self, id: DestId) -> Result<(), Infallible> {
        self.slot(id).counters = LiveCounters::default();
        self.forget_hop(id)
    }

    fn forget_hop(&mut self, id: DestId) -> Result<(), Infallible> {
        self.slot(id).hop.clear();
        Ok(())
    }

    fn scheduler_memory(&mut self, service: u32) -> u64 {
        grown(&mut self.service_slots, service).word.get()
    }

    fn put_scheduler_memory(&mut self, service: u32, word: u64) -> Result<(), Infallible> {
        grown(&mut self.service_slots, service).word.set(word);
        Ok(())
    }

    fn account(&mut self, owner: Owner) -> Account {
        match owner {
            Owner::Service(id) => grown(&mut self.service_slots, id).account,
            Owner::Dest(id) => self.slot(id).account,
            Owner::Total => self.total,
        }
    }

    fn put_account(&mut self, owner: Owner, account: &Account) -> Result<(), Infallible> {
        match owner {
            Owner::Service(id) => grown(&mut self.service_slots, id).account = *account,
            Owner::Dest(id) => self.slot(id).account = *account,
            Owner::Total => self.total = *account,
        }
        Ok(())
    }

    fn put_caller(&mut self, key: &CallerKey, caller: Option<&Caller>) -> Result<(), Infallible> {
        match caller {
            Some(caller) => self.callers.insert(*key, *caller),
            None => self.callers.remove(key),
        };
        Ok(())
    }

    fn engine_data(&mut self, id: ConnId) -> Option<Data> {
        self.engine_data.borrow().get(&id).copied()
    }

    fn each_conn(&mut self, each: &mut dyn FnMut(ConnId, &Conn)) {
        for (id, conn) in (0..self.fresh.get()).zip(self.conns.iter()) {
            if conn.has(ConnFlags::HASHED) {
                each(id, conn);
            }
        }
    }

    fn end(&mut self, id: ConnId) -> Result<(), Infallible> {
        if let Some(conn) = self.conns.get(id as usize) {
            conn.expires.set(0);
            expiry::expire(self, &mut Tuple::default(), id, conn, self.host.now());
        }
        Ok(())
    }

    fn sweep(&mut self) {
        let (used, now) = (self.fresh.get(), self.host.now());
        defence::drop_entries(self, &mut Tuple::default(), used, now);
        expiry::sweep(self, &mut Tuple::default(), 0, used, now);
        cache::tend(self, now);
    }

    fn source_towards(&mut self, family: Family, addr: Addr) -> Option<Addr> {
        self.host.source_towards(family, addr)
    }

    fn look_ahead(&mut self, addrs: &[(Family, Addr)]) {
        self.host.look_ahead(addrs);
    }

    fn interface(&mut self, name: &str) -> Option<u32> {
        self.host.interface(name)
    }

    fn mtu(&mut self, name: &str) -> Option<u32> {
        self.host.mtu(name)
    }
}
