//! Neighbours: MAC addresses of hosts on the same link, and how to have the
//! kernel find them out.

use std::io;

use ipvs_core::addr::{Addr, Family};
use ipvs_wire::ethernet::Mac;
use netlink_packet_core::NLM_F_CREATE;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourExtFlags, NeighbourFlags, NeighbourMessage,
    NeighbourState as State,
};

use super::{Rtnetlink, address_family};

/// What the kernel thinks of a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NeighbourState {
    /// Its address is good.
    Valid,
    /// Its address was good, and the kernel asks again once somebody uses it.
    Stale,
    /// The kernel is asking.
    Incomplete,
    /// Nobody answered, or nobody has asked.
    Unknown,
}

/// A neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Index of the interface.
    pub ifindex: u32,
    /// Family of `addr`.
    pub family: Family,
    /// Its IP address.
    pub addr: Addr,
    /// Its MAC address, if known.
    pub mac: Option<Mac>,
    /// How good that is.
    pub state: NeighbourState,
    /// Whether the kernel keeps it known ([`Rtnetlink::manage_neighbour`]).
    pub managed: bool,
}

impl Neighbour {
    /// The MAC address, if a frame may be sent to it now.
    pub const fn usable(&self) -> Option<Mac> {
        match self.state {
            NeighbourState::Valid | NeighbourState::Stale => self.mac,
            NeighbourState::Incomplete | NeighbourState::Unknown => None,
        }
    }

    /// The same neighbour, of whom nothing is known any more.
    pub(super) const fn forgotten(self) -> Self {
        Self { mac: None, state: NeighbourState::Unknown, ..self }
    }

    pub(super) fn of(message: &NeighbourMessage) -> Option<Self> {
        let (mut address, mut mac, mut managed) = (None, None, false);
        for attribute in &message.attributes {
            match attribute {
                NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => {
                    address = Some((Family::V4, Addr::v4(ip.octets())));
                }
                NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => {
                    address = Some((Family::V6, Addr::v6(ip.octets())));
                }
                NeighbourAttribute::LinkLayerAddress(octets) => {
                    mac = octets.as_slice().try_into().ok();
                }
                NeighbourAttribute::ExtFlags(flags) => {
                    managed = flags.contains(NeighbourExtFlags::Managed);
                }
                _ => {}
            }
        }
        let (family, addr) = address?;
        let state = match message.header.state {
            State::Reachable | State::Delay | State::Probe | State::Permanent | State::Noarp => {
                NeighbourState::Valid
            }
            State::Stale => NeighbourState::Stale,
            State::Incomplete => NeighbourState::Incomplete,
            _ => NeighbourState::Unknown,
        };
        Some(Self { ifindex: message.header.ifindex, family, addr, mac, state, managed })
    }
}

impl Rtnetlink {
    /// Asks for a neighbour; `None` if the kernel has no entry.
    pub fn neighbour(
        &mut self,
        ifindex: u32,
        family: Family,
        addr: Addr,
    ) -> io::Result<Option<Neighbour>> {
        Ok(self.find(question(ifindex, family, addr))?.and_then(|found| Neighbour::of(&found)))
    }

    fn find(&mut self, question: NeighbourMessage) -> io::Result<Option<NeighbourMessage>> {
        match self.ask(RouteNetlinkMessage::GetNeighbour(question)) {
            Ok(Some(RouteNetlinkMessage::NewNeighbour(found))) => Ok(Some(found)),
            Ok(_) => Ok(None),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Has the kernel find out, or check again, a neighbour's MAC address, as
    /// if it had a packet for it (`NTF_USE`). Needs `CAP_NET_ADMIN`.
    pub fn use_neighbour(&mut self, ifindex: u32, family: Family, addr: Addr) -> io::Result<()> {
        let mut message = question(ifindex, family, addr);
        message.header.flags = NeighbourFlags::Use;
        self.change(RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE)
    }

    /// Has the kernel keep a neighbour's MAC address known from now on, with or
    /// without this process (`NTF_EXT_MANAGED`, Linux 5.16). Needs `CAP_NET_ADMIN`.
    ///
    /// A permanent entry is left alone: it needs no keeping, and the kernel
    /// would make it forget its MAC address.
    pub fn manage_neighbour(&mut self, ifindex: u32, family: Family, addr: Addr) -> io::Result<()> {
        let mut message = question(ifindex, family, addr);
        let found = self.find(message.clone())?;
        if found.is_some_and(|it| matches!(it.header.state, State::Permanent | State::Noarp)) {
            return Ok(());
        }
        message.header.flags = NeighbourFlags::Use;
        message.attributes.push(NeighbourAttribute::ExtFlags(NeighbourExtFlags::Managed));
        self.change(RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE)
    }

    /// Has the kernel treat a neighbour that was kept known as any other. Needs
    /// `CAP_NET_ADMIN`.
    pub fn release_neighbour(
        &mut self,
        ifindex: u32,
        family: Family,
        addr: Addr,
    ) -> io::Result<()> {
        if !self.neighbour(ifindex, family, addr)?.is_some_and(|it| it.managed) {
            return Ok(());
        }
        let mut message = question(ifindex, family, addr);
        // Its state stays as it is; only the flag goes.
        message.header.flags = NeighbourFlags::Use;
        message.attributes.push(NeighbourAttribute::ExtFlags(NeighbourExtFlags::empty()));
        self.change(RouteNetlinkMessage::NewNeighbour(message), 0)
    }
}

fn question(ifindex: u32, family: Family, addr: Addr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = address_family(family);
    message.header.ifindex = ifindex;
    let destination = match addr.to_ip(family) {
        std::net::IpAddr::V4(ip) => NeighbourAddress::Inet(ip),
        std::net::IpAddr::V6(ip) => NeighbourAddress::Inet6(ip),
    };
    message.attributes.push(NeighbourAttribute::Destination(destination));
    message
}
