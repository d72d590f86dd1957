//! Pairs of veth interfaces that only this program uses: making, setting up
//! and removing them.

use std::io;

use ipvs_wire::ethernet::Mac;
use netlink_packet_core::{DefaultNla, NLA_F_NESTED, NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    AfSpecInet, AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoVeth,
    LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};

use super::Rtnetlink;

/// `IFLA_INET_CONF`: settings of `net.ipv4.conf` by number.
const INET_CONF: u16 = 1;
/// Below this MTU an interface has no IPv6 (RFC 8200, section 5).
const IPV6_MIN_MTU: u32 = 1280;
/// The largest there is: what passes here was, or will be, measured elsewhere.
const MTU: u32 = 65_535;
/// Octets of an attribute that holds 32 bits.
const WORD_ATTRIBUTE_LEN: u16 = 8;

/// One end of a pair that is to be made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End {
    pub(crate) name: &'static str,
    pub(crate) mac: Mac,
}

/// A setting of an interface in `net.ipv4.conf`: the kernel's number for it
/// (`IPV4_DEVCONF_*`) and the value.
pub(crate) type Inet = (u16, u32);

impl End {
    /// No neighbours are asked for by such an interface, and it joins no group:
    /// IPv6 would join that of all routers in the moment that it is made, so it
    /// is made too small for IPv6.
    fn message(self) -> LinkMessage {
        let mut message = LinkMessage::default();
        message.header.flags = LinkFlags::Noarp;
        message.header.change_mask = LinkFlags::Noarp | LinkFlags::Multicast;
        message.attributes.extend([
            LinkAttribute::IfName(self.name.to_owned()),
            LinkAttribute::Address(self.mac.to_vec()),
            LinkAttribute::Mtu(IPV6_MIN_MTU - 1),
        ]);
        message
    }
}

impl Rtnetlink {
    /// Makes a pair of veth interfaces, both down. Needs `CAP_NET_ADMIN`.
    pub(crate) fn make_pair(&mut self, ends: [End; 2]) -> io::Result<()> {
        let [mut message, peer] = ends.map(End::message);
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]));
        self.change(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Gives an interface its settings and no IPv6 address of its own making,
    /// sets it up and, when all that is done, writes `alias` on it.
    pub(crate) fn set_up(&mut self, index: u32, inet: &[Inet], alias: &str) -> io::Result<()> {
        let v4 = AfSpecUnspec::Inet(vec![AfSpecInet::Other(inet_conf(inet))]);
        let v6 = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]);
        self.set(index, LinkAttribute::Mtu(MTU))?;
        for families in [v4, v6] {
            match self.set(index, LinkAttribute::AfSpecUnspec(vec![families])) {
                // A host without IPv6 needs nothing of it.
                Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => {}
                outcome => outcome?,
            }
        }
        let mut message = of(index);
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        self.change(RouteNetlinkMessage::SetLink(message), 0)?;
        self.set(index, LinkAttribute::IfAlias(alias.to_owned()))
    }

    fn set(&mut self, index: u32, attribute: LinkAttribute) -> io::Result<()> {
        let mut message = of(index);
        message.attributes.push(attribute);
        self.change(RouteNetlinkMessage::SetLink(message), 0)
    }

    /// Removes an interface; of a pair, both ends go.
    pub(crate) fn remove_link(&mut self, index: u32) -> io::Result<()> {
        self.change(RouteNetlinkMessage::DelLink(of(index)), 0)
    }
}

fn of(index: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message
}

/// Written out here because the crate's own type leaves zeros out.
fn inet_conf(settings: &[Inet]) -> DefaultNla {
    let mut octets = Vec::new();
    for (number, value) in settings {
        octets.extend(WORD_ATTRIBUTE_LEN.to_ne_bytes());
        octets.extend(number.to_ne_bytes());
        octets.extend(value.to_ne_bytes());
    }
    DefaultNla::new(INET_CONF | NLA_F_NESTED, octets)
}
