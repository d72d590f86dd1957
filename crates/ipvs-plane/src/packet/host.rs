//! The host as the plane's tables see it: its clock, routes, neighbours and
//! addresses.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::io;
use std::time::Duration;

use ipvs_core::addr::{Addr, Family};
use ipvs_core::hop::{self, Hop, RouteQuery, Way, WayKind};
use ipvs_core::time::Instant;
use ipvs_wire::ethernet::Mac;
use rustix::time::{ClockId, clock_gettime};

use crate::memory::Host;
use crate::rtnetlink::{Address, FoundRoute, Link, Neighbour, NeighbourState, Rtnetlink};
use crate::store::HostMemory;

/// Routes remembered at most.
const ROUTES: usize = 1 << 14;

/// A neighbour's key: interface and address.
pub(crate) type NeighbourKey = (u32, Family, Addr);

/// The host this process is on, in one network namespace.
#[derive(Debug)]
pub(crate) struct LinuxHost {
    netlink: RefCell<Rtnetlink>,
    links: HashMap<u32, Link>,
    addresses: Vec<Address>,
    own: HashSet<(Family, Addr)>,
    answers: RefCell<Answers>,
    /// Ways that are about to be asked for.
    ahead: RefCell<HashMap<(Family, Addr), FoundRoute>>,
    clock_offset: Cell<u64>,
}

/// What the host has said lately.
///
/// The core keeps a next hop for each destination and each connection; this
/// spares the questions for many connections of one client, and for packets
/// that wait for a neighbour.
#[derive(Debug, Default)]
struct Answers {
    /// Since when: answers are kept as long as the core keeps hops.
    epoch: u32,
    routes: HashMap<(Family, Addr, Addr), Way>,
    /// The neighbours that were asked for, with the answer.
    neighbours: HashMap<NeighbourKey, Option<Mac>>,
}

impl LinuxHost {
    /// The host of the calling thread's network namespace.
    pub(crate) fn open() -> io::Result<Self> {
        let mut host = Self {
            netlink: RefCell::new(Rtnetlink::open()?),
            links: HashMap::new(),
            addresses: Vec::new(),
            own: HashSet::new(),
            answers: RefCell::default(),
            ahead: RefCell::default(),
            clock_offset: Cell::new(0),
        };
        host.refresh()?;
        // No interface has this number: all that can be refused is the right to ask.
        match host.netlink.get_mut().use_neighbour(0, Family::V4, Addr::UNSPECIFIED) {
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => Err(error),
            _ => Ok(host),
        }
    }

    /// Asks for interfaces and addresses anew, and forgets routes.
    pub(crate) fn refresh(&mut self) -> io::Result<()> {
        let netlink = self.netlink.get_mut();
        self.links = netlink.links()?.into_iter().map(|link| (link.index, link)).collect();
        self.addresses = netlink.addresses()?;
        self.own = self.addresses.iter().map(|address| (address.family, address.addr)).collect();
        self.forget();
        Ok(())
    }

    /// Forgets what was asked for.
    pub(crate) fn forget(&self) {
        let mut answers = self.answers.borrow_mut();
        answers.routes.clear();
        answers.neighbours.clear();
    }

    /// The interfaces.
    pub(crate) fn links(&self) -> impl Iterator<Item = &Link> {
        self.links.values()
    }

    /// The interface with this index.
    pub(crate) fn link(&self, index: u32) -> Option<&Link> {
        self.links.get(&index)
    }

    /// The addresses of an interface.
    pub(crate) fn addresses_of(&self, index: u32) -> impl Iterator<Item = &Address> {
        self.addresses.iter().filter(move |address| address.index == index)
    }

    /// Whether the kernel itself has this address.
    pub(crate) fn owns(&self, family: Family, addr: Addr) -> bool {
        self.own.contains(&(family, addr))
    }

    /// Moves the clock.
    pub(crate) fn shift_clock(&self, by: Duration) {
        let by = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        self.clock_offset.set(self.clock_offset.get().saturating_add(by));
    }

    /// Has the kernel find out a neighbour's MAC address; returns it if it is
    /// known already.
    pub(crate) fn resolve(&self, key: NeighbourKey) -> io::Result<Option<Mac>> {
        let (ifindex, family, addr) = key;
        let mut netlink = self.netlink.borrow_mut();
        netlink.use_neighbour(ifindex, family, addr)?;
        // It may have become known since the question.
        Ok(netlink.neighbour(ifindex, family, addr)?.as_ref().and_then(Neighbour::usable))
    }

    /// Hears of a neighbour; returns whether something was said that no longer holds.
    pub(crate) fn heard_of(&self, neighbour: &Neighbour) -> bool {
        let key = (neighbour.ifindex, neighbour.family, neighbour.addr);
        let answers = self.answers.borrow();
        answers.neighbours.get(&key).is_some_and(|said| *said != neighbour.usable())
    }

    fn ask(&self, query: &RouteQuery) -> io::Result<Way> {
        let only = |kind| Way { kind, ..Way::default() };
        // The kernel has no way from an IPv4 address that is not its own.
        let source = if query.family == Family::V6 || self.owns(query.family, query.source) {
            query.source
        } else {
            Addr::UNSPECIFIED
        };
        let found = self.netlink.borrow_mut().route(&RouteQuery { source, ..*query })?;
        let (ifindex, gateway, mtu) = match found {
            FoundRoute::Unicast { ifindex, gateway, mtu, .. } => (ifindex, gateway, mtu),
            FoundRoute::Local => return Ok(only(WayKind::Host)),
            FoundRoute::Group | FoundRoute::Unreachable => return Ok(only(WayKind::None)),
        };
        let Some((link, own)) = self.links.get(&ifindex).and_then(|link| Some((link, link.mac?)))
        else {
            // Frames cannot leave by an interface that is no Ethernet.
            return Ok(only(WayKind::None));
        };
        let mtu = mtu.map_or(link.mtu, |mtu| mtu.min(link.mtu));
        let (next_family, next) = gateway.unwrap_or((query.family, query.destination));
        let (kind, neighbour) = match self.neighbour((ifindex, next_family, next))? {
            Some(neighbour) => (WayKind::Known, neighbour),
            None => (WayKind::Unresolved, Mac::default()),
        };
        Ok(Way { kind, hop: Hop { ifindex, mtu, neighbour, own }, next, next_family })
    }

    fn neighbour(&self, key: NeighbourKey) -> io::Result<Option<Mac>> {
        let (ifindex, family, addr) = key;
        let mut netlink = self.netlink.borrow_mut();
        let found = netlink.neighbour(ifindex, family, addr)?;
        if found.is_some_and(|neighbour| neighbour.state == NeighbourState::Stale) {
            // The kernel does not see our packets: tell it that the entry is in use.
            netlink.use_neighbour(ifindex, family, addr)?;
        }
        let mac = found.as_ref().and_then(Neighbour::usable);
        self.answers.borrow_mut().neighbours.insert(key, mac);
        Ok(mac)
    }
}

impl Host for LinuxHost {
    fn route(&self, query: &RouteQuery) -> Way {
        let epoch = hop::epoch(self.now(), 0);
        let key = (query.family, query.destination, query.source);
        {
            let mut answers = self.answers.borrow_mut();
            if answers.epoch != epoch || answers.routes.len() >= ROUTES {
                answers.epoch = epoch;
                answers.routes.clear();
            }
            if answers.neighbours.len() >= ROUTES {
                answers.neighbours.clear();
            }
            if let Some(way) = answers.routes.get(&key) {
                return *way;
            }
        }
        let way = self.ask(query).unwrap_or_else(|error| {
            tracing::warn!(%error, ?query, "the host did not say the way");
            Way::default()
        });
        self.answers.borrow_mut().routes.insert(key, way);
        way
    }

    fn source_towards(&self, family: Family, addr: Addr) -> Option<Addr> {
        let query = RouteQuery { family, destination: addr, source: Addr::UNSPECIFIED };
        let ahead = self.ahead.borrow_mut().remove(&(family, addr));
        match ahead.map_or_else(|| self.netlink.borrow_mut().route(&query), Ok) {
            Ok(FoundRoute::Group) => None,
            Ok(FoundRoute::Unicast { source: Some(source), .. }) => Some(source),
            _ => Some(Addr::UNSPECIFIED),
        }
    }

    fn look_ahead(&self, addrs: &[(Family, Addr)]) {
        let query = |(family, destination): &(Family, Addr)| RouteQuery {
            family: *family,
            destination: *destination,
            source: Addr::UNSPECIFIED,
        };
        let queries: Vec<RouteQuery> = addrs.iter().map(query).collect();
        let mut ahead = self.ahead.borrow_mut();
        ahead.clear();
        // What is not known then is asked for alone.
        let Ok(found) = self.netlink.borrow_mut().routes(&queries) else { return };
        let found = addrs.iter().copied().zip(found);
        ahead.extend(found.filter_map(|(key, way)| Some((key, way.ok()?))));
    }

    /// The kernel has no virtual address here: what clients on a link of ours
    /// ask for, the plane answers to.
    fn is_local(&self, query: &RouteQuery) -> bool {
        let way = self.route(query);
        let on_link = (way.next_family, way.next) == (query.family, query.destination);
        match way.kind {
            WayKind::Host => true,
            WayKind::Known | WayKind::Unresolved => on_link,
            WayKind::None => false,
        }
    }

    fn interface(&self, name: &str) -> Option<u32> {
        self.links.values().find(|link| link.name == name).map(|link| link.index)
    }

    fn mtu(&self, name: &str) -> Option<u32> {
        self.links.values().find(|link| link.name == name).map(|link| link.mtu)
    }

    fn memory(&self) -> HostMemory {
        HostMemory::of_this_host()
    }

    fn now(&self) -> Instant {
        let now = clock_gettime(ClockId::Monotonic);
        let nanos = u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000
            + u64::try_from(now.tv_nsec).unwrap_or(0);
        Instant::from_nanos(nanos + self.clock_offset.get())
    }
}
