//! What the core asks of a plane: tables, atomic steps, routes.

use core::cell::Cell;

use crate::addr::AddrKey;
use crate::conn::{Conn, ConnId, Found, Tuple};
use crate::defence::Defence;
use crate::dest::{Dest, DestId, Load};
use crate::engine::{Caller, CallerKey, Data};
use crate::hop::{CachedHop, PathMtu, RouteQuery, Way, WayKind};
use crate::mark::MarkRule;
use crate::near::Bucket;
use crate::sched::cache::{Cache, CacheKey, Cached};
use crate::service::{Service, ServiceKey};
use crate::settings::Settings;
use crate::stats::LiveCounters;
use crate::verdict::Reason;

/// What happened when a tuple was to be linked to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Linked {
    /// It is linked.
    New,
    /// Another CPU was first: it leads there.
    Taken(Found),
    /// The table is full.
    Full,
}

/// The tables of a data plane. Methods take `&self` because packets on
/// several CPUs work on them at once.
pub trait Tables {
    /// Whether the plane can do whatever there is to do with a packet of a connection:
    /// send it to a neighbour whose MAC address is not known yet, hand the host one of
    /// its own, tell its sender that it cannot go on. One that cannot only sends, and
    /// passes all else, unchanged and not counted, to a plane that can.
    const RESOLVES: bool;

    /// Whether the plane cuts what is longer than the path into fragments as
    /// it sends it. One that cannot leaves that to the host where it can, and
    /// has the rest [deferred](crate::verdict::Verdict::Defer).
    const CUTS: bool;

    /// Whether the plane can change the length of a packet, as a
    /// [helper](crate::helper) does. One that cannot has packets of helped
    /// connections [deferred](crate::verdict::Verdict::Defer).
    const HELPS: bool;

    /// Whether the plane leads packets on stage by stage, by
    /// [`director::go_on`](crate::director::go_on): an eBPF program has room
    /// and time for so much only.
    const STAGES_APART: bool;

    /// Settings.
    fn settings(&self) -> &Settings;
    /// The service with this key.
    fn service(&self, key: &ServiceKey) -> Option<&Service>;
    /// The mark rule at this place.
    fn mark_rule(&self, place: u32) -> Option<&MarkRule>;
    /// The scheduler's memory of the service at this place.
    fn scheduler_word(&self, service: u32) -> Option<&Cell<u64>>;
    /// The destination at this place of the member lists.
    fn member(&self, place: u32) -> Option<DestId>;
    /// The destination in `slot` of the hash table that begins with `block`; none
    /// if nobody has the slot, or there is no such table.
    fn slot(&self, block: u32, slot: u32) -> Option<DestId>;
    /// The cache of lblc and lblcr at this place.
    fn cache(&self, place: u32) -> Option<&Cache>;
    /// The entry of a cache.
    fn cached(&self, key: &CacheKey) -> Option<&Cached>;
    /// Makes an empty entry; returns whether it did: there was none, and room for it.
    fn make_cached(&self, key: &CacheKey) -> bool;
    /// Removes an entry; returns whether it was there.
    fn forget_cached(&self, key: &CacheKey) -> bool;
    /// Calls `step` for every entry of all caches, in any order, until it returns
    /// false. It may remove the entry.
    fn each_cached<F: FnMut(&CacheKey, &Cached) -> bool>(&self, step: F);
    /// A destination.
    fn dest(&self, id: DestId) -> Option<&Dest>;
    /// What defence against floods remembers.
    fn defence(&self) -> Option<&Defence>;
    /// A destination's load.
    fn load(&self, id: DestId) -> Option<&Load>;
    /// A destination's counters, those of this CPU if there are several.
    fn counters(&self, id: DestId) -> Option<&LiveCounters>;
    /// The next hop towards a destination.
    fn dest_hop(&self, id: DestId) -> Option<&CachedHop>;
    /// What an address is used for: bits of [`AddrUse`](crate::addr::AddrUse).
    fn addr_use(&self, key: &AddrKey) -> u32;
    /// What was learnt of the path to an address.
    fn path_mtu(&self, key: &AddrKey) -> Option<PathMtu>;
    /// Keeps what was learnt of the path to an address; the oldest may make room for it.
    fn learn_mtu(&self, key: &AddrKey, mtu: &PathMtu);
    /// Asks the host's routing table; fills in `way`.
    fn route(&self, query: &RouteQuery, way: &mut Way);
    /// Whether the destination in `query` is an address of the host, or is
    /// reached by clients as if it were; `way` is room to find out.
    fn is_local(&self, query: &RouteQuery, way: &mut Way) -> bool {
        self.route(query, way);
        way.kind == WayKind::Host
    }

    /// Milliseconds since midnight UT (RFC 791), for a plane that
    /// [cuts](Self::CUTS) and so takes packets with IPv4 options; 0 where none are taken.
    fn time_of_day(&self) -> u32 {
        0
    }

    /// The bucket of the [nearer memory](crate::near) for tuples whose hash
    /// begins with `hash`, if there is such a memory.
    fn near(&self, hash: u32) -> Option<&Bucket>;
    /// What `tuple` leads to.
    fn find(&self, tuple: &Tuple) -> Option<Found>;
    /// Links `tuple` unless something else is linked to it.
    fn link(&self, tuple: &Tuple, to: Found) -> Linked;
    /// Links `tuple` whatever was linked to it; returns whether there was room.
    fn relink(&self, tuple: &Tuple, to: Found) -> bool;
    /// Unlinks `tuple`.
    fn unlink(&self, tuple: &Tuple);
    /// A connection.
    fn conn(&self, id: ConnId) -> Option<&Conn>;
    /// Takes a free place for a connection.
    fn allocate(&self) -> Option<ConnId>;
    /// Gives a place back.
    fn release(&self, id: ConnId);

    /// Whether the template at this place has the same engine data.
    fn engine_data_is(&self, id: ConnId, data: &Data) -> bool;
    /// Keeps engine data for the template at this place; returns whether there
    /// was room.
    fn put_engine_data(&self, id: ConnId, data: &Data) -> bool;
    /// Forgets the engine data of the template at this place.
    fn forget_engine_data(&self, id: ConnId);
    /// The destination that sends from this address and port by itself.
    fn caller(&self, key: &CallerKey) -> Option<&Caller>;

    /// How many connections wait for their first packet to say the client's port.
    fn expected(&self) -> Option<&Cell<u32>>;

    /// Adds to a shared cell and returns the value after it, wrapping.
    fn add(&self, cell: &Cell<u32>, delta: u32) -> u32;
    /// Replaces `old` by `new` in a shared cell if it still holds `old`.
    fn replace(&self, cell: &Cell<u32>, old: u32, new: u32) -> bool;
    /// The same for a cell of 64 bits.
    fn replace64(&self, cell: &Cell<u64>, old: u64, new: u64) -> bool;
    /// Calls `step` with 0, 1, … until it returns false or `count` is reached.
    fn repeat<F: FnMut(u32) -> bool>(&self, count: u32, step: F);
    /// Counts one packet under `reason`.
    fn count(&self, reason: Reason);
}
