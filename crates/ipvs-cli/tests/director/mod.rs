//! A director with tables in memory, on a host that has no way to anywhere.

use ipvs_core::addr::{Addr, Family};
use ipvs_core::hop::{RouteQuery, Way};
use ipvs_core::time::Instant;
use ipvs_plane::memory::{Host, MemoryTables};
use ipvs_plane::registry::Registry;
use ipvs_plane::store::Limits;

/// The host: no packet comes, so nothing is asked of it.
#[derive(Debug)]
pub(crate) struct NoHost;

impl Host for NoHost {
    fn route(&self, _: &RouteQuery) -> Way {
        Way::default()
    }

    fn source_towards(&self, _: Family, addr: Addr) -> Option<Addr> {
        // The broadcast addresses of the networks that the transcripts were recorded in.
        let groups = [[10, 1, 0, 255], [192, 0, 2, 255]].map(Addr::v4);
        (!groups.contains(&addr)).then_some(Addr::UNSPECIFIED)
    }

    fn interface(&self, _: &str) -> Option<u32> {
        None
    }

    fn mtu(&self, name: &str) -> Option<u32> {
        match name {
            "c0" | "s0" => Some(1500),
            "lo" => Some(65536),
            _ => None,
        }
    }

    fn now(&self) -> Instant {
        Instant::default()
    }
}

/// A director with a connection table of the kernel's default size.
pub(crate) fn director() -> Registry<MemoryTables<NoHost>> {
    let limits = Limits {
        services: 1 << 10,
        dests: 1 << 10,
        members: 1 << 12,
        blocks: 1 << 8,
        cached: 1 << 8,
        conns: 1 << 12,
    };
    let tables = MemoryTables::new(NoHost, limits).expect("memory for the tables");
    Registry::new(tables).expect("tables in memory take everything")
}
