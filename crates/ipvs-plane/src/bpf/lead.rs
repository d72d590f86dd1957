//! How clients' packets are led past the host's firewall to the door, on
//! interfaces in mode `netfilter`.
//!
//! A virtual address is the host's own, and the kernel asks its table of local
//! addresses before any other: packets for it would never be forwarded. So rules of
//! policy routing stand in front of that, for packets that come in by those
//! interfaces, and lead to tables in which virtual addresses are reached by the
//! door. Everything in between is the host's ordinary way of a packet that it sends
//! on: PREROUTING with its marks, FORWARD, POSTROUTING.
//!
//! The rules name protocols, because the host answers for its addresses by the
//! same lookup, and ARP has none. ICMPv6 from link-local addresses is left alone for
//! the same reason: neighbours ask that way whether we are still there.
//!
//! They name the ports of TCP, because the kernel looks for a socket before it
//! routes, and does not forward what has one: connections of the host's own at a
//! virtual address would end at the door. Datagrams are led by address alone:
//! fragments have no ports. What is not balanced comes back by the door.
//!
//! All this is the host's, not the daemon's: it stays when the daemon ends, and goes
//! with `ipvs detach`. It is known by the number of its maker.

use std::collections::HashSet;
use std::io;

use ipvs_core::addr::{Addr, Family};
use ipvs_core::service::ServiceKey;

use crate::rtnetlink::{LOCAL_TABLE, OwnRoute, Rtnetlink, Rule};

/// Where neighbours' questions are exempted,
const EXEMPT: u32 = 1;
/// packets are led to the door,
const LEAD: u32 = 2;
/// and the host's own addresses follow; without rules of ours they are first, at 0.
const LOCAL: u32 = 3;

/// The first octet of our tables' numbers; the next is the protocol whose packets
/// the table is for, the others the port, or 0 for all.
const TABLES: u32 = 0x6900_0000;
/// The table of every address, for services by firewall mark.
const EVERYWHERE: u32 = TABLES;

/// More ports than these of one protocol are not told apart: every packet is held
/// against every rule.
const PORTS: usize = 64;
/// The port of FTP, whose data may come to any.
const FTP: u16 = 21;
const TCP: u8 = 6;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const UDP: u8 = 17;
/// TCP, UDP and SCTP, and what follows a connection of the port of IKE: ESP and AH.
const PROTOCOLS: [u8; 5] = [TCP, UDP, 132, ESP, AH];
const ESP: u8 = 50;
const AH: u8 = 51;
const IKE: u16 = 500;

/// Every address that a host can have to itself: neither groups nor, of IPv6, addresses
/// of one link.
const UNICAST_V4: [([u8; 4], u8); 3] = [([0; 4], 1), ([128, 0, 0, 0], 2), ([192, 0, 0, 0], 3)];
const UNICAST_V6: [(u8, u8); 2] = [(0x20, 3), (0xfc, 7)];

/// What leads packets to the door.
#[derive(Debug, Default)]
pub(super) struct Lead {
    /// Interfaces in mode `netfilter`.
    interfaces: Vec<String>,
    /// Routes that are there, and perhaps some that are not any more.
    routes: HashSet<OwnRoute>,
    /// Why the last attempt failed.
    failed: Option<io::Error>,
}

impl Lead {
    /// For these interfaces; what an earlier daemon left is found.
    pub(super) fn new(interfaces: Vec<String>) -> io::Result<Self> {
        let routes = Rtnetlink::open()?.own_routes(|table| table & 0xff00_0000 == TABLES)?;
        Ok(Self { interfaces, routes: routes.into_iter().collect(), failed: None })
    }

    /// Whether nothing is led, and nothing is to be.
    pub(super) fn is_idle(&self) -> bool {
        self.interfaces.is_empty() && self.routes.is_empty() && self.failed.is_none()
    }

    /// Whether packets are led at all.
    pub(super) fn leads(&self) -> bool {
        !self.interfaces.is_empty()
    }

    /// Leads packets for these services to the interface `door`, and no others. Of
    /// services at `ftp_ports` other connections may be expected.
    pub(super) fn follow<'a>(
        &mut self,
        door: u32,
        services: impl Iterator<Item = &'a ServiceKey>,
        ftp_ports: &[u16],
    ) {
        let services: Vec<ServiceKey> = services.copied().collect();
        let outcome = self.try_follow(door, &services, ftp_ports);
        if let Err(error) = &outcome {
            tracing::error!(%error, "packets cannot be led past the firewall to the director");
        }
        self.failed = outcome.err();
    }

    /// A line for what an administrator should know.
    pub(super) fn report(&self) -> Option<String> {
        let error = self.failed.as_ref()?;
        Some(format!("packets cannot be led past the firewall to the director: {error}"))
    }

    fn try_follow(
        &mut self,
        door: u32,
        services: &[ServiceKey],
        ftp_ports: &[u16],
    ) -> io::Result<()> {
        let mut netlink = Rtnetlink::open()?;
        let (rules, routes) = wanted(&self.interfaces, services, ftp_ports);
        // Somebody may have removed one, and all went with the door if that did.
        if door != 0 {
            for route in &routes {
                netlink.add_route(route, door)?;
                self.routes.insert(*route);
            }
        }
        for family in [Family::V4, Family::V6] {
            let rules: Vec<&Rule> = rules.iter().filter(|rule| rule.family == family).collect();
            settle_rules(&mut netlink, family, &rules)?;
        }
        for route in self.routes.clone().difference(&routes) {
            if door != 0 {
                netlink.remove_route(route, door)?;
            }
            self.routes.remove(route);
        }
        Ok(())
    }
}

/// Takes every rule away; the routes go with the door.
pub(super) fn remove(netlink: &mut Rtnetlink) -> io::Result<()> {
    [Family::V4, Family::V6].into_iter().try_for_each(|family| settle_rules(netlink, family, &[]))
}

/// Makes the rules of a family be these, with the host's own addresses found at every
/// moment.
fn settle_rules(netlink: &mut Rtnetlink, family: Family, wanted: &[&Rule]) -> io::Result<()> {
    let there = netlink.rules(family)?;
    for rule in wanted.iter().filter(|rule| !there.own.contains(rule)) {
        netlink.add_rule(rule)?;
    }
    if wanted.is_empty() {
        if there.own.iter().any(|rule| rule.priority == LOCAL) && there.local.is_empty() {
            netlink.add_local_rule(family)?;
        }
    } else {
        for (_, rule) in there.local.iter().filter(|(priority, _)| *priority <= LEAD) {
            netlink.remove_others_rule(rule)?;
        }
    }
    for rule in there.own.iter().filter(|rule| !wanted.contains(rule)) {
        netlink.remove_rule(rule)?;
    }
    Ok(())
}

/// The rules and routes that lead packets of these services.
fn wanted(
    interfaces: &[String],
    services: &[ServiceKey],
    ftp_ports: &[u16],
) -> (Vec<Rule>, HashSet<OwnRoute>) {
    let (mut rules, mut routes) = (Vec::new(), HashSet::new());
    if interfaces.is_empty() {
        return (rules, routes);
    }
    let mut add = |rule: Rule| {
        if !rules.contains(&rule) {
            rules.push(rule);
        }
    };
    let ports: HashSet<u16> = services.iter().map(|key| key.port).collect();
    for key in services {
        let family = key.family();
        let (icmp, whole) = match family {
            Family::V4 => (ICMP, 32),
            Family::V6 => (ICMPV6, 128),
        };
        add(Rule::any(family, LOCAL, LOCAL_TABLE));
        if family == Family::V6 {
            let any = Rule::any(family, EXEMPT, LOCAL_TABLE);
            add(Rule { link_local: true, protocol: Some(ICMPV6), ..any });
        }
        let mut lead = |protocol: u8, port: Option<u16>, mark: Option<u32>, table: u32| {
            for interface in interfaces {
                let (interface, protocol) = (Some(interface.clone()), Some(protocol));
                add(Rule { interface, mark, protocol, port, ..Rule::any(family, LEAD, table) });
            }
        };
        if key.is_fwmark() {
            for protocol in PROTOCOLS.into_iter().chain([icmp]) {
                lead(protocol, None, Some(key.fwmark), EVERYWHERE);
            }
            routes.extend(unicast(family));
            continue;
        }
        let port = Some(key.port).filter(|port| {
            let is_one = !matches!(*port, 0 | FTP | u16::MAX) && !ftp_ports.contains(port);
            key.protocol == TCP && is_one && ports.len() <= PORTS
        });
        // In IPv6 AH is no protocol.
        let ipsec: &[u8] = match (key.protocol, key.port, family) {
            (UDP, 0 | IKE, Family::V4) => &[ESP, AH],
            (UDP, 0 | IKE, Family::V6) => &[ESP],
            _ => &[],
        };
        let followers = ipsec.iter().chain([&icmp]).map(|protocol| (*protocol, None));
        for (protocol, port) in [(key.protocol, port)].into_iter().chain(followers) {
            let table = TABLES | u32::from(protocol) << 16 | u32::from(port.unwrap_or(0));
            lead(protocol, port, None, table);
            routes.insert(OwnRoute { family, addr: key.addr, prefix_len: whole, table });
        }
    }
    (rules, routes)
}

/// Routes to every address of a family.
fn unicast(family: Family) -> Vec<OwnRoute> {
    let route = |addr, prefix_len| OwnRoute { family, addr, prefix_len, table: EVERYWHERE };
    match family {
        Family::V4 => UNICAST_V4.map(|(addr, len)| route(Addr::v4(addr), len)).to_vec(),
        Family::V6 => UNICAST_V6
            .map(|(first, len)| {
                let mut addr = [0; 16];
                if let Some(octet) = addr.first_mut() {
                    *octet = first;
                }
                route(Addr::v6(addr), len)
            })
            .to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(family: Family, protocol: u8, last: u8) -> ServiceKey {
        let addr = match family {
            Family::V4 => Addr::v4([192, 0, 2, last]),
            Family::V6 => Addr::v6([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]),
        };
        ServiceKey::address(family, protocol, addr, 80)
    }

    fn led(services: &[ServiceKey]) -> (Vec<Rule>, HashSet<OwnRoute>) {
        wanted(&["eth0".to_owned()], services, &[2121])
    }

    fn leads(rules: &[Rule]) -> Vec<(Option<u8>, Option<u16>)> {
        let leads = rules.iter().filter(|rule| rule.priority == LEAD);
        leads.map(|rule| (rule.protocol, rule.port)).collect()
    }

    #[test]
    fn connections_are_led_by_port_and_datagrams_by_address() {
        let (rules, routes) = led(&[at(Family::V4, 6, 1), at(Family::V4, 17, 1)]);
        assert_eq!(leads(&rules), [(Some(6), Some(80)), (Some(1), None), (Some(17), None)]);
        assert_eq!(routes.len(), 3);
    }

    #[test]
    fn services_that_may_have_data_at_any_port_are_led_by_address() {
        for port in [0, 21, 2121, 65535] {
            let (rules, _) = led(&[ServiceKey { port, ..at(Family::V4, 6, 1) }]);
            assert_eq!(leads(&rules), [(Some(6), None), (Some(1), None)], "{port}");
        }
    }

    #[test]
    fn what_follows_a_connection_of_ike_is_led_with_it() {
        let led_with = |key| -> Vec<u8> {
            let (rules, routes) = led(&[key]);
            assert_eq!(routes.len(), leads(&rules).len());
            leads(&rules).into_iter().skip(1).filter_map(|(protocol, _)| protocol).collect()
        };
        for port in [0, 500] {
            assert_eq!(led_with(ServiceKey { port, ..at(Family::V4, 17, 1) }), [50, 51, 1]);
            assert_eq!(led_with(ServiceKey { port, ..at(Family::V6, 17, 1) }), [50, 58]);
            assert_eq!(led_with(ServiceKey { port, ..at(Family::V4, 6, 1) }), [1]);
        }
        assert_eq!(led_with(ServiceKey { port: 4500, ..at(Family::V4, 17, 1) }), [1]);
    }

    #[test]
    fn another_address_costs_no_rule() {
        let one = led(&[at(Family::V4, 6, 1)]);
        let two = led(&[at(Family::V4, 6, 1), at(Family::V4, 6, 2)]);
        assert_eq!((one.0, one.1.len(), two.1.len()), (two.0, 2, 4));
    }

    #[test]
    fn rules_for_ports_do_not_grow_without_end() {
        let many = |last| {
            let key = |port| ServiceKey { port, ..at(Family::V4, 6, 1) };
            led(&(1001..=last).map(key).collect::<Vec<_>>()).0.len()
        };
        assert_eq!((many(1064), many(1065)), (64 + 2, 1 + 2));
    }

    #[test]
    fn no_rule_leads_what_has_no_protocol() {
        let services = [at(Family::V6, 17, 1), ServiceKey::fwmark(Family::V4, 7)];
        let (rules, _) = led(&services);
        let leads: Vec<&Rule> = rules.iter().filter(|rule| rule.priority == LEAD).collect();
        assert_eq!(leads.len(), 2 + 6);
        assert!(leads.iter().all(|rule| rule.protocol.is_some() && rule.interface.is_some()));
    }

    #[test]
    fn without_interfaces_nothing_is_led() {
        let (rules, routes) = wanted(&[], &[at(Family::V4, 6, 1)], &[]);
        assert!(rules.is_empty() && routes.is_empty());
    }
}
