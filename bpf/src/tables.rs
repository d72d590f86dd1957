//! The core's tables, in maps.

use core::cell::Cell;
use core::ffi::c_void;

use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST};
use aya_ebpf::helpers::generated::bpf_map_update_elem;
use ipvs_core::addr::AddrKey;
use ipvs_core::conn::{Conn, ConnId, Found, NONE, Tuple};
use ipvs_core::defence::Defence;
use ipvs_core::dest::{Dest, DestId, Load};
use ipvs_core::engine::{Caller, CallerKey, Data};
use ipvs_core::hop::{CachedHop, PathMtu, RouteQuery, Way, WayKind};
use ipvs_core::mark::MarkRule;
use ipvs_core::near::Bucket;
use ipvs_core::sched::cache::{Cache, CacheKey, Cached};
use ipvs_core::sched::table::BLOCK;
use ipvs_core::service::{Service, ServiceKey};
use ipvs_core::settings::Settings;
use ipvs_core::stats::LiveCounters;
use ipvs_core::tables::{Linked, Tables};
use ipvs_core::verdict::Reason;

use crate::{fib, kernel, maps};

/// A new entry of a cache.
static EMPTY: [u64; size_of::<Cached>() / 8] = [0; size_of::<Cached>() / 8];

/// The maps, with the context that route lookups need. `RESOLVES` is true for
/// TC, which can leave a neighbour to the kernel.
pub(crate) struct Maps<const RESOLVES: bool> {
    pub(crate) ctx: *mut c_void,
    pub(crate) ifindex: u32,
    pub(crate) settings: &'static Settings,
}

/// The settings' element, which every program needs first.
#[inline(always)]
pub(crate) fn settings() -> Option<&'static Settings> {
    maps::IPVS_SETTINGS.get(0)
}

impl<const RESOLVES: bool> Tables for Maps<RESOLVES> {
    const RESOLVES: bool = RESOLVES;
    const CUTS: bool = false;
    const HELPS: bool = false;
    const STAGES_APART: bool = true;

    #[inline(always)]
    fn settings(&self) -> &Settings {
        self.settings
    }

    #[inline(always)]
    fn service(&self, key: &ServiceKey) -> Option<&Service> {
        // SAFETY: an element that is replaced stays readable until the program ends.
        unsafe { maps::IPVS_SERVICES.get(key) }
    }

    #[inline(always)]
    fn mark_rule(&self, place: u32) -> Option<&MarkRule> {
        maps::IPVS_MARKS.get(place)
    }

    #[inline(always)]
    fn scheduler_word(&self, service: u32) -> Option<&Cell<u64>> {
        maps::IPVS_SCHED.get(service).map(|word| &word.0)
    }

    #[inline(always)]
    fn member(&self, place: u32) -> Option<DestId> {
        maps::IPVS_MEMBERS.get(place).copied()
    }

    #[inline(always)]
    fn slot(&self, block: u32, slot: u32) -> Option<DestId> {
        let block = block.wrapping_add(slot / BLOCK);
        // SAFETY: an element that is replaced stays readable until the program ends.
        let slots = unsafe { maps::IPVS_SLOTS.get(&block) }?;
        slots.get((slot % BLOCK) as usize).copied().filter(|id| *id != NONE)
    }

    #[inline(always)]
    fn cache(&self, place: u32) -> Option<&Cache> {
        maps::IPVS_CACHES.get(place).map(|cache| &cache.0)
    }

    #[inline(always)]
    fn cached(&self, key: &CacheKey) -> Option<&Cached> {
        // SAFETY: an element that is removed stays readable until the program ends.
        unsafe { maps::IPVS_CACHED.get(key) }.map(|entry| &entry.0)
    }

    #[inline(always)]
    fn make_cached(&self, key: &CacheKey) -> bool {
        let map = (&raw const maps::IPVS_CACHED).cast_mut().cast::<c_void>();
        let empty = (&raw const EMPTY).cast_mut().cast::<c_void>();
        let key = core::ptr::from_ref(key).cast_mut().cast::<c_void>();
        // SAFETY: key and value have the sizes of the map, and are read only.
        unsafe { bpf_map_update_elem(map, key, empty, u64::from(BPF_NOEXIST)) == 0 }
    }

    #[inline(always)]
    fn forget_cached(&self, key: &CacheKey) -> bool {
        maps::IPVS_CACHED.remove(key).is_ok()
    }

    #[inline(always)]
    fn each_cached<F: FnMut(&CacheKey, &Cached) -> bool>(&self, step: F) {
        kernel::each((&raw const maps::IPVS_CACHED).cast_mut().cast(), step);
    }

    #[inline(always)]
    fn dest(&self, id: DestId) -> Option<&Dest> {
        maps::IPVS_DESTS.get(id)
    }

    #[inline(always)]
    fn defence(&self) -> Option<&Defence> {
        maps::IPVS_DEFENCE.get(0).map(|defence| &defence.0)
    }

    #[inline(always)]
    fn load(&self, id: DestId) -> Option<&Load> {
        maps::IPVS_LOADS.get(id).map(|load| &load.0)
    }

    #[inline(always)]
    fn counters(&self, id: DestId) -> Option<&LiveCounters> {
        maps::IPVS_COUNTERS.get(id).map(|counters| &counters.0)
    }

    #[inline(always)]
    fn dest_hop(&self, id: DestId) -> Option<&CachedHop> {
        maps::IPVS_HOPS.get(id).map(|hop| &hop.0)
    }

    #[inline(always)]
    fn addr_use(&self, key: &AddrKey) -> u32 {
        // SAFETY: the word is copied at once; an element is never changed in place.
        unsafe { maps::IPVS_ADDRS.get(key) }.copied().unwrap_or(0)
    }

    #[inline(always)]
    fn path_mtu(&self, key: &AddrKey) -> Option<PathMtu> {
        // SAFETY: the record is copied at once; at worst it is one that was just replaced.
        unsafe { maps::IPVS_PATH_MTUS.get(key) }.copied()
    }

    #[inline(always)]
    fn learn_mtu(&self, key: &AddrKey, mtu: &PathMtu) {
        // Without room the next error says it again.
        let _kept = maps::IPVS_PATH_MTUS.insert(key, mtu, u64::from(BPF_ANY));
    }

    #[inline(always)]
    fn route(&self, query: &RouteQuery, way: &mut Way) {
        fib::route(self.ctx, self.ifindex, query, way);
    }

    #[inline(always)]
    fn is_local(&self, query: &RouteQuery, way: &mut Way) -> bool {
        self.route(query, way);
        // What is led to the host's door is balanced behind the host's firewall.
        way.kind == WayKind::Host
            || (way.hop.ifindex == self.settings.door && way.kind != WayKind::None)
    }

    #[inline(always)]
    fn near(&self, hash: u32) -> Option<&Bucket> {
        let bucket = (u64::from(hash) * u64::from(maps::near_buckets())) >> 32;
        maps::IPVS_NEAR.get(bucket as u32).map(|bucket| &bucket.0)
    }

    #[inline(always)]
    fn find(&self, tuple: &Tuple) -> Option<Found> {
        // SAFETY: the word is copied at once; an element is never changed in place.
        let word = unsafe { maps::IPVS_INDEX.get(tuple) };
        word.map(|word| Found::from_word(*word))
    }

    #[inline(always)]
    fn link(&self, tuple: &Tuple, to: Found) -> Linked {
        if maps::IPVS_INDEX.insert(tuple, to.word(), u64::from(BPF_NOEXIST)).is_ok() {
            return Linked::New;
        }
        match self.find(tuple) {
            Some(found) => Linked::Taken(found),
            None => Linked::Full,
        }
    }

    #[inline(always)]
    fn relink(&self, tuple: &Tuple, to: Found) -> bool {
        maps::IPVS_INDEX.insert(tuple, to.word(), u64::from(BPF_ANY)).is_ok()
    }

    #[inline(always)]
    fn unlink(&self, tuple: &Tuple) {
        // Gone already is as good as removed.
        let _gone = maps::IPVS_INDEX.remove(tuple);
    }

    #[inline(always)]
    fn conn(&self, id: ConnId) -> Option<&Conn> {
        maps::IPVS_CONNS.get(id).map(|conn| &conn.0)
    }

    #[inline(always)]
    fn allocate(&self) -> Option<ConnId> {
        if let Ok(Some(id)) = maps::IPVS_FREE.pop() {
            return Some(id);
        }
        let used = &maps::IPVS_USED.get(0)?.0;
        maps::IPVS_CONNS.get(used.get())?;
        let id = kernel::add(used, 1).wrapping_sub(1);
        // Several CPUs may have met the last place.
        maps::IPVS_CONNS.get(id).map(|_| id)
    }

    #[inline(always)]
    fn release(&self, id: ConnId) {
        // The queue has room for every place there is.
        let _pushed = maps::IPVS_FREE.push(id, 0);
    }

    #[inline(always)]
    fn engine_data_is(&self, id: ConnId, data: &Data) -> bool {
        // SAFETY: an element is never changed in place.
        unsafe { maps::IPVS_ENGINE_DATA.get(&id) }.is_some_and(|kept| kept.is(data))
    }

    #[inline(always)]
    fn put_engine_data(&self, id: ConnId, data: &Data) -> bool {
        maps::IPVS_ENGINE_DATA.insert(&id, data, u64::from(BPF_ANY)).is_ok()
    }

    #[inline(always)]
    fn forget_engine_data(&self, id: ConnId) {
        // Gone already is as good as removed.
        let _gone = maps::IPVS_ENGINE_DATA.remove(&id);
    }

    #[inline(always)]
    fn caller(&self, key: &CallerKey) -> Option<&Caller> {
        // SAFETY: an element that is replaced stays readable until the program ends.
        unsafe { maps::IPVS_CALLERS.get(key) }
    }

    #[inline(always)]
    fn expected(&self) -> Option<&Cell<u32>> {
        maps::IPVS_EXPECTED.get(0).map(|expected| &expected.0)
    }

    #[inline(always)]
    fn add(&self, cell: &Cell<u32>, delta: u32) -> u32 {
        kernel::add(cell, delta)
    }

    #[inline(always)]
    fn replace(&self, cell: &Cell<u32>, old: u32, new: u32) -> bool {
        kernel::replace(cell, old, new)
    }

    #[inline(always)]
    fn replace64(&self, cell: &Cell<u64>, old: u64, new: u64) -> bool {
        kernel::replace64(cell, old, new)
    }

    #[inline(always)]
    fn repeat<F: FnMut(u32) -> bool>(&self, count: u32, step: F) {
        kernel::repeat(count, step);
    }

    #[inline(always)]
    fn count(&self, reason: Reason) {
        if let Some(count) = maps::IPVS_REASONS.get_ptr_mut(reason as u32) {
            // SAFETY: the element is this CPU's own.
            unsafe { *count = (*count).wrapping_add(1) };
        }
    }
}
