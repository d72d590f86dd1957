//! What a plane measures, as plain values of one moment: what metrics are made of.

use ipvs_core::dest::DestKey;
use ipvs_core::name::Name;
use ipvs_core::service::ServiceKey;
use ipvs_core::stats::Counters;

use crate::store::LoadValues;

/// What a plane measures of its services and tables.
///
/// Counters are those of the last look at them, as in listings, but whatever the zero
/// point: `ipvsadm -Z` does not take them back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Measures {
    /// Its services, in no particular order.
    pub services: Vec<MeasuredService>,
    /// What all services have counted, those that were deleted included.
    pub total: Counters,
    /// The tables that may become full.
    pub tables: Vec<Table>,
    /// How often a daemon has taken over the plane since it was loaded.
    pub adoptions: u32,
}

/// A service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeasuredService {
    /// Its key.
    pub key: ServiceKey,
    /// Its scheduler.
    pub scheduler: Name,
    /// What its destinations have counted, those that were deleted included.
    pub counters: Counters,
    /// Its destinations, oldest first.
    pub dests: Vec<MeasuredDest>,
}

/// A destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MeasuredDest {
    /// Its key.
    pub key: DestKey,
    /// Its weight, 0 while it is drained.
    pub weight: i32,
    /// Whether it is drained.
    pub drains: bool,
    /// Its connections.
    pub load: LoadValues,
    /// What it has counted.
    pub counters: Counters,
}

/// How full a table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table {
    /// What it holds.
    pub name: &'static str,
    /// How many there are.
    pub entries: u64,
    /// How many there may be.
    pub capacity: u64,
}

/// What a plane measures of the ground that it stands on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ground {
    /// Which plane it is: `bpf` or `user`.
    pub plane: &'static str,
    /// The interfaces that it balances on.
    pub interfaces: Vec<Interface>,
    /// Programs in the kernel.
    pub programs: Vec<Program>,
    /// Maps in the kernel, and the octets of memory that each takes.
    pub maps: Vec<(&'static str, u64)>,
    /// Neighbours that destinations are reached by: those that are kept resolved, and
    /// those that are resolved once they are needed.
    pub neighbours: Option<[u64; 2]>,
}

impl Ground {
    /// Calls `each` with a line of words about what is taken of the kernel.
    pub fn describe(&self, each: &mut dyn FnMut(&str)) {
        if !self.maps.is_empty() {
            let octets: u64 = self.maps.iter().map(|(_, octets)| octets).sum();
            each(&format!("eBPF maps: {} MiB of the kernel's memory", octets >> 20));
        }
        for Program { name, tag, .. } in &self.programs {
            each(&format!("eBPF program {name}: pinned, tag {tag}"));
        }
    }
}

/// An interface that packets come in by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// How: `xdp`, `tc`, `netfilter` or `user`.
    pub mode: &'static str,
    /// Why so.
    pub reason: String,
}

/// A program in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Its name.
    pub name: &'static str,
    /// The kernel's hash of its instructions.
    pub tag: String,
    /// Nanoseconds that it has run, of those runs that the kernel has measured.
    pub run_time_ns: u64,
    /// Runs that the kernel has measured.
    pub runs: u64,
}
