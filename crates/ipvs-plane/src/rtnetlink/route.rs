//! Routes: which way the host would send a packet.

use std::io;
use std::net::IpAddr;

use ipvs_core::addr::{Addr, Family};
use ipvs_core::hop::RouteQuery;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteType, RouteVia,
};

use super::{Rtnetlink, address_family};

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
        match self.ask(RouteNetlinkMessage::GetRoute(message)) {
            Ok(Some(RouteNetlinkMessage::NewRoute(route))) => Ok(FoundRoute::of(&route)),
            Ok(_) => Ok(FoundRoute::Unreachable),
            Err(error) if is_negative(&error) => Ok(FoundRoute::Unreachable),
            Err(error) => Err(error),
        }
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
                RouteAttribute::Metrics(metrics) => {
                    mtu = metrics.iter().find_map(|metric| match metric {
                        RouteMetric::Mtu(mtu) => Some(*mtu),
                        _ => None,
                    });
                }
                _ => {}
            }
        }
        match ifindex {
            Some(ifindex) => Self::Unicast { ifindex, gateway, source, mtu },
            None => Self::Unreachable,
        }
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some(IpAddr::V4(*ip)),
        RouteAddress::Inet6(ip) => Some(IpAddr::V6(*ip)),
        _ => None,
    }
}
