//! Interfaces: veth pairs, bridges, addresses, state and offloads.

use std::{
    io::{self, Write as _},
    net::IpAddr,
    os::fd::{AsFd, AsRawFd},
    time::{Duration, Instant},
};

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressHeaderFlags, AddressMessage},
    link::{
        InfoBridge, InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
        State,
    },
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
    route::RouteType,
};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, Socket, Type};

use crate::{
    MacAddr, Namespace,
    error::{Doing, Error, Result},
    ethtool::Offload,
    netlink::RouteSocket,
    sys,
};

/// An interface of a namespace.
#[derive(Clone, Debug)]
pub struct Link {
    namespace: Namespace,
    name: String,
    index: u32,
}

impl Link {
    pub(crate) fn find(namespace: &Namespace, name: &str) -> Result<Self> {
        let index = state_of(namespace, name)?.header.index;
        Ok(Self { namespace: namespace.clone(), name: name.to_owned(), index })
    }

    /// The namespace that the interface is in.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The interface's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The interface's index in its namespace.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Asks for the interface's Ethernet address.
    pub fn mac(&self) -> Result<MacAddr> {
        let state = state_of(&self.namespace, &self.name)?;
        state
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                LinkAttribute::Address(octets) => octets.as_slice().try_into().ok().map(MacAddr),
                _ => None,
            })
            .ok_or(Error::Misuse("the interface has no Ethernet address"))
    }

    /// Sets the interface up.
    pub fn up(&self) -> Result<()> {
        self.set_flags(LinkFlags::Up, "set up")
    }

    /// Sets the interface down; the other end of a veth pair loses its carrier.
    pub fn down(&self) -> Result<()> {
        self.set_flags(LinkFlags::empty(), "set down")
    }

    fn set_flags(&self, flags: LinkFlags, action: &str) -> Result<()> {
        let mut message = self.message();
        message.header.flags = flags;
        message.header.change_mask = LinkFlags::Up;
        self.change(message, action)
    }

    /// Sets the interface's MTU.
    pub fn set_mtu(&self, mtu: u32) -> Result<()> {
        let mut message = self.message();
        message.attributes.push(LinkAttribute::Mtu(mtu));
        self.change(message, "set the MTU of")
    }

    /// Makes the interface a port of `bridge`, which is in the same namespace.
    pub fn join(&self, bridge: &Link) -> Result<()> {
        let mut message = self.message();
        message.attributes.push(LinkAttribute::Controller(bridge.index));
        self.change(message, "make a bridge port of")
    }

    /// Sends a frame, Ethernet header and all, out of the interface.
    pub fn send_frame(&self, frame: &[u8]) -> Result<()> {
        let doing = || format!("send a frame out of {self}");
        let send = || -> io::Result<()> {
            let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
            sys::bind_packet_socket(&socket, self.index, 0)?;
            (&socket).write_all(frame)
        };
        self.namespace.run(send)?.doing(doing)
    }

    /// Removes the interface; of a veth pair, both ends go.
    pub fn remove(self) -> Result<()> {
        self.namespace
            .request(RouteNetlinkMessage::DelLink(self.message()), 0)
            .map(|_none| ())
            .doing(|| format!("remove {self}"))
    }

    fn message(&self) -> LinkMessage {
        let mut message = LinkMessage::default();
        message.header.index = self.index;
        message
    }

    fn change(&self, message: LinkMessage, action: &str) -> Result<()> {
        self.namespace
            .request(RouteNetlinkMessage::SetLink(message), 0)
            .map(|_none| ())
            .doing(|| format!("{action} {self}"))
    }

    /// Adds an address; an IPv6 address is usable at once (`IFA_F_NODAD`).
    pub fn add_address(&self, address: IpNet) -> Result<()> {
        let mut message = self.address_message(address);
        message.header.flags = AddressHeaderFlags::Nodad;
        self.namespace
            .request(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL)
            .map(|_none| ())
            .doing(|| format!("add address {address} to {self}"))
    }

    /// Removes an address.
    pub fn remove_address(&self, address: IpNet) -> Result<()> {
        self.namespace
            .request(RouteNetlinkMessage::DelAddress(self.address_message(address)), 0)
            .map(|_none| ())
            .doing(|| format!("remove address {address} from {self}"))
    }

    fn address_message(&self, address: IpNet) -> AddressMessage {
        let mut message = AddressMessage::default();
        message.header.family = family(address.addr());
        message.header.prefix_len = address.prefix_len();
        message.header.index = self.index;
        message.attributes.push(AddressAttribute::Local(address.addr()));
        message.attributes.push(AddressAttribute::Address(address.addr()));
        message
    }

    /// Adds a permanent neighbour: nobody is asked who has `address`.
    pub fn add_neighbour(&self, address: IpAddr, mac: MacAddr) -> Result<()> {
        let mut message = NeighbourMessage::default();
        message.header.family = family(address);
        message.header.ifindex = self.index;
        message.header.state = NeighbourState::Permanent;
        message.header.kind = RouteType::Unicast;
        let destination = match address {
            IpAddr::V4(address) => NeighbourAddress::Inet(address),
            IpAddr::V6(address) => NeighbourAddress::Inet6(address),
        };
        message.attributes.push(NeighbourAttribute::Destination(destination));
        message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
        self.namespace
            .request(
                RouteNetlinkMessage::NewNeighbour(message),
                NLM_F_CREATE | netlink_packet_core::NLM_F_REPLACE,
            )
            .map(|_none| ())
            .doing(|| format!("add neighbour {address} at {mac} to {self}"))
    }

    /// Sets a sysctl of the interface: `family` is `ipv4` or `ipv6`, as in
    /// `net/FAMILY/conf/LINK/KEY`.
    pub fn sysctl(&self, family: &str, key: &str, value: &str) -> Result<()> {
        self.namespace.sysctl(&format!("net/{family}/conf/{}/{key}", self.name), value)
    }

    /// Turns an offload on or off.
    pub fn set_offload(&self, offload: Offload, on: bool) -> Result<()> {
        offload
            .set(&self.namespace, &self.name, on)
            .doing(|| format!("turn {offload} {} on {self}", if on { "on" } else { "off" }))
    }

    /// Returns whether an offload is on.
    pub fn offload(&self, offload: Offload) -> Result<bool> {
        offload
            .is_on(&self.namespace, &self.name)
            .doing(|| format!("ask whether {offload} is on on {self}"))
    }

    /// Turns off all that makes a frame inside the kernel differ from one on a wire: unfilled
    /// checksums and segments larger than the MTU.
    pub fn disable_offloads(&self) -> Result<()> {
        Offload::ALL.iter().try_for_each(|&offload| self.set_offload(offload, false))
    }

    /// Waits until the interface is up with carrier and can take packets.
    pub fn wait_until_running(&self, timeout: Duration) -> Result<()> {
        const LINK_EVENTS: u32 = 1; // RTNLGRP_LINK
        let events = self
            .namespace
            .run(RouteSocket::open)?
            .doing(|| format!("open rtnetlink in {}", self.namespace.name()))?;
        events.join(LINK_EVENTS).doing(|| format!("listen for changes of {self}"))?;
        let deadline = Instant::now() + timeout;
        loop {
            // Asked after the subscription, so no change can be missed.
            if is_running(&state_of(&self.namespace, &self.name)?) {
                return Ok(());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::TimedOut { what: format!("the carrier of {self}") });
            }
            wait_readable(&events, left).doing(|| format!("wait for {self}"))?;
        }
    }
}

impl std::fmt::Display for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} in {}", self.name, self.namespace.name())
    }
}

/// Takes the waiting events, after waiting for at most `timeout` for one to come.
fn wait_readable(events: &RouteSocket, timeout: Duration) -> io::Result<()> {
    let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
    let mut ready = [PollFd::new(events.as_fd(), PollFlags::POLLIN)];
    if poll(&mut ready, timeout)? > 0 {
        events.next_event()?;
    }
    Ok(())
}

fn is_running(state: &LinkMessage) -> bool {
    state.header.flags.contains(LinkFlags::Up | LinkFlags::LowerUp | LinkFlags::Running)
        && state.attributes.iter().all(|attribute| match attribute {
            LinkAttribute::OperState(oper) => matches!(oper, State::Up | State::Unknown),
            _ => true,
        })
}

fn state_of(namespace: &Namespace, name: &str) -> Result<LinkMessage> {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    let missing =
        || Error::NoSuchLink { namespace: namespace.name().to_owned(), link: name.to_owned() };
    let answers = match namespace.request(RouteNetlinkMessage::GetLink(message), 0) {
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => return Err(missing()),
        other => other.doing(|| format!("look for {name} in {}", namespace.name()))?,
    };
    answers
        .into_iter()
        .find_map(|answer| match answer {
            RouteNetlinkMessage::NewLink(link) => Some(link),
            _ => None,
        })
        .ok_or_else(missing)
}

pub(crate) fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

/// One end of a veth pair to be made.
#[derive(Clone, Copy, Debug)]
pub struct End<'a> {
    namespace: &'a Namespace,
    name: &'a str,
    mac: Option<MacAddr>,
    queues: Option<u32>,
}

impl<'a> End<'a> {
    /// An end called `name` in `namespace`, with an Ethernet address of the kernel's choice.
    #[must_use]
    pub fn new(namespace: &'a Namespace, name: &'a str) -> Self {
        Self { namespace, name, mac: None, queues: None }
    }

    /// Gives the end an Ethernet address.
    #[must_use]
    pub fn mac(self, mac: MacAddr) -> Self {
        Self { mac: Some(mac), ..self }
    }

    /// Gives the end so many queues in either direction, each of which another CPU may serve;
    /// otherwise it has one.
    #[must_use]
    pub fn queues(self, queues: u32) -> Self {
        Self { queues: Some(queues), ..self }
    }

    fn attributes(&self, mtu: Option<u32>) -> Vec<LinkAttribute> {
        let mut attributes = vec![LinkAttribute::IfName(self.name.to_owned())];
        attributes.extend(self.mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
        attributes.extend(mtu.map(LinkAttribute::Mtu));
        attributes.extend(self.queues.map(LinkAttribute::NumTxQueues));
        attributes.extend(self.queues.map(LinkAttribute::NumRxQueues));
        attributes
    }
}

/// Makes a veth pair, sets both ends up and returns them in the order of the arguments.
///
/// Without an `mtu` the kernel gives 1500.
pub fn veth(one: End<'_>, other: End<'_>, mtu: Option<u32>) -> Result<(Link, Link)> {
    let mut peer = LinkMessage::default();
    peer.attributes = other.attributes(mtu);
    peer.attributes.push(LinkAttribute::NetNsFd(other.namespace.fd().as_raw_fd()));
    let mut message = LinkMessage::default();
    message.attributes = one.attributes(mtu);
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
    ]));
    create(one.namespace, message, || {
        format!(
            "make veth pair {} in {} and {} in {}",
            one.name,
            one.namespace.name(),
            other.name,
            other.namespace.name()
        )
    })?;
    let links = (one.namespace.link(one.name)?, other.namespace.link(other.name)?);
    links.0.up()?;
    links.1.up()?;
    Ok(links)
}

/// Makes a bridge that forwards at once (no spanning tree) and floods multicast (no snooping),
/// and sets it up.
pub fn bridge(namespace: &Namespace, name: &str, mtu: Option<u32>) -> Result<Link> {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    message.attributes.extend(mtu.map(LinkAttribute::Mtu));
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Bridge),
        LinkInfo::Data(InfoData::Bridge(vec![
            InfoBridge::ForwardDelay(0),
            InfoBridge::MulticastSnooping(false),
        ])),
    ]));
    create(namespace, message, || format!("make bridge {name} in {}", namespace.name()))?;
    let link = namespace.link(name)?;
    link.up()?;
    Ok(link)
}

fn create(
    namespace: &Namespace,
    message: LinkMessage,
    action: impl FnOnce() -> String,
) -> Result<()> {
    match namespace.request(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL) {
        Ok(_none) => Ok(()),
        Err(source) if source.raw_os_error() == Some(libc::EOPNOTSUPP) => Err(Error::Unavailable {
            action: action(),
            source,
            advice: "the kernel lacks this kind of interface (CONFIG_VETH, CONFIG_BRIDGE)",
        }),
        other => other.map(|_none| ()).doing(action),
    }
}
