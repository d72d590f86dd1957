//! The maps, as the control side writes and reads them.

use std::cell::Cell;
use std::collections::{HashMap as StdHashMap, HashSet};
use std::path::PathBuf;

use aya::maps::{Array, HashMap, MapData, MapError, PerCpuArray};
use aya::programs::{TestRun, TestRunOptions, Xdp};
use ipvs_core::addr::{Addr, AddrKey, Family};
use ipvs_core::conn::{Conn, ConnFlags, ConnId};
use ipvs_core::dest::{Dest, DestId};
use ipvs_core::engine::{Caller, CallerKey, Data};
use ipvs_core::errand::Errand;
use ipvs_core::hop::{CachedHop, RouteQuery};
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
use super::mapped::Mapped;
use super::object::Maps;
use crate::registry::adopt::Found;
use crate::rtnetlink::{FoundRoute, Link, Rtnetlink};
use crate::store::{Account, HostMemory, Limits, LoadValues, Owner, Store};

/// Octets in front of an errand's words: an Ethernet header.
const ERRAND_AT: usize = 14;

type Records<const N: usize> = Array<MapData, [u8; N]>;
/// Records of so many words, which this process reads and writes as the programs do.
type Words<const N: usize> = Mapped<[Cell<u64>; N]>;
const WORD: usize = size_of::<u64>();

/// The maps of one plane.
pub(super) struct BpfStore {
    settings: Records<{ size_of::<Settings>() }>,
    services: HashMap<MapData, [u8; size_of::<ServiceKey>()], [u8; size_of::<Service>()]>,
    scheduler: Mapped<Cell<u64>>,
    members: Mapped<Cell<DestId>>,
    slots: HashMap<MapData, u32, [DestId; BLOCK as usize]>,
    marks: Records<{ size_of::<MarkRule>() }>,
    caches: Records<{ size_of::<Cache>() }>,
    cached: HashMap<MapData, [u8; size_of::<CacheKey>()], [u8; size_of::<Cached>()]>,
    dests: Words<{ size_of::<Dest>() / WORD }>,
    loads: Words<{ size_of::<LoadValues>() / WORD }>,
    counters: PerCpuArray<MapData, [u8; size_of::<Counters>()]>,
    slow_counters: Words<{ size_of::<Counters>() / WORD }>,
    hops: Words<{ size_of::<CachedHop>() / WORD }>,
    addrs: HashMap<MapData, [u8; size_of::<AddrKey>()], u32>,
    callers: HashMap<MapData, [u8; size_of::<CallerKey>()], [u8; size_of::<Caller>()]>,
    engine_data: HashMap<MapData, u32, [u8; size_of::<Data>()]>,
    conns: Mapped<Conn>,
    used: Mapped<Cell<u32>>,
    reasons: PerCpuArray<MapData, u64>,
    slow_reasons: Array<MapData, u64>,
    dest_accounts: Records<{ size_of::<Account>() }>,
    service_accounts: Records<{ size_of::<Account>() }>,
    total_account: Records<{ size_of::<Account>() }>,
    /// Accounts that were read or written: nobody else writes them.
    accounts: StdHashMap<Owner, Account>,
    netlink: Rtnetlink,
    /// Ways that were asked for, until they are [forgotten](Self::forget_ways).
    ways: StdHashMap<(Family, Addr), FoundRoute>,
    control: Xdp,
    limits: Limits,
    clock_offset: u64,
    /// Destinations' places from here on are as they were made.
    untouched: DestId,
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
            scheduler: take.array("IPVS_SCHED")?,
            members: take.array("IPVS_MEMBERS")?,
            slots: take.typed("IPVS_SLOTS")?,
            marks: take.typed("IPVS_MARKS")?,
            caches: take.typed("IPVS_CACHES")?,
            cached: take.typed("IPVS_CACHED")?,
            dests: take.array("IPVS_DESTS")?,
            loads: take.array("IPVS_LOADS")?,
            counters: take.typed("IPVS_COUNTERS")?,
            slow_counters: take.array("IPVS_SLOW_COUNTERS")?,
            hops: take.array("IPVS_HOPS")?,
            addrs: take.typed("IPVS_ADDRS")?,
            callers: take.typed("IPVS_CALLERS")?,
            engine_data: take.typed("IPVS_ENGINE_DATA")?,
            conns: take.array("IPVS_CONNS")?,
            used: take.array("IPVS_USED")?,
            reasons: take.typed("IPVS_REASONS")?,
            slow_reasons: take.typed("IPVS_SLOW_REASONS")?,
            dest_accounts: take.typed("IPVS_DEST_ACCOUNTS")?,
            service_accounts: take.typed("IPVS_SERVICE_ACCOUNTS")?,
            total_account: take.typed("IPVS_TOTAL_ACCOUNT")?,
            accounts: StdHashMap::new(),
            netlink: Rtnetlink::open().map_err(StartError::Netlink)?,
            ways: StdHashMap::new(),
            control,
            limits,
            clock_offset: 0,
            untouched: 0,
        })
    }

    /// What an earlier daemon left in the maps.
    pub(super) fn found(&mut self) -> Result<Found, StartError> {
        let octets = self.settings.get(&0, 0).map_err(StartError::map)?;
        let settings: Settings = transmute!(octets);
        self.clock_offset = settings.clock_offset();
        // What the earlier daemon has touched, is not known.
        self.untouched = self.limits.dests;
        let mut services = Vec::new();
        for item in &self.services {
            let (_, octets) = item.map_err(StartError::map)?;
            let service: Service = transmute!(octets);
            let mut dests = Vec::new();
            for place in service.first..service.first.saturating_add(service.len) {
                dests.extend(self.members.get(place).map(Cell::get));
            }
            services.push((service, dests));
        }
        let cached = self.cached_dests();
        let listed: HashSet<DestId> = services.iter().flat_map(|(_, list)| list).copied().collect();
        let mut dests: StdHashMap<DestId, Dest> = StdHashMap::new();
        for id in 0..self.limits.dests {
            let Some(words) = load(&self.dests, id) else { break };
            let dest: Dest = transmute!(words);
            // A place that was never used has no family, and so have all after it.
            if dest.key.family == 0 {
                break;
            }
            if listed.contains(&id) || self.load_values(id).is_referenced() || cached.contains(&id)
            {
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

    /// The way that the host would send a packet to `addr`; nothing if it does not say.
    pub(super) fn way(&mut self, family: Family, addr: Addr) -> Option<FoundRoute> {
        if let Some(way) = self.ways.get(&(family, addr)) {
            return Some(*way);
        }
        let query = RouteQuery { family, destination: addr, source: Addr::UNSPECIFIED };
        match self.netlink.route(&query) {
            Ok(way) => {
                self.ways.insert((family, addr), way);
                Some(way)
            }
            Err(error) => {
                tracing::warn!(%error, ?query, "the host did not say the way");
                None
            }
        }
    }

    /// Has the host asked for every way anew.
    pub(super) fn forget_ways(&mut self) {
        self.ways.clear();
    }

    /// What asks the host.
    pub(super) fn netlink(&mut self) -> &mut Rtnetlink {
        &mut self.netlink
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

    fn array<T: FromBytes>(&mut self, name: &'static str) -> Result<Mapped<T>, StartError> {
        let map = self.map(name)?;
        let entries = entries(&map)?;
        Mapped::new(&map.fd(), entries).map_err(|error| self.other_version(name, &error))
    }

    fn typed<T>(&mut self, name: &str) -> Result<T, StartError>
    where
        T: TryFrom<aya::maps::Map, Error = MapError>,
    {
        let data = self.map(name)?;
        self.wrap(name, data)
    }
}

/// The record at this place.
fn load<const N: usize>(records: &Words<N>, place: u32) -> Option<[u64; N]> {
    records.get(place).map(|record| record.each_ref().map(Cell::get))
}

/// Writes a record, word by word, as an update of the map does.
fn store<const N: usize>(records: &Words<N>, place: u32, words: [u64; N]) -> Result<(), MapError> {
    let cells = records.get(place).ok_or_else(|| out_of_bounds(place))?;
    for (cell, word) in cells.iter().zip(words) {
        cell.set(word);
    }
    Ok(())
}

const fn out_of_bounds(index: u32) -> MapError {
    MapError::OutOfBounds { index, max_entries: index }
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
        self.members.get(place).ok_or_else(|| out_of_bounds(place))?.set(dest);
        Ok(())
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
        store(&self.dests, id, transmute!(*dest))
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
        load(&self.loads, id).map_or_else(LoadValues::default, |words| transmute!(words))
    }

    fn reset_load(&mut self, id: DestId) -> Result<(), MapError> {
        store(&self.loads, id, [0; _])
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
        if let (Some(first), Some(slow)) = (values.first_mut(), load(&self.slow_counters, id)) {
            let slow: Counters = transmute!(slow);
            *first = first.plus(slow);
        }
        values
    }

    fn reset_counters(&mut self, id: DestId) -> Result<(), MapError> {
        const ZERO: [u8; size_of::<Counters>()] = [0; _];
        if id >= self.untouched {
            self.untouched = id + 1;
            return Ok(());
        }
        let counted = self.counters.get(&id, 0)?;
        if counted.iter().any(|counted| *counted != ZERO) {
            let zeros = aya::maps::PerCpuValues::try_from(vec![ZERO; counted.len()]);
            self.counters.set(id, zeros.map_err(MapError::IoError)?, 0)?;
        }
        store(&self.slow_counters, id, [0; _])?;
        self.forget_hop(id)
    }

    fn forget_hop(&mut self, id: DestId) -> Result<(), MapError> {
        store(&self.hops, id, [0; _])
    }

    fn scheduler_memory(&mut self, service: u32) -> u64 {
        self.scheduler.get(service).map_or(0, Cell::get)
    }

    fn put_scheduler_memory(&mut self, service: u32, word: u64) -> Result<(), MapError> {
        self.scheduler.get(service).ok_or_else(|| out_of_bounds(service))?.set(word);
        Ok(())
    }

    fn account(&mut self, owner: Owner) -> Account {
        if let Some(account) = self.accounts.get(&owner) {
            return *account;
        }
        let octets = match owner {
            Owner::Service(id) => self.service_accounts.get(&id, 0),
            Owner::Dest(id) => self.dest_accounts.get(&id, 0),
            Owner::Total => self.total_account.get(&0, 0),
        };
        let account = octets.map_or_else(|_| Account::default(), |octets| transmute!(octets));
        self.accounts.insert(owner, account);
        account
    }

    fn put_account(&mut self, owner: Owner, account: &Account) -> Result<(), MapError> {
        let octets: [u8; size_of::<Account>()] = transmute!(*account);
        match owner {
            Owner::Service(id) => self.service_accounts.set(id, octets, 0),
            Owner::Dest(id) => self.dest_accounts.set(id, octets, 0),
            Owner::Total => self.total_account.set(0, octets, 0),
        }?;
        self.accounts.insert(owner, *account);
        Ok(())
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
        let used = self.used.get(0).map_or(0, Cell::get).min(self.limits.conns);
        for id in 0..used {
            if let Some(conn) = self.conns.get(id).filter(|conn| conn.has(ConnFlags::HASHED)) {
                each(id, conn);
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
        match self.way(family, addr) {
            Some(FoundRoute::Group) => None,
            Some(FoundRoute::Unicast { source: Some(source), .. }) => Some(source),
            _ => Some(Addr::UNSPECIFIED),
        }
    }

    fn look_ahead(&mut self, addrs: &[(Family, Addr)]) {
        let queries: Vec<RouteQuery> = addrs
            .iter()
            .map(|(family, addr)| RouteQuery {
                family: *family,
                destination: *addr,
                source: Addr::UNSPECIFIED,
            })
            .collect();
        // What is not known then is asked for alone, and what is wrong told.
        let Ok(found) = self.netlink.routes(&queries) else { return };
        let found = addrs.iter().copied().zip(found);
        self.ways.extend(found.filter_map(|(key, way)| Some((key, way.ok()?))));
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
