//! Rules of policy routing: which table of routes a packet is looked up in.

use std::io;
use std::net::{IpAddr, Ipv6Addr};

use ipvs_core::addr::{Addr, Family};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage, RulePortRange};

use super::{Rtnetlink, address_family, is_no_family};

/// Who made a rule or a route, as the kernel notes it: this program. The number
/// is one that nobody has registered.
const OWN: RouteProtocol = RouteProtocol::Other(118);
/// The table of the host's own addresses.
pub(crate) const LOCAL_TABLE: u32 = 255;
/// Source addresses of IPv6 that are good on one link only.
const LINK_LOCAL: (Ipv6Addr, u8) = (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10);

/// A rule of this program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) family: Family,
    /// Rules are asked in this order.
    pub(crate) priority: u32,
    /// Only packets from a link-local address.
    pub(crate) link_local: bool,
    /// Only packets that came in by this interface.
    pub(crate) interface: Option<String>,
    /// Only packets with this mark.
    pub(crate) mark: Option<u32>,
    /// Only packets of this protocol.
    pub(crate) protocol: Option<u8>,
    /// Only packets to this port; the kernel knows rules for 1 to 65534 only.
    pub(crate) port: Option<u16>,
    /// Where they are looked up.
    pub(crate) table: u32,
}

/// What a family has of rules.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    /// Those of this program.
    pub(crate) own: Vec<Rule>,
    /// Those of others that have every packet looked up in the table of the
    /// host's own addresses, and their priorities.
    pub(crate) local: Vec<(u32, RuleMessage)>,
}

/// A route of this program: packets to a prefix leave by an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct OwnRoute {
    pub(crate) family: Family,
    pub(crate) addr: Addr,
    pub(crate) prefix_len: u8,
    pub(crate) table: u32,
}

impl Rule {
    /// A rule for all packets.
    pub(crate) const fn any(family: Family, priority: u32, table: u32) -> Self {
        let (interface, mark, protocol, port) = (None, None, None, None);
        Self { family, priority, link_local: false, interface, mark, protocol, port, table }
    }

    fn message(&self) -> RuleMessage {
        let mut message = everything(self.family, self.priority, self.table, OWN);
        if self.link_local {
            message.header.src_len = LINK_LOCAL.1;
            message.attributes.push(RuleAttribute::Source(IpAddr::V6(LINK_LOCAL.0)));
        }
        message.attributes.extend(self.interface.clone().map(RuleAttribute::Iifname));
        message.attributes.extend(self.mark.map(RuleAttribute::FwMark));
        message.attributes.extend(self.protocol.map(|it| RuleAttribute::IpProtocol(it.into())));
        let range = self.port.map(|port| RulePortRange { start: port, end: port });
        message.attributes.extend(range.map(RuleAttribute::DestinationPortRange));
        message
    }

    fn of(family: Family, message: &RuleMessage) -> Self {
        let mut rule = Self::any(family, 0, u32::from(message.header.table));
        rule.link_local = message.header.src_len != 0;
        for attribute in &message.attributes {
            match attribute {
                RuleAttribute::Priority(priority) => rule.priority = *priority,
                RuleAttribute::Iifname(name) => rule.interface = Some(name.clone()),
                RuleAttribute::FwMark(mark) => rule.mark = Some(*mark),
                RuleAttribute::IpProtocol(protocol) => rule.protocol = Some((*protocol).into()),
                RuleAttribute::DestinationPortRange(range) => rule.port = Some(range.start),
                RuleAttribute::Table(table) => rule.table = *table,
                _ => {}
            }
        }
        rule
    }
}

/// A rule for all packets, made by `maker`.
fn everything(family: Family, priority: u32, table: u32, maker: RouteProtocol) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = address_family(family);
    message.header.action = RuleAction::ToTable;
    message.attributes.extend([
        RuleAttribute::Priority(priority),
        RuleAttribute::Table(table),
        RuleAttribute::Protocol(maker),
    ]);
    message
}

impl Rtnetlink {
    /// The rules of a family; none if the host has not got the family.
    pub(crate) fn rules(&mut self, family: Family) -> io::Result<Rules> {
        let mut question = RuleMessage::default();
        question.header.family = address_family(family);
        let answers = match self.dump(RouteNetlinkMessage::GetRule(question)) {
            Err(error) if is_no_family(&error) => return Ok(Rules::default()),
            answers => answers?,
        };
        let mut rules = Rules::default();
        for answer in answers {
            let RouteNetlinkMessage::NewRule(message) = answer else { continue };
            if message.attributes.contains(&RuleAttribute::Protocol(OWN)) {
                rules.own.push(Rule::of(family, &message));
                continue;
            }
            // What the kernel would match a rule by, were it there.
            let rule = Rule::of(family, &message);
            let is_plain = message.header.dst_len == 0 && message.header.tos == 0;
            let any = Rule::any(family, rule.priority, LOCAL_TABLE);
            if rule == any && is_plain && message.header.action == RuleAction::ToTable {
                rules.local.push((rule.priority, message));
            }
        }
        Ok(rules)
    }

    /// Adds a rule of this program; that it is there already is as good.
    pub(crate) fn add_rule(&mut self, rule: &Rule) -> io::Result<()> {
        self.add(RouteNetlinkMessage::NewRule(rule.message()))
    }

    /// Removes a rule of this program.
    pub(crate) fn remove_rule(&mut self, rule: &Rule) -> io::Result<()> {
        self.change(RouteNetlinkMessage::DelRule(rule.message()), 0)
    }

    /// Removes somebody's rule.
    pub(crate) fn remove_others_rule(&mut self, rule: &RuleMessage) -> io::Result<()> {
        self.change(RouteNetlinkMessage::DelRule(rule.clone()), 0)
    }

    /// Adds the rule that the kernel begins with: the host's own addresses first.
    pub(crate) fn add_local_rule(&mut self, family: Family) -> io::Result<()> {
        let rule = everything(family, 0, LOCAL_TABLE, RouteProtocol::Kernel);
        self.add(RouteNetlinkMessage::NewRule(rule))
    }

    /// The routes of this program in the tables that `is_ours` names.
    pub(crate) fn own_routes(&mut self, is_ours: fn(u32) -> bool) -> io::Result<Vec<OwnRoute>> {
        let mut found = Vec::new();
        for family in [Family::V4, Family::V6] {
            let mut question = RouteMessage::default();
            question.header.address_family = address_family(family);
            let answers = match self.dump(RouteNetlinkMessage::GetRoute(question)) {
                Err(error) if is_no_family(&error) => continue,
                answers => answers?,
            };
            found.extend(answers.iter().filter_map(|answer| match answer {
                RouteNetlinkMessage::NewRoute(route) if route.header.protocol == OWN => {
                    OwnRoute::of(family, route)
                }
                _ => None,
            }));
        }
        found.retain(|route| is_ours(route.table));
        Ok(found)
    }

    /// Has packets to a prefix leave by an interface; that they do already is as good.
    pub(crate) fn add_route(&mut self, route: &OwnRoute, ifindex: u32) -> io::Result<()> {
        self.add(RouteNetlinkMessage::NewRoute(route.message(ifindex)))
    }

    /// Takes such a route away again; that it is gone is as good.
    pub(crate) fn remove_route(&mut self, route: &OwnRoute, ifindex: u32) -> io::Result<()> {
        match self.change(RouteNetlinkMessage::DelRoute(route.message(ifindex)), 0) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            outcome => outcome,
        }
    }

    fn add(&mut self, message: RouteNetlinkMessage) -> io::Result<()> {
        match self.change(message, NLM_F_CREATE | NLM_F_EXCL) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            outcome => outcome,
        }
    }
}

impl OwnRoute {
    fn message(&self, ifindex: u32) -> RouteMessage {
        let mut message = RouteMessage::default();
        message.header.address_family = address_family(self.family);
        message.header.destination_prefix_length = self.prefix_len;
        // The header has room for small numbers only; the attribute counts.
        message.header.table = RouteHeader::RT_TABLE_UNSPEC;
        message.header.protocol = OWN;
        message.header.scope = RouteScope::Link;
        message.header.kind = RouteType::Unicast;
        message.attributes.extend([
            RouteAttribute::Table(self.table),
            RouteAttribute::Destination(self.addr.to_ip(self.family).into()),
            RouteAttribute::Oif(ifindex),
        ]);
        message
    }

    fn of(family: Family, message: &RouteMessage) -> Option<Self> {
        let (mut table, mut addr) = (u32::from(message.header.table), Addr::UNSPECIFIED);
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Table(number) => table = *number,
                RouteAttribute::Destination(RouteAddress::Inet(ip)) => addr = Addr::v4(ip.octets()),
                RouteAttribute::Destination(RouteAddress::Inet6(ip)) => {
                    addr = Addr::v6(ip.octets());
                }
                _ => {}
            }
        }
        let prefix_len = message.header.destination_prefix_length;
        (message.header.kind == RouteType::Unicast).then_some(Self {
            family,
            addr,
            prefix_len,
            table,
        })
    }
}
