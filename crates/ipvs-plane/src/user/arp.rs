//! ARP for virtual IPv4 addresses (RFC 826, RFC 5227).

use ipvs_core::addr::Addr;
use ipvs_wire::ethernet::{self, Mac};
use ipvs_wire::{Buffer, ethernet::HEADER_LEN};

use crate::frame::Frame;

/// Octets of an ARP packet for IPv4 over Ethernet.
const LEN: usize = 28;
/// Its first six octets: hardware Ethernet, protocol IPv4, lengths of both addresses.
const KIND: [u8; 6] = [0, 1, 8, 0, 6, 4];
/// Operation "request".
const REQUEST: u8 = 1;
/// Operation "reply".
const REPLY: u8 = 2;
/// Every host.
const BROADCAST: Mac = [0xff; 6];

/// Who asks for whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// MAC address of who asks.
    pub(super) mac: Mac,
    /// IPv4 address of who asks; unspecified if that wants to know whether the
    /// address is taken.
    pub(super) sender: Addr,
    /// The address asked for.
    pub(super) target: Addr,
}

impl Request {
    /// Reads an untagged frame; `None` if it is no ARP request.
    pub(super) fn parse(frame: &Frame) -> Option<Self> {
        let ethertype = u16::from_be_bytes(frame.load(12)?);
        let p: [u8; LEN] = frame.load(HEADER_LEN)?;
        if ethertype != ethernet::ARP || p[..6] != KIND || p[6..8] != [0, REQUEST] {
            return None;
        }
        let request = Self {
            mac: [p[8], p[9], p[10], p[11], p[12], p[13]],
            sender: Addr::v4([p[14], p[15], p[16], p[17]]),
            target: Addr::v4([p[24], p[25], p[26], p[27]]),
        };
        // A request for oneself is an announcement.
        (request.sender != request.target).then_some(request)
    }

    /// Makes `frame` the reply of `own`, who has the address.
    pub(super) fn reply(&self, own: Mac, frame: &mut Frame) {
        write(frame, REPLY, (own, self.target), (self.mac, self.sender));
    }
}

/// Makes `frame` the announcement that `own` has `addr`.
pub(super) fn announce(own: Mac, addr: Addr, frame: &mut Frame) {
    write(frame, REQUEST, (own, addr), (BROADCAST, addr));
}

fn write(frame: &mut Frame, operation: u8, from: (Mac, Addr), to: (Mac, Addr)) {
    // An announcement is for all, and asks nobody in particular.
    let asked = if to.0 == BROADCAST { [0; 6] } else { to.0 };
    frame.refill(&[
        &to.0,
        &from.0,
        &ethernet::ARP.to_be_bytes(),
        &KIND,
        &[0, operation],
        &from.0,
        &from.1.v4_octets(),
        &asked,
        &to.1.v4_octets(),
    ]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::testing::{CLIENT4, VIP4};

    const CLIENT: Mac = [2, 0, 0, 0, 0, 2];
    const OWN: Mac = [2, 0, 0, 0, 0, 1];

    fn asked(operation: u8, sender: [u8; 4], target: [u8; 4]) -> Frame {
        let mut frame = Frame::default();
        write(&mut frame, operation, (CLIENT, Addr::v4(sender)), (BROADCAST, Addr::v4(target)));
        frame
    }

    #[test]
    fn a_request_is_answered_to_who_asked() {
        let request = Request::parse(&asked(REQUEST, CLIENT4, VIP4)).unwrap();
        let mut reply = Frame::default();
        request.reply(OWN, &mut reply);
        let expected: &[&[u8]] =
            &[&CLIENT, &OWN, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 2], &OWN, &VIP4, &CLIENT, &CLIENT4];
        assert_eq!(reply.octets(), expected.concat());
    }

    #[test]
    fn whoever_wants_to_know_whether_the_address_is_taken_is_told() {
        let request = Request::parse(&asked(REQUEST, [0; 4], VIP4)).unwrap();
        assert_eq!((request.sender, request.target), (Addr::UNSPECIFIED, Addr::v4(VIP4)));
    }

    #[test]
    fn replies_announcements_and_pieces_are_no_requests() {
        assert_eq!(Request::parse(&asked(REPLY, CLIENT4, VIP4)), None);
        let mut announcement = Frame::default();
        announce(CLIENT, Addr::v4(VIP4), &mut announcement);
        assert_eq!(announcement.octets()[..6], BROADCAST);
        assert_eq!(Request::parse(&announcement), None);
        let whole = asked(REQUEST, CLIENT4, VIP4).into_octets();
        for len in 0..whole.len() {
            assert_eq!(Request::parse(&Frame::new(whole[..len].to_vec())), None);
        }
    }
}
