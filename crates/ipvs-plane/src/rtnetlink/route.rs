//! Routes: which way the host would send a packet.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;

use ipvs_core::addr::{Addr, Family};
use ipvs_core::hop::RouteQuery;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteType, RouteVia,
};

use super::{Rtnetlink, address_family, is_no_family};

/// The table of routes that lead out of the host.
const MAIN_TABLE: u32 = 254;

/// Questions that are asked at once: the socket's buffer has room for their answers.
const AT_ONCE: usize = 32;

/// What the routing table says of a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FoundRoute {
    /// Out by an interface.
    Unicast {
        /// Index of the interface.
        ifindex: u32,
        /// The router; `None` if the destination is on the link. Its family
        /// may differ from the destination's.
        gateway: Option<(Family, Addr)>,
        /// The host's address on that way.
        source: Option<Addr>,
        /// Largest IP packet where the route says one.
        mtu: Option<u32>,
    },
    /// An address of this host.
    Local,
    /// A broadcast or multicast address.
    Group,
    /// No route, or one that forbids.
    Unreachable,
}

impl Rtnetlink {
    /// Asks for the way to a destination; a source that is unspecified is left
    /// to the kernel.
    ///
    /// An IPv4 source that is no address of this host makes the kernel answer
    /// [`FoundRoute::Unreachable`].
    pub fn route(&mut self, query: &RouteQuery) -> io::Result<FoundRoute> {
        let answer = self.ask(question(query));
        read(answer)
    }

    /// The same for many queries, answered in their order.
    pub fn routes(&mut self, queries: &[RouteQuery]) -> io::Result<Vec<io::Result<FoundRoute>>> {
        let mut found = Vec::with_capacity(queries.len());
        for queries in queries.chunks(AT_ONCE) {
            found.extend(self.ask_all(queries.iter().map(question))?.into_iter().map(read));
        }
        Ok(found)
    }
}

fn question(query: &RouteQuery) -> RouteNetlinkMessage {
    let whole = match query.family {
        Family::V4 => 32,
        Family::V6 => 128,
    };
    let mut message = RouteMessage::default();
    message.header.address_family = address_family(query.family);
    message.header.destination_prefix_length = whole;
    let destination = query.destination.to_ip(query.family);
    message.attributes.push(RouteAttribute::Destination(destination.into()));
    if !query.source.is_unspecified() {
        message.header.source_prefix_length = whole;
        let source = query.source.to_ip(query.family);
        message.attributes.push(RouteAttribute::Source(source.into()));
    }
    RouteNetlinkMessage::GetRoute(message)
}

fn read(answer: io::Result<Option<RouteNetlinkMessage>>) -> io::Result<FoundRoute> {
    match answer {
        Ok(Some(RouteNetlinkMessage::NewRoute(route))) => Ok(FoundRoute::of(&route)),
        Ok(_) => Ok(FoundRoute::Unreachable),
        Err(error) if is_negative(&error) => Ok(FoundRoute::Unreachable),
        Err(error) => Err(error),
    }
}

/// A prefix, and the MTU that its route says, if it says one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RouteMtu {
    pub(crate) family: Family,
    pub(crate) addr: Addr,
    pub(crate) prefix_len: u8,
    pub(crate) mtu: Option<u32>,
}

impl Rtnetlink {
    /// The routes of the main table, and the MTU that each says.
    ///
    /// Of several to one prefix only the one that is used is there.
    pub(crate) fn route_mtus(&mut self) -> io::Result<Vec<RouteMtu>> {
        let mut found: Vec<RouteMtu> = Vec::new();
        for family in [Family::V4, Family::V6] {
            let mut question = RouteMessage::default();
            question.header.address_family = address_family(family);
            let answers = match self.dump(RouteNetlinkMessage::GetRoute(question)) {
                Err(error) if is_no_family(&error) => continue,
                answers => answers?,
            };
            let mut used: HashMap<(Addr, u8), (u32, RouteMtu)> = HashMap::new();
            for answer in &answers {
                let RouteNetlinkMessage::NewRoute(message) = answer else { continue };
                let Some((priority, route)) = RouteMtu::of(family, message) else { continue };
                let kept = used.entry((route.addr, route.prefix_len)).or_insert((priority, route));
                if priority < kept.0 {
                    *kept = (priority, route);
                }
            }
            found.extend(used.into_values().map(|(_, route)| route));
        }
        Ok(found)
    }
}

impl RouteMtu {
    /// The route and its priority, if it is one of the main table that leads somewhere.
    fn of(family: Family, message: &RouteMessage) -> Option<(u32, Self)> {
        let (mut table, mut addr) = (u32::from(message.header.table), Addr::UNSPECIFIED);
        let (mut priority, mut mtu) = (0, None);
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Table(number) => table = *number,
                RouteAttribute::Priority(number) => priority = *number,
                RouteAttribute::Destination(address) => addr = Addr::from_ip(ip(address)?).1,
                RouteAttribute::Metrics(metrics) => mtu = mtu_of(metrics),
                _ => {}
            }
        }
        let prefix_len = message.header.destination_prefix_length;
        let is_used = table == MAIN_TABLE && message.header.kind == RouteType::Unicast;
        is_used.then_some((priority, Self { family, addr, prefix_len, mtu }))
    }
}

/// Whether the error is an answer: no route, or an unreachable, prohibit or
/// blackhole one.
fn is_negative(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EACCES | libc::EINVAL)
    )
}

impl FoundRoute {
    fn of(message: &RouteMessage) -> Self {
        match message.header.kind {
            RouteType::Unicast => {}
            RouteType::Local => return Self::Local,
            RouteType::Broadcast | RouteType::Multicast | RouteType::Anycast => return Self::Group,
            _ => return Self::Unreachable,
        }
        let (mut ifindex, mut gateway, mut source, mut mtu) = (None, None, None, None);
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Oif(index) => ifindex = Some(*index),
                RouteAttribute::Gateway(address) => gateway = ip(address).map(Addr::from_ip),
                RouteAttribute::Via(RouteVia::Inet(ip)) => {
                    gateway = Some(Addr::from_ip(IpAddr::V4(*ip)));
                }
                RouteAttribute::Via(RouteVia::Inet6(ip)) => {
                    gateway = Some(Addr::from_ip(IpAddr::V6(*ip)));
                }
                RouteAttribute::PrefSource(address) => {
                    source = ip(address).map(|ip| Addr::from_ip(ip).1);
                }
                RouteAttribute::Metrics(metrics) => mtu = mtu_of(metrics),
                _ => {}
            }
        }
        match ifindex {
            Some(ifindex) => Self::Unicast { ifindex, gateway, source, mtu },
            None => Self::Unreachable,
        }
    }
}

fn mtu_of(metrics: &[RouteMetric]) -> Option<u32> {
    metrics.iter().find_map(|metric| match metric {
        RouteMetric::Mtu(mtu) => Some(*mtu),
        _ => None,
    })
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some(IpAddr::V4(*ip)),
        RouteAddress::Inet6(ip) => Some(IpAddr::V6(*ip)),
        _ => None,
    }
}
