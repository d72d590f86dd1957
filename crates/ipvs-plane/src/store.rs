//! Where the control side writes its records: the tables of a plane, seen
//! from the side that configures it.

use std::collections::HashSet;

use ipvs_core::addr::{Addr, AddrKey, Family};
use ipvs_core::conn::{Conn, ConnId};
use ipvs_core::dest::{Dest, DestId};
use ipvs_core::engine::{Caller, CallerKey, Data};
use ipvs_core::mark::MarkRule;
use ipvs_core::sched::table::BLOCK;
use ipvs_core::service::{SchedulerKind, Service, ServiceKey};
use ipvs_core::settings::Settings;
use ipvs_core::stats::Counters;
use ipvs_core::time::Instant;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Services that may have a cache, at most.
const MOST_CACHES: u32 = 1 << 12;

/// How many entries the tables of a plane hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Virtual services.
    pub services: u32,
    /// Destinations, those in the trash included.
    pub dests: u32,
    /// Places of all services' destination lists together.
    pub members: u32,
    /// Blocks of all hash tables of schedulers together, 256 slots each: dh and sh
    /// take one a service, mh 16. Only those in use take memory.
    pub blocks: u32,
    /// Addresses that all services with lblc or lblcr together remember; of the
    /// eBPF plane only those that are take memory.
    pub cached: u32,
    /// Connections and templates.
    pub conns: u32,
}

impl Limits {
    /// Services with lblc or lblcr.
    pub(crate) const fn caches(&self) -> u32 {
        if self.services < MOST_CACHES { self.services } else { MOST_CACHES }
    }

    /// Buckets of the memory in front of the index: there is room for two connections in each.
    pub(crate) const fn near_buckets(&self) -> u32 {
        self.conns
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            services: 1 << 14,
            dests: 1 << 17,
            members: 1 << 18,
            blocks: 1 << 16,
            cached: 1 << 16,
            conns: 1 << 20,
        }
    }
}

/// Load of a destination as plain numbers.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct LoadValues {
    /// Connections counted active.
    pub active: u32,
    /// Connections counted inactive.
    pub inactive: u32,
    /// Templates.
    pub persistent: u32,
    /// 1 when overloaded.
    pub overloaded: u32,
}

impl LoadValues {
    /// Whether a connection or template still points at the destination.
    pub const fn is_referenced(&self) -> bool {
        self.active != 0 || self.inactive != 0 || self.persistent != 0
    }
}

/// Book-keeping of a service or destination that must outlive the daemon.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Account {
    /// What destinations that left the service had counted.
    pub base: Counters,
    /// The zero point.
    pub zero: Counters,
    /// A destination's last weight that was not zero, or the weight it was added with.
    pub last_weight: u32,
    /// Of all services: how often a daemon has taken over the tables.
    pub adoptions: u32,
    /// How a destination is drained, if it is.
    pub drain: Draining,
}

/// A drain of a destination, in times of the plane's clock.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Draining {
    /// When it began, in nanoseconds.
    pub since: u64,
    /// When it is over, in nanoseconds; the largest number for never.
    pub until: u64,
    /// What becomes of connections that are left then, the number of an
    /// [`AtDeadline`](ipvs_core::drain::AtDeadline).
    pub then: u32,
    /// How many connections there were when it began.
    pub began_with: u32,
    /// The weight that the destination has once it is drained no more.
    pub weight: i32,
    /// Nothing.
    pub reserved: u32,
}

/// Whose account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Owner {
    /// The service at this place.
    Service(u32),
    /// A destination.
    Dest(DestId),
    /// All services together.
    Total,
}

/// Memory of the host, in pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostMemory {
    /// All of it.
    pub total: u64,
    /// What is free or holds buffers.
    pub free: u64,
}

impl HostMemory {
    /// A host with more than any threshold asks for; for tables without a host.
    pub const PLENTY: Self = Self { total: 1 << 18, free: 1 << 18 };

    /// That of this host.
    pub fn of_this_host() -> Self {
        let found = rustix::system::sysinfo();
        let page = rustix::param::page_size() as u64;
        let pages = |units: u64| units.saturating_mul(u64::from(found.mem_unit)) / page;
        Self { total: pages(found.totalram), free: pages(found.freeram + found.bufferram) }
    }
}

/// The tables of a plane as the control side writes and reads them.
///
/// A write either happens as a whole or not at all, as a packet sees it.
pub trait Store {
    /// Why a table could not be written.
    type Error: core::fmt::Display + core::fmt::Debug;

    /// Capacities.
    fn limits(&self) -> Limits;
    /// Memory of the host.
    fn memory(&mut self) -> HostMemory;
    /// The clock that packets are stamped with.
    fn now(&mut self) -> Instant;
    /// Replaces the settings.
    fn put_settings(&mut self, settings: &Settings) -> Result<(), Self::Error>;
    /// Adds or replaces a service.
    fn put_service(&mut self, service: &Service) -> Result<(), Self::Error>;
    /// Removes a service.
    fn remove_service(&mut self, key: &ServiceKey) -> Result<(), Self::Error>;
    /// Sets one place of the mark rules.
    fn put_mark_rule(&mut self, place: u32, rule: &MarkRule) -> Result<(), Self::Error>;
    /// The mark rule at this place, if one was ever there.
    fn mark_rule_at(&mut self, place: u32) -> Option<MarkRule>;
    /// Sets one place of the member lists.
    fn put_member(&mut self, place: u32, dest: DestId) -> Result<(), Self::Error>;
    /// Makes the cache at this place an empty one of this scheduler.
    fn open_cache(&mut self, place: u32, scheduler: SchedulerKind) -> Result<(), Self::Error>;
    /// Empties a cache that is nobody's any more.
    fn close_cache(&mut self, place: u32) -> Result<(), Self::Error>;
    /// The places of open caches.
    fn open_caches(&mut self) -> Vec<u32>;
    /// The destinations that caches name.
    fn cached_dests(&mut self) -> HashSet<DestId>;
    /// Sets one block of the schedulers' hash tables.
    fn put_block(
        &mut self,
        block: u32,
        slots: &[DestId; BLOCK as usize],
    ) -> Result<(), Self::Error>;
    /// Removes a block that no packet looks into.
    fn remove_block(&mut self, block: u32) -> Result<(), Self::Error>;
    /// The blocks that are there, in no particular order.
    fn blocks(&mut self) -> Vec<u32>;
    /// Sets a destination.
    fn put_dest(&mut self, id: DestId, dest: &Dest) -> Result<(), Self::Error>;
    /// Says what an address is used for: bits of
    /// [`AddrUse`](ipvs_core::addr::AddrUse), none if it is not any more.
    fn put_addr_use(&mut self, key: &AddrKey, uses: u32) -> Result<(), Self::Error>;
    /// Load of a destination.
    fn load_values(&mut self, id: DestId) -> LoadValues;
    /// Sets the load of a destination that no packet can reach.
    fn reset_load(&mut self, id: DestId) -> Result<(), Self::Error>;
    /// Sets or clears the overload mark.
    fn set_overloaded(&mut self, id: DestId, overloaded: bool) -> Result<(), Self::Error>;
    /// Counters of a destination, all CPUs together.
    fn counter_values(&mut self, id: DestId) -> Counters;
    /// The same by CPU.
    fn cpu_counter_values(&mut self, id: DestId) -> Vec<Counters>;
    /// Clears the counters and the next hop of a destination that no packet can reach.
    fn reset_counters(&mut self, id: DestId) -> Result<(), Self::Error>;
    /// Forgets the next hop towards a destination.
    fn forget_hop(&mut self, id: DestId) -> Result<(), Self::Error>;
    /// A scheduler's memory.
    fn scheduler_memory(&mut self, service: u32) -> u64;
    /// Sets a scheduler's memory.
    fn put_scheduler_memory(&mut self, service: u32, word: u64) -> Result<(), Self::Error>;
    /// An account.
    fn account(&mut self, owner: Owner) -> Account;
    /// Sets an account.
    fn put_account(&mut self, owner: Owner, account: &Account) -> Result<(), Self::Error>;
    /// Says, or says no more, which destination sends from an address and port
    /// by itself.
    fn put_caller(&mut self, key: &CallerKey, caller: Option<&Caller>) -> Result<(), Self::Error>;
    /// The engine data of a template.
    fn engine_data(&mut self, id: ConnId) -> Option<Data>;
    /// Calls `each` for every connection that is in the table.
    fn each_conn(&mut self, each: &mut dyn FnMut(ConnId, &Conn));
    /// Ends a connection now, or a minute later if others hang on it.
    fn end(&mut self, id: ConnId) -> Result<(), Self::Error>;
    /// Ends now what is due, instead of at the next turn of the sweep.
    fn sweep(&mut self);
    /// The host's address towards `addr`: source of a tunnel's outer header, unspecified if
    /// there is no way; `None` if `addr` is one of a group, a network's broadcast.
    fn source_towards(&mut self, family: Family, addr: Addr) -> Option<Addr>;
    /// Asks at once what [`source_towards`](Self::source_towards) is about to be asked for;
    /// an empty list ends that.
    fn look_ahead(&mut self, addrs: &[(Family, Addr)]) {
        let _ = addrs;
    }
    /// The number of the interface of this name.
    fn interface(&mut self, name: &str) -> Option<u32>;
    /// The MTU of the interface of this name.
    fn mtu(&mut self, name: &str) -> Option<u32>;
}
