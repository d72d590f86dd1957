//! Neighbour discovery for virtual IPv6 addresses (RFC 4861).

use std::net::Ipv6Addr;

use ipvs_core::addr::Addr;
use ipvs_wire::Buffer;
use ipvs_wire::checksum::Sum;
use ipvs_wire::ethernet::{self, HEADER_LEN, Mac};
use ipvs_wire::ipv6::{self, Ipv6Fields};
use ipvs_wire::transport::protocol;

use crate::frame::Frame;

/// ICMPv6 type of a solicitation.
const SOLICITATION: u8 = 135;
/// ICMPv6 type of an advertisement.
const ADVERTISEMENT: u8 = 136;
/// Octets of either without options.
const LEN: u32 = 24;
/// Octets of an advertisement with the sender's MAC address as an option.
const ADVERTISEMENT_LEN: u16 = 32;
/// The option: target link-layer address, one unit of eight octets.
const TARGET_ADDRESS: [u8; 2] = [2, 1];
/// Flag: the answer to a solicitation.
const SOLICITED: u8 = 0x40;
/// Flag: a MAC address that is remembered for the address is replaced.
const OVERRIDE: u8 = 0x20;
/// The hop limit that only a neighbour's packet can have.
const FROM_THE_LINK: u8 = 255;
/// Every node on the link …
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// … and its MAC address.
const ALL_NODES_MAC: Mac = [0x33, 0x33, 0, 0, 0, 1];

/// Who asks for whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Solicitation {
    /// MAC address of who asks.
    pub(super) mac: Mac,
    /// Address of who asks; unspecified if that wants to know whether the
    /// address is taken.
    pub(super) sender: Addr,
    /// The address asked for.
    pub(super) target: Addr,
}

impl Solicitation {
    /// Reads an untagged frame; `None` if it is no valid solicitation.
    pub(super) fn parse(frame: &Frame) -> Option<Self> {
        const L4: u32 = HEADER_LEN + ipv6::HEADER_LEN;
        let [kind, code]: [u8; 2] = frame.load(L4)?;
        let ethertype = u16::from_be_bytes(frame.load(12)?);
        let [high, low, next, hop_limit]: [u8; 4] = frame.load(HEADER_LEN + 4)?;
        let len = u32::from(u16::from_be_bytes([high, low]));
        if ethertype != ethernet::IPV6
            || (next, hop_limit) != (protocol::ICMPV6, FROM_THE_LINK)
            || (kind, code) != (SOLICITATION, 0)
            || len < LEN
        {
            return None;
        }
        let source = frame.load_words(HEADER_LEN + ipv6::SOURCE)?;
        let destination = frame.load_words(HEADER_LEN + ipv6::DESTINATION)?;
        let sum = pseudo_header(source, destination, len).add16(frame.sum(L4, len)?);
        if sum.checksum() != 0 && !frame.checksum_pending {
            return None;
        }
        Some(Self {
            mac: ethernet::source(frame)?,
            sender: Addr::from_words(source),
            target: Addr::from_words(frame.load_words(L4 + 8)?),
        })
    }

    /// Makes `frame` the answer of `own`, who has the address.
    pub(super) fn answer(&self, own: Mac, frame: &mut Frame) -> Option<()> {
        if self.sender.is_unspecified() {
            return announce(own, self.target, frame);
        }
        write(frame, own, self.target, (self.mac, self.sender), SOLICITED | OVERRIDE)
    }
}

/// Makes `frame` the announcement to all nodes that `own` has `addr`.
pub(super) fn announce(own: Mac, addr: Addr, frame: &mut Frame) -> Option<()> {
    write(frame, own, addr, (ALL_NODES_MAC, Addr::v6(ALL_NODES.octets())), OVERRIDE)
}

/// The group in which solicitations for `addr` arrive (RFC 4291, section 2.7.1).
pub(super) fn solicited_node(addr: Addr) -> Ipv6Addr {
    let [.., a, b, c] = addr.octets();
    let low = u16::from_be_bytes([b, c]);
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), low)
}

fn write(frame: &mut Frame, own: Mac, addr: Addr, to: (Mac, Addr), flags: u8) -> Option<()> {
    const L4: u32 = HEADER_LEN + ipv6::HEADER_LEN;
    frame.refill(&[
        &to.0,
        &own,
        &ethernet::IPV6.to_be_bytes(),
        &[0; ipv6::HEADER_LEN as usize],
        &[ADVERTISEMENT, 0, 0, 0, flags, 0, 0, 0],
        &addr.octets(),
        &TARGET_ADDRESS,
        &own,
    ]);
    let fields = Ipv6Fields {
        class: 0,
        payload_len: ADVERTISEMENT_LEN,
        next: protocol::ICMPV6,
        hop_limit: FROM_THE_LINK,
        source: addr.words(),
        destination: to.1.words(),
    };
    fields.store(frame, HEADER_LEN)?;
    let len = u32::from(ADVERTISEMENT_LEN);
    let sum = pseudo_header(fields.source, fields.destination, len).add16(frame.sum(L4, len)?);
    frame.store(L4 + 2, sum.checksum().to_ne_bytes())
}

fn pseudo_header(source: [u32; 4], destination: [u32; 4], len: u32) -> Sum {
    Sum::ZERO
        .addr(source)
        .addr(destination)
        .add32(len.to_be())
        .add16(u16::from_ne_bytes([0, protocol::ICMPV6]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::testing::{CLIENT6, VIP6};

    const CLIENT: Mac = [2, 0, 0, 0, 0, 2];
    const OWN: Mac = [2, 0, 0, 0, 0, 1];

    /// A solicitation: an advertisement with another type.
    fn solicitation(sender: [u8; 16], target: [u8; 16]) -> Frame {
        let mut frame = Frame::default();
        let group = Addr::v6(solicited_node(Addr::v6(target)).octets());
        write(&mut frame, CLIENT, Addr::v6(target), ([0x33; 6], group), 0).unwrap();
        ipv6::set_address(&mut frame, 14, ipv6::SOURCE, Addr::v6(sender).words()).unwrap();
        frame.store(54, [SOLICITATION, 0, 0, 0]).unwrap();
        let sum = pseudo_header(Addr::v6(sender).words(), group.words(), 32)
            .add16(frame.sum(54, 32).unwrap());
        frame.store(56, sum.checksum().to_ne_bytes()).unwrap();
        frame
    }

    /// The parts of an advertisement, its checksum asserted.
    fn advertisement(frame: &Frame) -> (Mac, Addr, u8, Addr) {
        let octets = frame.octets();
        assert_eq!(octets.len(), 86);
        let words = |at| frame.load_words(at).unwrap();
        let sum = pseudo_header(words(22), words(38), 32).add16(frame.sum(54, 32).unwrap());
        assert_eq!((sum.checksum(), octets[54], octets[21]), (0, ADVERTISEMENT, 255));
        assert_eq!(
            (words(22), &octets[78..]),
            (words(62), [&TARGET_ADDRESS[..], &OWN].concat().as_slice())
        );
        let to = octets[..6].try_into().unwrap();
        (to, Addr::from_words(words(38)), octets[58], Addr::from_words(words(62)))
    }

    #[test]
    fn a_solicitation_is_answered_to_who_asked() {
        let solicitation = Solicitation::parse(&solicitation(CLIENT6, VIP6)).unwrap();
        let mut answer = Frame::default();
        solicitation.answer(OWN, &mut answer).unwrap();
        let expected = (CLIENT, Addr::v6(CLIENT6), SOLICITED | OVERRIDE, Addr::v6(VIP6));
        assert_eq!(advertisement(&answer), expected);
    }

    #[test]
    fn whoever_wants_to_know_whether_the_address_is_taken_is_told_with_all_others() {
        let solicitation = Solicitation::parse(&solicitation([0; 16], VIP6)).unwrap();
        let mut answer = Frame::default();
        solicitation.answer(OWN, &mut answer).unwrap();
        let all = (ALL_NODES_MAC, Addr::v6(ALL_NODES.octets()), OVERRIDE, Addr::v6(VIP6));
        assert_eq!(advertisement(&answer), all);
    }

    #[test]
    fn what_may_come_from_afar_or_is_damaged_is_no_solicitation() {
        let good = solicitation(CLIENT6, VIP6);
        for (place, octet) in [(21, 254), (54, ADVERTISEMENT), (55, 1), (70, 0xff), (20, 17)] {
            let mut bad = good.clone();
            bad.octets_mut()[place] = octet;
            assert_eq!(Solicitation::parse(&bad), None, "octet {place}");
        }
        for len in 0..good.octets().len() {
            let piece = Frame::new(good.octets()[..len].to_vec());
            assert_eq!(Solicitation::parse(&piece), None, "{len} octets");
        }
    }

    #[test]
    fn the_group_of_an_address_ends_as_the_address() {
        let group = solicited_node(Addr::v6(VIP6));
        assert_eq!(group, "ff02::1:ff00:100".parse::<Ipv6Addr>().unwrap());
    }
}
