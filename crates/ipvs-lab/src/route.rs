//! Routes and policy rules.

use std::{fmt, net::IpAddr};

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    RouteNetlinkMessage,
    route::{RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType},
    rule::{RuleAction, RuleAttribute, RuleMessage},
};

use crate::{
    Link, Namespace,
    error::{Doing, Result},
    link::family,
};

/// A unicast route.
///
/// ```
/// use ipvs_lab::Route;
/// let gateway = "10.1.0.254".parse()?;
/// assert_eq!(Route::default_via(gateway).table(100).to_string(), "0.0.0.0/0 via 10.1.0.254 table 100");
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    destination: IpNet,
    gateway: Option<IpAddr>,
    link: Option<u32>,
    table: u32,
    preferred_source: Option<IpAddr>,
}

impl Route {
    /// Everything of the gateway's family by way of `gateway`.
    #[must_use]
    pub fn default_via(gateway: IpAddr) -> Self {
        let any = match gateway {
            IpAddr::V4(_) => IpNet::V4(ipnet::Ipv4Net::default()),
            IpAddr::V6(_) => IpNet::V6(ipnet::Ipv6Net::default()),
        };
        Self::via(any, gateway)
    }

    /// `destination` by way of `gateway`.
    #[must_use]
    pub fn via(destination: IpNet, gateway: IpAddr) -> Self {
        let gateway = Some(gateway);
        Self { destination, gateway, link: None, table: MAIN_TABLE, preferred_source: None }
    }

    /// `destination` directly on the link.
    #[must_use]
    pub fn on(destination: IpNet, link: &Link) -> Self {
        let link = Some(link.index());
        Self { destination, gateway: None, link, table: MAIN_TABLE, preferred_source: None }
    }

    /// Puts the route into another table than the main one.
    #[must_use]
    pub fn table(self, table: u32) -> Self {
        Self { table, ..self }
    }

    /// Gives packets of this host that have no source address yet this one.
    #[must_use]
    pub fn preferred_source(self, source: IpAddr) -> Self {
        Self { preferred_source: Some(source), ..self }
    }

    fn message(&self) -> RouteMessage {
        let mut message = RouteMessage::default();
        message.header.address_family = family(self.destination.addr());
        message.header.destination_prefix_length = self.destination.prefix_len();
        // The header has room for small numbers only; the attribute counts.
        message.header.table = RouteHeader::RT_TABLE_UNSPEC;
        message.header.protocol = RouteProtocol::Static;
        message.header.scope =
            if self.gateway.is_some() { RouteScope::Universe } else { RouteScope::Link };
        message.header.kind = RouteType::Unicast;
        let attributes = &mut message.attributes;
        attributes.push(RouteAttribute::Table(self.table));
        if self.destination.prefix_len() > 0 {
            attributes.push(RouteAttribute::Destination(self.destination.network().into()));
        }
        attributes.extend(self.gateway.map(|gateway| RouteAttribute::Gateway(gateway.into())));
        attributes.extend(self.link.map(RouteAttribute::Oif));
        attributes
            .extend(self.preferred_source.map(|source| RouteAttribute::PrefSource(source.into())));
        message
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.destination)?;
        if let Some(gateway) = self.gateway {
            write!(f, " via {gateway}")?;
        }
        if self.table != MAIN_TABLE {
            write!(f, " table {}", self.table)?;
        }
        Ok(())
    }
}

const MAIN_TABLE: u32 = 254;

impl Namespace {
    /// Adds a route.
    pub fn add_route(&self, route: Route) -> Result<()> {
        self.request(RouteNetlinkMessage::NewRoute(route.message()), NLM_F_CREATE | NLM_F_EXCL)
            .map(|_none| ())
            .doing(|| format!("add route {route} in {}", self.name()))
    }

    /// Removes a route.
    pub fn remove_route(&self, route: Route) -> Result<()> {
        self.request(RouteNetlinkMessage::DelRoute(route.message()), 0)
            .map(|_none| ())
            .doing(|| format!("remove route {route} in {}", self.name()))
    }

    /// Lets packets with a source in `source` be routed by `table`
    /// (after the local table, before the main one).
    pub fn add_source_rule(&self, source: IpNet, table: u32) -> Result<()> {
        let mut message = RuleMessage::default();
        message.header.family = family(source.addr());
        message.header.src_len = source.prefix_len();
        message.header.action = RuleAction::ToTable;
        message.attributes.push(RuleAttribute::Source(source.network()));
        message.attributes.push(RuleAttribute::Table(table));
        message.attributes.push(RuleAttribute::Priority(SOURCE_RULE_PRIORITY));
        self.request(RouteNetlinkMessage::NewRule(message), NLM_F_CREATE | NLM_F_EXCL)
            .map(|_none| ())
            .doing(|| format!("add rule from {source} lookup {table} in {}", self.name()))
    }
}

/// The local table is at 0, the main one at 32766.
const SOURCE_RULE_PRIORITY: u32 = 1000;
