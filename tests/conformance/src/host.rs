//! The director's host in topology `std-1`: interfaces, addresses, routes and
//! neighbours as plain data, for a director that has no real host beside it
//! and for laying out a real one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use ipvs_core::addr::{Addr, Family};
use ipvs_core::hop::{Hop, RouteQuery, Way, WayKind};

/// A MAC address.
pub type Mac = [u8; 6];

/// An interface of the host.
#[derive(Clone, Debug)]
pub struct Interface {
    /// Name.
    pub name: &'static str,
    /// Number.
    pub index: u32,
    /// Its MAC address.
    pub mac: Mac,
    /// The MAC address of the other end.
    pub peer: Mac,
    /// Largest IP packet, in octets.
    pub mtu: u32,
    /// Its addresses, with the network of each.
    pub addresses: Vec<IpNet>,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where to.
    pub to: IpNet,
    /// What is done with such packets.
    pub target: Target,
}

/// Where a route leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Out of an interface.
    Out {
        /// Name of the interface.
        dev: String,
        /// The router, if the destination is not on the link.
        via: Option<IpAddr>,
        /// Largest packet, in octets, if smaller than the interface's.
        mtu: Option<u32>,
    },
    /// To the host itself.
    Local,
}

/// The host.
#[derive(Clone, Debug)]
pub struct Host {
    /// Interfaces.
    pub interfaces: Vec<Interface>,
    /// Routes beside those that addresses bring along.
    pub routes: Vec<Entry>,
    /// Neighbours: interface, address, MAC address.
    pub neighbours: Vec<(&'static str, IpAddr, Mac)>,
}

impl Host {
    /// The host of topology `std-1`.
    pub fn std_1() -> Self {
        let vips4 = (10..=12).map(|n| net([192, 0, 2, n], 32));
        let vips6 = (0x10..=0x12).map(|n| net6([0x2001, 0xdb8, 0xc, 0, 0, 0, 0, n], 128));
        let clients = [net([192, 0, 2, 1], 24), net6([0x2001, 0xdb8, 0xc, 0, 0, 0, 0, 1], 64)];
        let servers = [net([10, 1, 0, 1], 24), net6([0x2001, 0xdb8, 5, 0, 0, 0, 0, 1], 64)];
        let client_router: [IpAddr; 2] =
            [ip([192, 0, 2, 254]), ip6([0x2001, 0xdb8, 0xc, 0, 0, 0, 0, 0xfe])];
        let server_router: [IpAddr; 2] =
            [ip([10, 1, 0, 254]), ip6([0x2001, 0xdb8, 5, 0, 0, 0, 0, 0xfe])];
        let (c0, s0) = ("c0", "s0");
        let mut neighbours: Vec<_> =
            client_router.map(|router| (c0, router, CLIENT_ROUTER)).into_iter().collect();
        neighbours.extend(server_router.map(|router| (s0, router, server_mac(0xfe))));
        for n in 11..=22u8 {
            // 2001:db8:5::11 and the MAC address have the decimal digits as hex.
            let digits = n / 10 * 16 + n % 10;
            neighbours.push((s0, ip([10, 1, 0, n]), server_mac(digits)));
            let v6 = ip6([0x2001, 0xdb8, 5, 0, 0, 0, 0, u16::from(digits)]);
            neighbours.push((s0, v6, server_mac(digits)));
        }
        let out = |to, dev: &str, via| Entry {
            to,
            target: Target::Out { dev: dev.to_owned(), via: Some(via), mtu: None },
        };
        let [router4, router6] = client_router;
        let [inner4, inner6] = server_router;
        Self {
            interfaces: vec![
                Interface {
                    name: c0,
                    index: 2,
                    mac: [2, 0, 0, 0, 0x0c, 1],
                    peer: CLIENT_ROUTER,
                    mtu: 1500,
                    addresses: clients.into_iter().chain(vips4).chain(vips6).collect(),
                },
                Interface {
                    name: s0,
                    index: 3,
                    mac: [2, 0, 0, 0, 5, 1],
                    peer: [2, 0, 0, 0, 5, 2],
                    mtu: 1500,
                    addresses: servers.to_vec(),
                },
            ],
            routes: vec![
                out(net([0, 0, 0, 0], 0), c0, router4),
                out(net6([0; 8], 0), c0, router6),
                out(net([10, 2, 0, 0], 24), s0, inner4),
                out(net6([0x2001, 0xdb8, 6, 0, 0, 0, 0, 0], 64), s0, inner6),
            ],
            neighbours,
        }
    }

    /// The interface of this name.
    pub fn interface(&self, name: &str) -> Option<&Interface> {
        self.interfaces.iter().find(|it| it.name == name)
    }

    /// The interface of this number.
    pub fn interface_at(&self, index: u32) -> Option<&Interface> {
        self.interfaces.iter().find(|it| it.index == index)
    }

    /// Whether the host has this address.
    pub fn has(&self, address: IpAddr) -> bool {
        self.interfaces.iter().flat_map(|it| &it.addresses).any(|it| it.addr() == address)
    }

    /// What the host's routing table says.
    pub fn route(&self, query: &RouteQuery) -> Way {
        let to = query.destination.to_ip(query.family);
        let Some(target) = self.lookup(to) else { return Way::default() };
        let Target::Out { dev, via, mtu } = target else {
            return Way { kind: WayKind::Host, ..Way::default() };
        };
        let Some(interface) = self.interface(&dev) else { return Way::default() };
        let (next, mtu) = (via.unwrap_or(to), mtu.unwrap_or(interface.mtu).min(interface.mtu));
        let known = self.neighbours.iter().find(|(on, address, _)| *on == dev && *address == next);
        let (next_family, next) = Addr::from_ip(next);
        Way {
            kind: if known.is_some() { WayKind::Known } else { WayKind::Unresolved },
            hop: Hop {
                ifindex: interface.index,
                mtu,
                neighbour: known.map(|(.., mac)| *mac).unwrap_or_default(),
                own: interface.mac,
            },
            next,
            next_family,
        }
    }

    /// The target of the longest prefix that `to` is in.
    fn lookup(&self, to: IpAddr) -> Option<Target> {
        if self.has(to) {
            return Some(Target::Local);
        }
        let on_link = self.interfaces.iter().flat_map(|interface| {
            let target = Target::Out { dev: interface.name.to_owned(), via: None, mtu: None };
            interface
                .addresses
                .iter()
                .map(move |net| Entry { to: net.trunc(), target: target.clone() })
        });
        let matching = on_link.chain(self.routes.iter().cloned()).filter(|it| it.to.contains(&to));
        matching.max_by_key(|it| it.to.prefix_len()).map(|it| it.target)
    }

    /// The address that the host sends from when it speaks through `dev`.
    pub fn own_address(&self, dev: &str, family: Family) -> Option<IpAddr> {
        let addresses = &self.interface(dev)?.addresses;
        addresses.iter().map(IpNet::addr).find(|it| it.is_ipv4() == (family == Family::V4))
    }

    /// Carries out a command that changes the host; `None` if it is one that
    /// this model does not know.
    pub fn command(&mut self, line: &str) -> Option<()> {
        let words: Vec<&str> = line.split_whitespace().filter(|word| *word != "-6").collect();
        match words.as_slice() {
            ["ip", "link", "set", name, "mtu", mtu] => {
                let mtu = mtu.parse().ok()?;
                self.interfaces.iter_mut().find(|it| it.name == *name)?.mtu = mtu;
                Some(())
            }
            ["ip", "route", "add", "local", to, "dev", "lo"] => {
                self.routes.push(Entry { to: network(to)?, target: Target::Local });
                Some(())
            }
            ["ip", "route", "change", "default", "via", router, "dev", dev, "mtu", mtu] => {
                let via: IpAddr = router.parse().ok()?;
                let mtu = Some(mtu.parse().ok()?);
                let default = |it: &&mut Entry| {
                    it.to.prefix_len() == 0 && it.to.addr().is_ipv4() == via.is_ipv4()
                };
                self.routes.iter_mut().find(default)?.target =
                    Target::Out { dev: (*dev).to_owned(), via: Some(via), mtu };
                Some(())
            }
            _ => None,
        }
    }
}

const CLIENT_ROUTER: Mac = [2, 0, 0, 0, 0x0c, 2];

fn server_mac(last: u8) -> Mac {
    [2, 0, 0, 0, 0x51, last]
}

fn ip(octets: [u8; 4]) -> IpAddr {
    Ipv4Addr::from(octets).into()
}

fn ip6(words: [u16; 8]) -> IpAddr {
    Ipv6Addr::from(words).into()
}

fn net(octets: [u8; 4], prefix: u8) -> IpNet {
    IpNet::new_assert(ip(octets), prefix)
}

fn net6(words: [u16; 8], prefix: u8) -> IpNet {
    IpNet::new_assert(ip6(words), prefix)
}

fn network(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| Some(IpNet::from(text.parse::<IpAddr>().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(host: &Host, to: &str) -> Way {
        let (family, destination) = Addr::from_ip(to.parse().unwrap());
        host.route(&RouteQuery { family, destination, source: Addr::UNSPECIFIED })
    }

    fn hop(host: &Host, to: &str) -> (u32, Mac, u32) {
        let way = route(host, to);
        assert_eq!(way.kind, WayKind::Known, "{to}");
        (way.hop.ifindex, way.hop.neighbour, way.hop.mtu)
    }

    #[test]
    fn servers_clients_and_what_lies_behind_routers_are_reached() {
        let host = Host::std_1();
        assert_eq!(hop(&host, "10.1.0.22"), (3, [2, 0, 0, 0, 0x51, 0x22], 1500));
        assert_eq!(hop(&host, "2001:db8:5::11"), (3, [2, 0, 0, 0, 0x51, 0x11], 1500));
        assert_eq!(hop(&host, "10.2.0.7"), (3, [2, 0, 0, 0, 0x51, 0xfe], 1500));
        assert_eq!(hop(&host, "198.51.100.1"), (2, [2, 0, 0, 0, 0x0c, 2], 1500));
        assert_eq!(hop(&host, "2001:db8:ffff::1"), (2, [2, 0, 0, 0, 0x0c, 2], 1500));
        assert_eq!(route(&host, "192.0.2.10").kind, WayKind::Host);
        let unresolved = route(&host, "10.1.0.99");
        assert_eq!((unresolved.kind, unresolved.hop.ifindex), (WayKind::Unresolved, 3));
    }

    #[test]
    fn the_commands_of_the_cases_change_it() {
        let mut host = Host::std_1();
        host.command("ip link set s0 mtu 1400").unwrap();
        host.command("ip route change default via 192.0.2.254 dev c0 mtu 1300").unwrap();
        host.command("ip -6 route change default via 2001:db8:c::fe dev c0 mtu 1280").unwrap();
        host.command("ip route add local 203.0.113.99 dev lo").unwrap();
        assert_eq!(hop(&host, "10.1.0.11").2, 1400);
        assert_eq!(hop(&host, "198.51.100.1").2, 1300);
        assert_eq!(hop(&host, "2001:db8:ffff::1").2, 1280);
        assert_eq!(route(&host, "203.0.113.99").kind, WayKind::Host);
        assert_eq!(host.command("ip rule add fwmark 7 lookup 100"), None);
    }
}
