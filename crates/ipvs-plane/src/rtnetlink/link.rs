//! Interfaces and their addresses.

use std::io;
use std::net::IpAddr;

use ipvs_core::addr::{Addr, Family};
use ipvs_wire::ethernet::Mac;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage, LinkXdp,
};

use super::Rtnetlink;

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its Ethernet address; `None` if it is no Ethernet interface.
    pub mac: Option<Mac>,
    /// Largest IP packet, in octets.
    pub mtu: u32,
    /// What makes it, as in `ip link`: `veth`, `tun`, `bridge`, …; empty for a NIC.
    pub kind: String,
    /// Set up by the administrator.
    pub up: bool,
    /// It is a loopback interface.
    pub loopback: bool,
    /// The bridge or bond that it is a port of.
    pub controller: Option<u32>,
    /// An XDP program is attached.
    pub has_xdp: bool,
    /// What somebody wrote on it, as in `ip link`; empty for nothing.
    pub alias: String,
}

/// What is written on both interfaces of a [host door](crate::bpf::door).
pub(crate) const DOOR_ALIAS: &str = "ipvs-rs: host door";

impl Link {
    /// Whether whole Ethernet frames come in and go out by it, for the host itself.
    pub fn carries_frames(&self) -> bool {
        self.mac.is_some() && !self.loopback && self.controller.is_none() && !self.is_door()
    }

    /// Whether it is one of the two interfaces of the eBPF plane's host door.
    pub fn is_door(&self) -> bool {
        self.alias == DOOR_ALIAS
    }

    pub(super) fn of(message: &LinkMessage) -> Self {
        let header = &message.header;
        let mut link = Self {
            index: header.index,
            name: String::new(),
            mac: None,
            mtu: 0,
            kind: String::new(),
            up: header.flags.contains(LinkFlags::Up),
            loopback: header.flags.contains(LinkFlags::Loopback),
            controller: None,
            has_xdp: false,
            alias: String::new(),
        };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::Address(octets)
                    if header.link_layer_type == LinkLayerType::Ether =>
                {
                    link.mac = octets.as_slice().try_into().ok();
                }
                LinkAttribute::IfAlias(alias) => link.alias.clone_from(alias),
                LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
                LinkAttribute::Controller(index) => link.controller = Some(*index),
                LinkAttribute::LinkInfo(infos) => {
                    for info in infos {
                        if let LinkInfo::Kind(kind) = info {
                            link.kind = kind.to_string();
                        }
                    }
                }
                LinkAttribute::Xdp(infos) => {
                    link.has_xdp =
                        infos.iter().any(|info| matches!(info, LinkXdp::ProgId(id) if *id != 0));
                }
                _ => {}
            }
        }
        link
    }
}

/// An address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// Index of the interface.
    pub index: u32,
    /// Family.
    pub family: Family,
    /// The address.
    pub addr: Addr,
    /// Bits of the prefix that is on the link.
    pub prefix_len: u8,
}

impl Address {
    /// Whether `addr` is on the link too.
    pub fn covers(&self, family: Family, addr: Addr) -> bool {
        if family != self.family {
            return false;
        }
        let whole = usize::from(self.prefix_len / 8);
        let mask = !(0xff_u8.checked_shr(u32::from(self.prefix_len % 8)).unwrap_or(0));
        let (mine, other) = (self.addr.octets(), addr.octets());
        mine.iter().zip(&other).take(whole).all(|(a, b)| a == b)
            && mine.iter().zip(&other).nth(whole).is_none_or(|(a, b)| a & mask == b & mask)
    }

    fn of(message: &AddressMessage) -> Option<Self> {
        // On a point-to-point link `Address` is the peer's, and `Local` this host's.
        let find = |local| {
            message.attributes.iter().find_map(|attribute| match attribute {
                AddressAttribute::Local(ip) if local => Some(*ip),
                AddressAttribute::Address(ip) if !local => Some(*ip),
                _ => None,
            })
        };
        let ip: IpAddr = find(true).or_else(|| find(false))?;
        let (family, addr) = Addr::from_ip(ip);
        let header = &message.header;
        Some(Self { index: header.index, family, addr, prefix_len: header.prefix_len })
    }
}

impl Rtnetlink {
    /// Every interface.
    pub fn links(&mut self) -> io::Result<Vec<Link>> {
        let answers = self.dump(RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
        Ok(answers
            .iter()
            .filter_map(|answer| match answer {
                RouteNetlinkMessage::NewLink(link) => Some(Link::of(link)),
                _ => None,
            })
            .collect())
    }

    /// Every address of every interface.
    pub fn addresses(&mut self) -> io::Result<Vec<Address>> {
        let answers = self.dump(RouteNetlinkMessage::GetAddress(AddressMessage::default()))?;
        Ok(answers
            .iter()
            .filter_map(|answer| match answer {
                RouteNetlinkMessage::NewAddress(address) => Address::of(address),
                _ => None,
            })
            .collect())
    }
}
