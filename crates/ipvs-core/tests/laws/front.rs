//! A plane that only sends, in front of one that does all: what XDP is to TC.

use std::cell::Cell;

use ipvs_core::addr::AddrKey;
use ipvs_core::conn::{Conn, ConnId, Found, Tuple};
use ipvs_core::defence::Defence;
use ipvs_core::dest::{Dest, DestId, Load};
use ipvs_core::engine::{Caller, CallerKey, Data};
use ipvs_core::hop::{CachedHop, PathMtu, RouteQuery, Way};
use ipvs_core::mark::MarkRule;
use ipvs_core::near::Bucket;
use ipvs_core::sched::cache::{Cache, CacheKey, Cached};
use ipvs_core::service::{Service, ServiceKey};
use ipvs_core::settings::Settings;
use ipvs_core::stats::LiveCounters;
use ipvs_core::tables::{Linked, Tables};
use ipvs_core::verdict::Reason;
use ipvs_plane::memory::MemoryTables;

use crate::world::Host;

/// The same tables.
pub(crate) struct Front<'a>(pub(crate) &'a MemoryTables<Host>);

macro_rules! the_same {
    ($($name:ident($($arg:ident: $kind:ty),*) -> $answer:ty;)+) => {
        $(fn $name(&self, $($arg: $kind),*) -> $answer { self.0.$name($($arg),*) })+
    };
}

impl Tables for Front<'_> {
    const RESOLVES: bool = false;
    const CUTS: bool = false;
    const HELPS: bool = false;
    const STAGES_APART: bool = false;

    the_same! {
        settings() -> &Settings;
        service(key: &ServiceKey) -> Option<&Service>;
        mark_rule(place: u32) -> Option<&MarkRule>;
        scheduler_word(service: u32) -> Option<&Cell<u64>>;
        member(place: u32) -> Option<DestId>;
        slot(block: u32, slot: u32) -> Option<DestId>;
        cache(place: u32) -> Option<&Cache>;
        cached(key: &CacheKey) -> Option<&Cached>;
        make_cached(key: &CacheKey) -> bool;
        forget_cached(key: &CacheKey) -> bool;
        dest(id: DestId) -> Option<&Dest>;
        defence() -> Option<&Defence>;
        load(id: DestId) -> Option<&Load>;
        counters(id: DestId) -> Option<&LiveCounters>;
        dest_hop(id: DestId) -> Option<&CachedHop>;
        addr_use(key: &AddrKey) -> u32;
        path_mtu(key: &AddrKey) -> Option<PathMtu>;
        learn_mtu(key: &AddrKey, mtu: &PathMtu) -> ();
        route(query: &RouteQuery, way: &mut Way) -> ();
        near(hash: u32) -> Option<&Bucket>;
        find(tuple: &Tuple) -> Option<Found>;
        link(tuple: &Tuple, to: Found) -> Linked;
        relink(tuple: &Tuple, to: Found) -> bool;
        unlink(tuple: &Tuple) -> ();
        conn(id: ConnId) -> Option<&Conn>;
        allocate() -> Option<ConnId>;
        release(id: ConnId) -> ();
        engine_data_is(id: ConnId, data: &Data) -> bool;
        put_engine_data(id: ConnId, data: &Data) -> bool;
        forget_engine_data(id: ConnId) -> ();
        caller(key: &CallerKey) -> Option<&Caller>;
        expected() -> Option<&Cell<u32>>;
        add(cell: &Cell<u32>, delta: u32) -> u32;
        replace(cell: &Cell<u32>, old: u32, new: u32) -> bool;
        replace64(cell: &Cell<u64>, old: u64, new: u64) -> bool;
        count(reason: Reason) -> ();
    }

    fn each_cached<F: FnMut(&CacheKey, &Cached) -> bool>(&self, step: F) {
        self.0.each_cached(step);
    }

    fn repeat<F: FnMut(u32) -> bool>(&self, count: u32, step: F) {
        self.0.repeat(count, step);
    }
}
