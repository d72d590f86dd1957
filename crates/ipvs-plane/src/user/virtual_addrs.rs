//! The virtual addresses that this plane answers for.
//!
//! # Who is answered, and where
//!
//! The kernel does not have the virtual addresses (it would refuse their
//! connections), so it answers neither ARP nor neighbour solicitations for
//! them. The plane does, on the port that a question came in by, if asked by a
//! neighbour: the virtual address or the one who asks lies in a prefix of the
//! port. So a virtual address is found on its own link, and by routers that
//! have it on another; real servers and hosts on foreign links get no answer.
//! Addresses that the kernel has are left to the kernel.

use std::collections::{HashMap, HashSet};
use std::net::{Ipv6Addr, UdpSocket};

use ipvs_core::addr::{Addr, Family};
use ipvs_core::service::ServiceKey;
use rustix::net::sockopt;

use super::nd;
use crate::rtnetlink::Address;

/// How often a new address is announced: an announcement may get lost.
const ANNOUNCEMENTS: u8 = 3;

/// The virtual addresses.
#[derive(Debug, Default)]
pub(super) struct VirtualAddrs {
    /// Each with the announcements that are still to be made.
    all: HashMap<(Family, Addr), u8>,
    groups: Groups,
}

impl VirtualAddrs {
    /// Takes over the addresses of these services.
    pub(super) fn replace(&mut self, keys: impl Iterator<Item = ServiceKey>) {
        let wanted: HashSet<_> =
            keys.filter(|key| !key.is_fwmark()).map(|key| (key.family(), key.addr)).collect();
        self.all.retain(|vip, _| wanted.contains(vip));
        for vip in wanted {
            self.all.entry(vip).or_insert(ANNOUNCEMENTS);
        }
    }

    /// Adds the address of a service; returns whether it is new.
    pub(super) fn add(&mut self, key: &ServiceKey) -> bool {
        if key.is_fwmark() {
            return false;
        }
        let vip = (key.family(), key.addr);
        if self.all.contains_key(&vip) {
            return false;
        }
        self.all.insert(vip, ANNOUNCEMENTS);
        true
    }

    /// Whether this is one of them.
    pub(super) fn contains(&self, family: Family, addr: Addr) -> bool {
        self.all.contains_key(&(family, addr))
    }

    /// Those that are to be announced now; one time less is left for each.
    pub(super) fn take_due(&mut self) -> Vec<(Family, Addr)> {
        let due = self.all.iter_mut().filter(|(_, left)| **left > 0);
        due.map(|(vip, left)| {
            *left -= 1;
            *vip
        })
        .collect()
    }

    /// Has all of them announced again.
    pub(super) fn announce_again(&mut self) {
        self.all.values_mut().for_each(|left| *left = ANNOUNCEMENTS);
    }

    /// Whether a question of `sender` for `target` is answered on a port with
    /// these addresses.
    pub(super) fn are_answered<'a>(
        port: impl Iterator<Item = &'a Address>,
        family: Family,
        sender: Addr,
        target: Addr,
    ) -> bool {
        // Who has no address yet, asks whether its own is taken.
        let asks = !sender.is_unspecified();
        // The prefixes that are on the link include that of link-local addresses.
        port.into_iter()
            .any(|own| own.covers(family, target) || (asks && own.covers(family, sender)))
    }

    /// Makes the ports members of the groups in which IPv6 hosts ask for these
    /// addresses, and of no other.
    pub(super) fn join_groups(&mut self, ports: &[u32]) {
        let wanted = self
            .all
            .keys()
            .filter(|(family, _)| *family == Family::V6)
            .flat_map(|(_, addr)| {
                let group = nd::solicited_node(*addr);
                ports.iter().map(move |port| (*port, group))
            })
            .collect();
        self.groups.replace(&wanted);
    }
}

/// Multicast groups that were joined, by a socket that only stands for that:
/// the kernel tells switches, and lets the NIC pass their frames.
#[derive(Debug, Default)]
struct Groups {
    socket: Option<UdpSocket>,
    joined: HashSet<(u32, Ipv6Addr)>,
}

impl Groups {
    fn replace(&mut self, wanted: &HashSet<(u32, Ipv6Addr)>) {
        if self.socket.is_none() && !wanted.is_empty() {
            self.socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))
                .inspect_err(|error| tracing::warn!(%error, "this host has no IPv6"))
                .ok();
        }
        let Some(socket) = &self.socket else { return };
        self.joined.retain(|(port, group)| {
            let kept = wanted.contains(&(*port, *group));
            if !kept {
                // The interface may be gone, and the membership with it.
                let _ = sockopt::set_ipv6_drop_membership(socket, group, *port);
            }
            kept
        });
        for (port, group) in wanted {
            if self.joined.contains(&(*port, *group)) {
                continue;
            }
            match sockopt::set_ipv6_add_membership(socket, group, *port) {
                Ok(()) => {
                    self.joined.insert((*port, *group));
                }
                Err(error) => tracing::warn!(%error, port, %group, "cannot join the group"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PORT: Address =
        Address { index: 1, family: Family::V4, addr: Addr::v4([192, 0, 2, 1]), prefix_len: 24 };

    fn answered(sender: [u8; 4], target: [u8; 4]) -> bool {
        let (sender, target) = (Addr::v4(sender), Addr::v4(target));
        VirtualAddrs::are_answered([PORT].iter(), Family::V4, sender, target)
    }

    #[test]
    fn an_address_is_new_with_its_first_service() {
        let mut vips = VirtualAddrs::default();
        let key = |port| ServiceKey::address(Family::V4, 6, Addr::v4([192, 0, 2, 1]), port);
        assert!(vips.add(&key(80)));
        assert!(!vips.add(&key(443)));
        assert!(!vips.add(&ServiceKey::fwmark(Family::V4, 7)));
        assert_eq!(vips.take_due(), [(Family::V4, Addr::v4([192, 0, 2, 1]))]);
    }

    #[test]
    fn neighbours_are_answered_and_nobody_else() {
        assert!(answered([192, 0, 2, 2], [192, 0, 2, 100]));
        assert!(answered([192, 0, 2, 2], [203, 0, 113, 1]), "a router, for an address behind us");
        assert!(answered([0; 4], [192, 0, 2, 100]), "is it taken?");
        assert!(!answered([0; 4], [203, 0, 113, 1]));
        assert!(!answered([10, 1, 0, 11], [203, 0, 113, 1]));
    }

    #[test]
    fn an_address_is_announced_a_few_times() {
        let mut vips = VirtualAddrs::default();
        let key = ServiceKey::address(Family::V4, 6, Addr::v4([192, 0, 2, 100]), 80);
        let same = ServiceKey { port: 443, ..key };
        vips.replace([key, same, ServiceKey::fwmark(Family::V4, 7)].into_iter());
        let vip = (Family::V4, Addr::v4([192, 0, 2, 100]));
        for _ in 0..ANNOUNCEMENTS {
            assert_eq!(vips.take_due(), [vip]);
        }
        assert_eq!(vips.take_due(), []);
        vips.replace([same].into_iter());
        assert_eq!(vips.take_due(), []);
        vips.replace(std::iter::empty());
        assert!(!vips.contains(vip.0, vip.1));
    }
}
