//! The maps, as the control side writes and reads them.

use std::collections::{HashMap as StdHashMap, HashSet};
use std::path::PathBuf;

use aya::maps::{Array, HashMap, MapData, MapError, PerCpuArray};
use aya::programs::{TestRun, TestRunOptions, Xdp};
use ipvs_core::addr::{Addr, AddrKey, Family};
use ipvs_core::conn::{Conn, ConnFlags, ConnId};
use ipvs_core::dest::{Dest, DestId};
use ipvs_core::engine::{Caller, CallerKey, Data};
use ipvs_core::errand::Errand;
use ipvs_core::hop::RouteQuery;
use ipvs_core::mark::{self, MarkRule};
use ipvs_core::sched::cache::{Cache, CacheKey, Cached};
use ipvs_core::sched::table::BLOCK;
use ipvs_core::service::{SchedulerKind, Service, ServiceKey};
use ipvs_core::settings::Settings;
use ipvs_core::stats::Counters;
use ipvs_core::time::Instant;
use ipvs_core::verdict::Reason;
use rustix::time::ClockId;
use zerocopy::{FromBytes, transmute};

use super::StartError;
use super::object::Maps;
use crate::registry::adopt::Found;
use crate::rtnetlink::{FoundRoute, Link, Rtnetlink};
use crate::store::{Account, HostMemory, Limits, LoadValues, Owner, Store};

/// Octets in front of an errand's words: an Ethernet header.
const ERRAND_AT: usize = 14;

type Records<const N: usize> = Array<MapData, [u8; N]>;

/// The maps of one plane.
pub(super) struct BpfStore {
    settings: Records<{ size_of::<Settings>() }>,
    services: HashMap<MapData, [u8; size_of::<ServiceKey>()], [u8; size_of::<Service>()]>,
    scheduler: Records<8>,
    members: Array<MapData, u32>,
    slots: HashMap<MapData, u32, [DestId; BLOCK as usize]>,
    marks: Records<{ size_of::<MarkRule>() }>,
    caches: Records<{ size_of::<Cache>() }>,
    cached: HashMap<MapData, [u8; size_of::<CacheKey>()], [u8; size_of::<Cached>()]>,
    dests: Records<{ size_of::<Dest>() }>,
    loads: Records<{ size_of::<LoadValues>() }>,
    counters: PerCpuArray<MapData, [u8; size_of::<Counters>()]>,
    slow_counters: Records<{ size_of::<Counters>() }>,
    hops: Records<24>,
    addrs: HashMap<MapData, [u8; size_of::<AddrKey>()], u32>,
    callers: HashMap<MapData, [u8; size_of::<CallerKey>()], [u8; size_of::<Caller>()]>,
    engine_data: HashMap<MapData, u32, [u8; size_of::<Data>()]>,
    conns: Records<{ size_of::<Conn>() }>,
    used: Array<MapData, u32>,
    reasons: PerCpuArray<MapData, u64>,
    slow_reasons: Array<MapData, u64>,
    dest_accounts: Records<{ size_of::<Account>() }>,
    service_accounts: Records<{ size_of::<Account>() }>,
    total_account: Records<{ size_of::<Account>() }>,
    control: Xdp,
    limits: Limits,
    clock_offset: u64,
}

impl core::fmt::Debug for BpfStore {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("BpfStore").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl BpfStore {
    pub(super) fn new(maps: Maps) -> Result<Self, StartError> {
        let Maps { by_name: mut maps, control, directory } = maps;
        let mut take = Taker { maps: &mut maps, directory };
        let services = take.map("IPVS_SERVICES")?;
        let limits = Limits {
            services: entries(&services)?,
            dests: take.entries_of("IPVS_DESTS")?,
            members: take.entries_of("IPVS_MEMBERS")?,
            blocks: take.entries_of("IPVS_SLOTS")?,
            cached: take.entries_of("IPVS_CACHED")?,
            conns: take.entries_of("IPVS_CONNS")?,
        };
        Ok(Self {
            settings: take.typed("IPVS_SETTINGS")?,
            services: take.wrap("IPVS_SERVICES", services)?,
            scheduler: take.typed("IPVS_SCHED")?,
            members: take.typed("IPVS_MEMBERS")?,
            slots: take.typed("IPVS_SLOTS")?,
            marks: take.typed("IPVS_MARKS")?,
            caches: take.typed("IPVS_CACHES")?,
            cached: take.typed("IPVS_CACHED")?,
            dests: take.typed("IPVS_DESTS")?,
            loads: take.typed("IPVS_LOADS")?,
            counters: take.typed("IPVS_COUNTERS")?,
            slow_counters: take.typed("IPVS_SLOW_COUNTERS")?,
            hops: take.typed("IPVS_HOPS")?,
            addrs: take.typed("IPVS_ADDRS")?,
            callers: take.typed("IPVS_CALLERS")?,
            engine_data: take.typed("IPVS_ENGINE_DATA")?,
            conns: take.typed("IPVS_CONNS")?,
            used: take.typed("IPVS_USED")?,
            reasons: take.typed("IPVS_REASONS")?,
            slow_reasons: take.typed("IPVS_SLOW_REASONS")?,
            dest_accounts: take.typed("IPVS_DEST_ACCOUNTS")?,
            service_accounts: take.typed("IPVS_SERVICE_ACCOUNTS")?,
            total_account: take.typed("IPVS_TOTAL_ACCOUNT")?,
            control,
            limits,
            clock_offset: 0,
        })
    }

    /// What an earlier daemon left in the maps.
    pub(super) fn found(&mut self) -> Result<Found, StartError> {
        let octets = self.settings.get(&0, 0).map_err(StartError::map)?;
        let settings: Settings = transmute!(octets);
        self.clock_offset = settings.clock_offset();
        let mut services = Vec::new();
        for item in &self.services {
            let (_, octets) = item.map_err(StartError::map)?;
            let service: Service = transmute!(octets);
            let mut dests = Vec::new();
            for place in service.first..service.first.saturating_add(service.len) {
                dests.push(self.members.get(&place, 0).map_err(StartError::map)?);
            }
            services.push((service, dests));
        }
        let cached = self.cached_dests();
        let mut dests: StdHashMap<DestId, Dest> = StdHashMap::new();
        for id in 0..self.limits.dests {
            let octets = self.dests.get(&id, 0).map_err(StartError::map)?;
            let dest: Dest = transmute!(octets);
            // A place that was never used has no family, and so have all after it.
            if dest.key.family == 0 {
                break;
            }
            let listed = services.iter().any(|(_, list)| list.contains(&id));
            if listed || self.load_values(id).is_referenced() || cached.contains(&id) {
                dests.insert(id, dest);
            }
        }
        let mut addrs = StdHashMap::new();
        for item in &self.addrs {
            let (octets, uses) = item.map_err(StartError::map)?;
            let key: AddrKey = transmute!(octets);
            addrs.insert(key, uses);
        }
        let (first, len) = mark::places(settings.mark_rules);
        let places = first..first.saturating_add(len);
        let mark_rules = places.filter_map(|place| self.mark_rule_at(place)).collect();
        let mut callers = StdHashMap::new();
        for item in &self.callers {
            let (key, caller) = item.map_err(StartError::map)?;
            let (key, caller): (CallerKey, Caller) = (transmute!(key), transmute!(caller));
            callers.insert(key, caller);
        }
        Ok(Found { settings, services, dests, addrs, mark_rules, callers })
    }

    /// Packets by reason.
    pub(super) fn reasons(&mut self) -> Vec<(Reason, u64)> {
        Reason::ALL
            .iter()
            .filter_map(|reason| {
                let counts = self.reasons.get(&(*reason as u32), 0).ok()?;
                let slow = self.slow_reasons.get(&(*reason as u32), 0).unwrap_or(0);
                let sum = counts.iter().sum::<u64>() + slow;
                (sum != 0).then_some((*reason, sum))
            })
            .collect()
    }

    fn run(&mut self, errand: Errand) {
        let mut packet = [0; 64];
        let words: [u8; 12] = transmute!(errand.words());
        if let Some(place) = packet.get_mut(ERRAND_AT..ERRAND_AT + words.len()) {
            place.copy_from_slice(&words);
        }
        let mut options = TestRunOptions::new();
        options.data_in = Some(&packet);
        if let Err(error) = self.control.test_run(options) {
            tracing::error!(%error, ?errand, "an errand in the kernel failed");
        }
    }
}

/// Takes typed maps out of those that were opened.
struct Taker<'a> {
    maps: &'a mut StdHashMap<&'static str, MapData>,
    directory: PathBuf,
}

impl Taker<'_> {
    fn other_version(&self, name: &str, reason: &dyn ToString) -> StartError {
        StartError::OtherVersion { path: self.directory.join(name), reason: reason.to_string() }
    }

    fn map(&mut self, name: &str) -> Result<MapData, StartError> {
        self.maps.remove(name).ok_or_else(|| self.other_version(name, &"missing"))
    }

    fn entries_of(&self, name: &str) -> Result<u32, StartError> {
        let map = self.maps.get(name).ok_or_else(|| self.other_version(name, &"missing"))?;
        entries(map)
    }

    fn wrap<T>(&self, name: &str, data: MapData) -> Result<T, StartError>
    where
        T: TryFrom<aya::maps::Map, Error = MapError>,
    {
        let map = aya::maps::Map::from_map_data(data)
            .map_err(|error| self.other_version(name, &error))?;
        T::try_from(map).map_err(|error| self.other_version(name, &error))
    }

    fn typed<T>(&mut self, name: &str) -> Result<T, StartError>
    where
        T: TryFrom<aya::maps::Map, Error = MapError>,
    {
        let data = self.map(name)?;
        self.wrap(name, data)
    }
}

fn entries(map: &MapData) -> Result<u32, StartError> {
    map.info().map(|info| info.max_entries()).map_err(StartError::map)
}

impl Store for BpfStore {
    type Error = MapError;

    fn limits(&self) -> Limits {
        self.limits
    }

    fn memory(&mut self) -> HostMemory {
        HostMemory::of_this_host()
    }

    fn now(&mut self) -> Instant {
        let now = rustix::time::clock_gettime(ClockId::MonotonicCoarse);
        let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
        let nanos = u64::try_from(now.tv_nsec).unwrap_or(0);
        Instant::from_nanos((seconds * 1_000_000_000 + nanos).wrapping_add(self.clock_offset))
    }

    fn put_settings(&mut self, settings: &Settings) -> Result<(), MapError> {
        self.clock_offset = settings.clock_offset();
        let octets: [u8; size_of::<Settings>()] = transmute!(*settings);
        self.settings.set(0, octets, 0)
    }

    fn put_service(&mut self, service: &Service) -> Result<(), MapError> {
        let key: [u8; size_of::<ServiceKey>()] = transmute!(service.key);
        let octets: [u8; size_of::<Service>()] = transmute!(*service);
        self.services.insert(key, octets, 0)
    }

    fn remove_service(&mut self, key: &ServiceKey) -> Result<(), MapError> {
        let key: [u8; size_of::<ServiceKey>()] = transmute!(*key);
        match self.services.remove(&key) {
            Err(MapError::KeyNotFound) => Ok(()),
            other => other,
        }
    }

    fn put_mark_rule(&mut self, place: u32, rule: &MarkRule) -> Result<(), MapError> {
        let octets: [u8; size_of::<MarkRule>()] = transmute!(*rule);
        self.marks.set(place, octets, 0)
    }

    fn mark_rule_at(&mut self, place: u32) -> Option<MarkRule> {
        self.marks.get(&place, 0).ok().map(|octets| transmute!(octets))
    }

    fn put_member(&mut self, place: u32, dest: DestId) -> Result<(), MapError> {
        self.members.set(place, dest, 0)
    }

    fn open_cache(&mut self, cache: u32, scheduler: SchedulerKind) -> Result<(), MapError> {
        self.run(Errand::OpenCache { cache, scheduler: scheduler as u32 });
        Ok(())
    }

    fn close_cache(&mut self, cache: u32) -> Result<(), MapError> {
        self.run(Errand::CloseCache { cache });
        Ok(())
    }

    fn open_caches(&mut self) -> Vec<u32> {
        let mut open = Vec::new();
        for place in 0..self.limits.caches() {
            let Ok(octets) = self.caches.get(&place, 0) else { break };
            match Cache::read_from_bytes(&octets) {
                Ok(cache) if cache.is_open() => open.push(place),
                // Never used, nor was any behind it.
                Ok(cache) if cache.scheduler.get() == 0 => break,
                _ => {}
            }
        }
        open
    }

    fn cached_dests(&mut self) -> HashSet<DestId> {
        let mut dests = HashSet::new();
        for (_, octets) in self.cached.iter().filter_map(Result::ok) {
            if let Ok(entry) = Cached::read_from_bytes(&octets) {
                dests.extend(entry.dests());
            }
        }
        dests
    }

    fn put_block(&mut self, block: u32, slots: &[DestId; BLOCK as usize]) -> Result<(), MapError> {
        self.slots.insert(block, slots, 0)
    }

    fn remove_block(&mut self, block: u32) -> Result<(), MapError> {
        match self.slots.remove(&block) {
            Err(MapError::KeyNotFound) => Ok(()),
            other => other,
        }
    }

    fn blocks(&mut self) -> Vec<u32> {
        self.slots.keys().filter_map(Result::ok).collect()
    }

    fn put_dest(&mut self, id: DestId, dest: &Dest) -> Result<(), MapError> {
        let octets: [u8; size_of::<Dest>()] = transmute!(*dest);
        self.dests.set(id, octets, 0)
    }

    fn put_addr_use(&mut self, key: &AddrKey, uses: u32) -> Result<(), MapError> {
        let key: [u8; size_of::<AddrKey>()] = transmute!(*key);
        if uses != 0 {
            return self.addrs.insert(key, uses, 0);
        }
        match self.addrs.remove(&key) {
            Err(MapError::KeyNotFound) => Ok(()),
            other => other,
        }
    }

    fn load_values(&mut self, id: DestId) -> LoadValues {
        self.loads.get(&id, 0).map_or_else(|_| LoadValues::default(), |octets| transmute!(octets))
    }

    fn reset_load(&mut self, id: DestId) -> Result<(), MapError> {
        self.loads.set(id, [0; size_of::<LoadValues>()], 0)
    }

    fn set_overloaded(&mut self, dest: DestId, overloaded: bool) -> Result<(), MapError> {
        // Not by a write of the record, which would undo what packets count meanwhile.
        if (self.load_values(dest).overloaded != 0) != overloaded {
            self.run(Errand::MarkOverload { dest, overloaded });
        }
        Ok(())
    }

    fn counter_values(&mut self, id: DestId) -> Counters {
        self.cpu_counter_values(id).into_iter().fold(Counters::default(), Counters::plus)
    }

    fn cpu_counter_values(&mut self, id: DestId) -> Vec<Counters> {
        let Ok(values) = self.counters.get(&id, 0) else { return Vec::new() };
        let mut values: Vec<Counters> = values.iter().map(|octets| transmute!(*octets)).collect();
        // The slow path belongs to no CPU: it is the first one's.
        if let (Some(first), Ok(slow)) = (values.first_mut(), self.slow_counters.get(&id, 0)) {
            let slow: Counters = transmute!(slow);
            *first = first.plus(slow);
        }
        values
    }

    fn reset_counters(&mut self, id: DestId) -> Result<(), MapError> {
        let cpus = self.counters.get(&id, 0)?.len();
        let zeros = vec![[0; size_of::<Counters>()]; cpus];
        let zeros = aya::maps::PerCpuValues::try_from(zeros).map_err(MapError::IoError)?;
        self.counters.set(id, zeros, 0)?;
        self.slow_counters.set(id, [0; size_of::<Counters>()], 0)?;
        self.forget_hop(id)
    }

    fn forget_hop(&mut self, id: DestId) -> Result<(), MapError> {
        self.hops.set(id, [0; 24], 0)
    }

    fn scheduler_memory(&mut self, service: u32) -> u64 {
        self.scheduler.get(&service, 0).map_or(0, u64::from_ne_bytes)
    }

    fn put_scheduler_memory(&mut self, service: u32, word: u64) -> Result<(), MapError> {
        self.scheduler.set(service, word.to_ne_bytes(), 0)
    }

    fn account(&mut self, owner: Owner) -> Account {
        let octets = match owner {
            Owner::Service(id) => self.service_accounts.get(&id, 0),
            Owner::Dest(id) => self.dest_accounts.get(&id, 0),
            Owner::Total => self.total_account.get(&0, 0),
        };
        octets.map_or_else(|_| Account::default(), |octets| transmute!(octets))
    }

    fn put_account(&mut self, owner: Owner, account: &Account) -> Result<(), MapError> {
        let octets: [u8; size_of::<Account>()] = transmute!(*account);
        match owner {
            Owner::Service(id) => self.service_accounts.set(id, octets, 0),
            Owner::Dest(id) => self.dest_accounts.set(id, octets, 0),
            Owner::Total => self.total_account.set(0, octets, 0),
        }
    }

    fn put_caller(&mut self, key: &CallerKey, caller: Option<&Caller>) -> Result<(), MapError> {
        let key: [u8; size_of::<CallerKey>()] = transmute!(*key);
        if let Some(caller) = caller {
            let octets: [u8; size_of::<Caller>()] = transmute!(*caller);
            return self.callers.insert(key, octets, 0);
        }
        match self.callers.remove(&key) {
            Err(MapError::KeyNotFound) => Ok(()),
            other => other,
        }
    }

    fn engine_data(&mut self, id: ConnId) -> Option<Data> {
        self.engine_data.get(&id, 0).ok().map(|octets| transmute!(octets))
    }

    fn each_conn(&mut self, each: &mut dyn FnMut(ConnId, &Conn)) {
        let used = self.used.get(&0, 0).unwrap_or(0).min(self.limits.conns);
        for id in 0..used {
            let Ok(octets) = self.conns.get(&id, 0) else { continue };
            if let Ok(conn) = Conn::read_from_bytes(&octets)
                && conn.has(ConnFlags::HASHED)
            {
                each(id, &conn);
            }
        }
    }

    fn end(&mut self, conn: ConnId) -> Result<(), MapError> {
        self.run(Errand::End { conn });
        Ok(())
    }

    fn sweep(&mut self) {
        self.run(Errand::Sweep);
    }

    fn source_towards(&mut self, family: Family, addr: Addr) -> Option<Addr> {
        let query = RouteQuery { family, destination: addr, source: Addr::UNSPECIFIED };
        match Rtnetlink::open().and_then(|mut netlink| netlink.route(&query)) {
            Ok(FoundRoute::Group) => None,
            Ok(FoundRoute::Unicast { source: Some(source), .. }) => Some(source),
            _ => Some(Addr::UNSPECIFIED),
        }
    }

    fn interface(&mut self, name: &str) -> Option<u32> {
        link(name).map(|link| link.index)
    }

    fn mtu(&mut self, name: &str) -> Option<u32> {
        link(name).map(|link| link.mtu)
    }
}

/// The interface of this name.
fn link(name: &str) -> Option<Link> {
    let links = Rtnetlink::open().and_then(|mut netlink| netlink.links()).ok()?;
    links.into_iter().find(|link| link.name == name)
}
