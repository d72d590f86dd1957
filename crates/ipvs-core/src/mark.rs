//! Firewall marks: where a packet has its own from, and rules of ours that
//! give it one where no firewall has seen it.
//!
//! Rules stand in an ordered list. Every rule that a packet fits changes the
//! mark, one after the other, as rules of a firewall do. They are looked at for
//! packets without a known connection only, since a connection remembers the
//! mark that it was made under.

use ipvs_wire::Headers;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::addr::{Addr, Family};
use crate::director::Packet;
use crate::tables::Tables;

/// Rules that one plane takes.
pub const MAX_RULES: u32 = 1024;
/// Places for rules: an edit writes the new list beside the old one.
pub const PLACES: u32 = 4 * MAX_RULES;
/// The number of an interface that is not there.
pub const NO_INTERFACE: u32 = u32::MAX;

/// A rule as a data plane reads it.
///
/// Prefixes are kept as masks, so that a packet costs a few words' comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MarkRule {
    /// Source addresses: those that equal this one under the mask.
    pub source: Addr,
    /// Mask of the source; all zero for any.
    pub source_mask: Addr,
    /// Destination addresses: those that equal this one under the mask.
    pub destination: Addr,
    /// Mask of the destination; all zero for any.
    pub destination_mask: Addr,
    /// Number of the interface that packets come in by; 0 for any,
    /// [`NO_INTERFACE`] while there is none of that name.
    pub ifindex: u32,
    /// The bits that are set.
    pub mark: u32,
    /// The bits that are cleared before.
    pub mask: u32,
    /// First destination port, host order.
    pub first_port: u16,
    /// Last destination port; 0 and 65535 for any.
    pub last_port: u16,
    /// IANA protocol number; 0 for any.
    pub protocol: u8,
    /// [`Family::tag`].
    pub family: u8,
    /// Zero.
    pub reserved: [u8; 6],
    /// Name of the interface, filled up with zeros; none for any.
    pub interface: [u8; 16],
}

const _: () = assert!(size_of::<MarkRule>() == 104);

impl MarkRule {
    /// A rule for every packet of `family`.
    pub const fn any(family: Family, mark: u32, mask: u32) -> Self {
        Self {
            source: Addr::UNSPECIFIED,
            source_mask: Addr::UNSPECIFIED,
            destination: Addr::UNSPECIFIED,
            destination_mask: Addr::UNSPECIFIED,
            ifindex: 0,
            mark,
            mask,
            first_port: 0,
            last_port: u16::MAX,
            protocol: 0,
            family: family.tag(),
            reserved: [0; 6],
            interface: [0; 16],
        }
    }

    /// The rule without what the host adds to it: what makes it this rule.
    #[must_use]
    pub const fn named(mut self) -> Self {
        self.ifindex = if self.interface[0] == 0 { 0 } else { NO_INTERFACE };
        self
    }

    /// Name of the interface; empty for any.
    pub fn interface_name(&self) -> &str {
        let end = self.interface.iter().position(|octet| *octet == 0);
        let name = self.interface.get(..end.unwrap_or(self.interface.len())).unwrap_or(&[]);
        core::str::from_utf8(name).unwrap_or("")
    }

    /// Whether any port is right.
    #[inline(always)]
    const fn takes_every_port(&self) -> bool {
        self.first_port == 0 && self.last_port == u16::MAX
    }

    /// Whether a packet with these headers, which came in by `ifindex`, fits.
    #[inline(always)]
    fn fits(&self, h: &Headers, ifindex: u32) -> bool {
        self.family == h.version
            && (self.protocol == 0 || self.protocol == h.protocol)
            && is_in(h.destination, &self.destination, &self.destination_mask)
            && (self.takes_every_port()
                || (h.destination_port >= self.first_port && h.destination_port <= self.last_port))
            && (self.ifindex == 0 || self.ifindex == ifindex)
            && is_in(h.source, &self.source, &self.source_mask)
    }
}

/// The mask of a prefix of `len` bits.
pub const fn prefix_mask(family: Family, len: u8) -> Addr {
    let bits = u128::MAX;
    let shift = match family {
        Family::V4 => 32 - if len > 32 { 32 } else { len as u32 },
        Family::V6 => 128 - if len > 128 { 128 } else { len as u32 },
    };
    let bits = match bits.checked_shl(shift) {
        Some(bits) => bits,
        None => 0,
    };
    match family {
        #[expect(clippy::cast_possible_truncation, reason = "the low 32 bits are the mask")]
        Family::V4 => Addr::v4((bits as u32).to_be_bytes()),
        Family::V6 => Addr::v6(bits.to_be_bytes()),
    }
}

/// The length of the prefix with this mask.
pub const fn prefix_len(mask: Addr) -> u32 {
    let [a, b, c, d] = mask.words();
    a.count_ones() + b.count_ones() + c.count_ones() + d.count_ones()
}

#[inline(always)]
fn is_in(addr: [u32; 4], net: &Addr, mask: &Addr) -> bool {
    let ([a, b, c, d], net, mask) = (addr, net.words(), mask.words());
    let first = (a ^ net[0]) & mask[0];
    let rest = (b ^ net[1]) & mask[1] | (c ^ net[2]) & mask[2] | (d ^ net[3]) & mask[3];
    first | rest == 0
}

/// The list of rules, as [`Settings`](crate::settings::Settings) keep it: the
/// first place and the number in one word, so that a new list replaces the old
/// one at once.
#[inline(always)]
pub const fn list(first: u32, len: u32) -> u32 {
    first << 16 | len
}

/// First place and number of rules of the list.
#[inline(always)]
pub const fn places(list: u32) -> (u32, u32) {
    (list >> 16, list & 0xffff)
}

/// Changes the packet's mark by our rules.
#[inline(always)]
pub(crate) fn apply<B, T: Tables>(packet: &mut Packet<'_, B>, tables: &T) {
    let list = tables.settings().mark_rules;
    if list != 0 {
        let mark = packet.room.mark;
        packet.room.mark = by_rules(packet.headers, tables, packet.ifindex, mark, list);
    }
}

#[inline(never)]
fn by_rules<T: Tables>(h: &Headers, tables: &T, ifindex: u32, mark: u32, list: u32) -> u32 {
    let (first, len) = places(list);
    let mut mark = mark;
    tables.repeat(len, |turn| {
        if let Some(rule) = tables.mark_rule(first.wrapping_add(turn))
            && rule.fits(h, ifindex)
        {
            mark = (mark & !rule.mask) | rule.mark;
        }
        true
    });
    mark
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_becomes_a_mask_and_comes_back() {
        assert_eq!(prefix_mask(Family::V4, 26), Addr::v4([255, 255, 255, 192]));
        for len in [0, 1, 7, 8, 31, 32] {
            assert_eq!(prefix_len(prefix_mask(Family::V4, len)), u32::from(len));
        }
        for len in [0, 1, 31, 32, 33, 64, 127, 128] {
            assert_eq!(prefix_len(prefix_mask(Family::V6, len)), u32::from(len));
        }
    }

    #[test]
    fn a_list_is_one_word() {
        assert_eq!(places(list(PLACES - 1, MAX_RULES)), (PLACES - 1, MAX_RULES));
        assert_eq!(list(0, 0), 0);
    }

    #[test]
    fn each_condition_counts() {
        let mut rule = MarkRule::any(Family::V4, 7, u32::MAX);
        rule.destination = Addr::v4([192, 0, 2, 64]);
        rule.destination_mask = prefix_mask(Family::V4, 26);
        rule.source = Addr::v4([198, 51, 100, 0]);
        rule.source_mask = prefix_mask(Family::V4, 24);
        rule.protocol = 6;
        (rule.first_port, rule.last_port) = (80, 443);
        rule.ifindex = 2;
        let h = Headers {
            version: 4,
            protocol: 6,
            source: Addr::v4([198, 51, 100, 9]).words(),
            destination: Addr::v4([192, 0, 2, 127]).words(),
            destination_port: 443,
            ..Headers::default()
        };
        assert!(rule.fits(&h, 2));
        assert!(!rule.fits(&h, 3));
        let differs = |change: fn(&mut Headers)| {
            let mut h = h;
            change(&mut h);
            !rule.fits(&h, 2)
        };
        assert!(differs(|h| h.version = 6));
        assert!(differs(|h| h.protocol = 17));
        assert!(differs(|h| h.destination_port = 444));
        assert!(differs(|h| h.destination_port = 79));
        assert!(differs(|h| h.destination = Addr::v4([192, 0, 2, 128]).words()));
        assert!(differs(|h| h.source = Addr::v4([198, 51, 101, 9]).words()));
    }
}
