//! A director over tables in memory, on a host that is a few rules.

use std::cell::Cell;
use std::net::IpAddr;

use ipvs_core::addr::{Addr, Family};
use ipvs_core::command::Command;
use ipvs_core::conn::{Conn, ConnFlags, ConnId};
use ipvs_core::dest::{DestId, DestKey, DestSpec, ForwardingMethod};
use ipvs_core::director::{self, Arrival, Scratch};
use ipvs_core::hop::{Hop, RouteQuery, Way, WayKind};
use ipvs_core::name::Name;
use ipvs_core::service::{ServiceKey, ServiceSpec};
use ipvs_core::tables::Tables as _;
use ipvs_core::time::Instant;
use ipvs_core::verdict::Verdict;
use ipvs_plane::frame::Frame;
use ipvs_plane::memory::{self, MemoryTables};
use ipvs_plane::registry::Registry;
use ipvs_plane::store::{Limits, Store as _};

use crate::front::Front;

/// The interface towards clients.
pub(crate) const OUTSIDE: u32 = 2;
/// The interface towards servers.
pub(crate) const INSIDE: u32 = 3;

/// The host: `10.1.0.0/16` and `fd01::/16` are servers inside, `192.0.2.10` to
/// `.19` and `2001:db8::10` to `::19` its own, all else outside.
#[derive(Debug, Default)]
pub(crate) struct Host {
    pub(crate) nanos: Cell<u64>,
    /// Servers are on the same interface as clients.
    pub(crate) one_arm: bool,
    /// The MAC addresses of some, others each second, are still to be found out, and to
    /// some there is no way.
    pub(crate) is_shy: bool,
}

impl Host {
    pub(crate) fn inside(&self) -> u32 {
        if self.one_arm { OUTSIDE } else { INSIDE }
    }
}

/// The MAC address of the neighbour with this address.
pub(crate) fn mac(address: IpAddr) -> [u8; 6] {
    let last = match address {
        IpAddr::V4(address) => address.octets()[3],
        IpAddr::V6(address) => address.octets()[15],
    };
    [2, 0, 0, 0, u8::from(is_server(address)), last]
}

/// The MAC address of the host's interface.
pub(crate) fn own_mac(ifindex: u32) -> [u8; 6] {
    [2, 1, 0, 0, 0, u8::try_from(ifindex).unwrap()]
}

pub(crate) fn is_server(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.octets()[..2] == [10, 1],
        IpAddr::V6(address) => address.octets()[..2] == [0xfd, 1],
    }
}

fn is_own(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            [a, b, c] == [192, 0, 2] && (10..20).contains(&d)
        }
        IpAddr::V6(address) => {
            let octets = address.octets();
            octets[..15] == [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
                && (0x10..0x1a).contains(&octets[15])
        }
    }
}

impl memory::Host for Host {
    fn route(&self, query: &RouteQuery) -> Way {
        let to = query.destination.to_ip(query.family);
        if is_own(to) {
            return Way { kind: WayKind::Host, ..Way::default() };
        }
        let ifindex = if is_server(to) { self.inside() } else { OUTSIDE };
        let hop = Hop { ifindex, mtu: 1500, neighbour: mac(to), own: own_mac(ifindex) };
        let second = self.nanos.get() / 1_000_000_000;
        let kind = match (second + u64::from(mac(to)[5])) % 8 {
            0..=2 if self.is_shy => WayKind::Unresolved,
            3 if self.is_shy => WayKind::None,
            _ => WayKind::Known,
        };
        Way { kind, hop, next: query.destination, next_family: query.family }
    }

    fn source_towards(&self, family: Family, _addr: Addr) -> Option<Addr> {
        Some(addr(own_source(family)))
    }

    fn interface(&self, _name: &str) -> Option<u32> {
        None
    }

    fn mtu(&self, _name: &str) -> Option<u32> {
        None
    }

    fn now(&self) -> Instant {
        Instant::from_nanos(self.nanos.get())
    }
}

/// The director's address towards servers.
pub(crate) fn own_source(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::from([10, 1, 0, 1]),
        Family::V6 => ip6(0xfd01, 1),
    }
}

pub(crate) fn ip6(first: u16, last: u16) -> IpAddr {
    IpAddr::from([first, 0, 0, 0, 0, 0, 0, last])
}

pub(crate) fn addr(ip: IpAddr) -> Addr {
    Addr::from_ip(ip).1
}

/// The virtual address with this number.
pub(crate) fn vip(v6: bool, number: u8) -> IpAddr {
    if v6 {
        IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10 + u16::from(number)])
    } else {
        IpAddr::from([192, 0, 2, 10 + number])
    }
}

/// The client with this number.
pub(crate) fn client(v6: bool, number: u8) -> IpAddr {
    if v6 { ip6(0x2620, u16::from(number)) } else { IpAddr::from([198, 51, 100, number]) }
}

/// The server with this number.
pub(crate) fn server(v6: bool, number: u8) -> IpAddr {
    if v6 { ip6(0xfd01, 0x100 + u16::from(number)) } else { IpAddr::from([10, 1, 0, number]) }
}

pub(crate) fn service_key(protocol: u8, ip: IpAddr, port: u16) -> ServiceKey {
    let (family, addr) = Addr::from_ip(ip);
    ServiceKey::address(family, protocol, addr, port)
}

pub(crate) fn service_spec(family: Family, scheduler: &str, flags: u32) -> ServiceSpec {
    ServiceSpec {
        scheduler: Name::from(scheduler),
        engine: Name::default(),
        flags,
        timeout: 360,
        netmask: match family {
            Family::V4 => [255; 4],
            Family::V6 => 128u32.to_ne_bytes(),
        },
    }
}

pub(crate) fn dest_key(ip: IpAddr, port: u16) -> DestKey {
    let (family, addr) = Addr::from_ip(ip);
    DestKey::new(family, addr, port)
}

pub(crate) fn dest_spec(method: ForwardingMethod, weight: i32) -> DestSpec {
    DestSpec { weight, method: method as u8, ..DestSpec::default() }
}

/// Room for a configuration twice, as one list of commands may replace it all;
/// not for all connections of a test.
pub(crate) const LIMITS: Limits =
    Limits { services: 16, dests: 120, members: 120, blocks: 512, cached: 64, conns: 48 };

/// A director with its configuration.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) registry: Registry<MemoryTables<Host>>,
    /// A plane that only sends sees packets first.
    pub(crate) front: bool,
    scratch: Scratch,
}

impl World {
    pub(crate) fn new(host: Host, limits: Limits) -> Self {
        let tables = MemoryTables::new(host, limits).unwrap();
        Self::over(Registry::new(tables).unwrap())
    }

    pub(crate) fn over(registry: Registry<MemoryTables<Host>>) -> Self {
        Self { registry, front: false, scratch: Scratch::default() }
    }

    pub(crate) fn with(commands: &[Command], host: Host) -> Self {
        let mut world = Self::new(host, LIMITS);
        world.registry.apply(commands).unwrap();
        world
    }

    pub(crate) fn tables(&self) -> &MemoryTables<Host> {
        self.registry.store()
    }

    pub(crate) fn now(&self) -> Instant {
        memory::Host::now(&self.tables().host)
    }

    pub(crate) fn pass_time(&self, millis: u64) {
        let nanos = &self.tables().host.nanos;
        nanos.set(nanos.get() + millis * 1_000_000);
    }

    /// Takes the frame through the director.
    pub(crate) fn handle(&mut self, frame: &mut Frame, ifindex: u32) -> Verdict {
        self.arrive(frame, Arrival::by(ifindex))
    }

    /// The same for a frame that comes in as `arrival` says.
    pub(crate) fn arrive(&mut self, frame: &mut Frame, arrival: Arrival) -> Verdict {
        let (now, tables) = (self.now(), self.registry.store());
        if self.front {
            let came = frame.octets().to_vec();
            match director::handle(frame, &Front(tables), &mut self.scratch, arrival, now) {
                Verdict::Pass(_) | Verdict::Defer(_) => assert_eq!(frame.octets(), came),
                verdict => return verdict,
            }
        }
        director::handle(frame, tables, &mut self.scratch, arrival, now)
    }

    /// The mark that the last packet leaves with.
    pub(crate) fn mark(&self) -> u32 {
        self.scratch.mark()
    }

    /// Every destination that has a place, listed or not.
    pub(crate) fn dest_ids(&self) -> impl Iterator<Item = DestId> {
        (0..LIMITS.dests).filter(|id| self.tables().dest(*id).is_some())
    }

    /// Calls `each` for every connection and template in the table.
    pub(crate) fn each_conn(&self, mut each: impl FnMut(ConnId, &Conn)) {
        for id in 0..LIMITS.conns {
            if let Some(conn) = self.tables().conn(id)
                && conn.has(ConnFlags::HASHED)
            {
                each(id, conn);
            }
        }
    }

    pub(crate) fn sweep(&mut self) {
        self.registry.store_mut().sweep();
    }
}
