//! Mark rules in the family `IPVS_RS` ([`conn`](crate::conn)).
//!
//! `CHANGE_MARKS` has any number of edits as its attributes, in order; they are
//! made all or not at all:
//!
//! | no | attribute | type |
//! |---|---|---|
//! | 1 | ADD | nest: the rule that is added to the end |
//! | 2 | DELETE | nest: the rule that is taken off |
//! | 3 | FLUSH | nothing: every rule is taken off |
//!
//! `GET_MARK` is answered by `NEW_MARK` messages, one a rule in order. A rule:
//!
//! | no | attribute | type |
//! |---|---|---|
//! | 1 | FAMILY | u16: 2 or 10 |
//! | 2 | SOURCE | 16 bytes (IPv4: first 4, rest 0); left out for any |
//! | 3 | SOURCE_PREFIX | u8, its length in bits |
//! | 4 | DESTINATION | 16 bytes; left out for any |
//! | 5 | DESTINATION_PREFIX | u8 |
//! | 6 | PROTOCOL | u8; left out for any |
//! | 7 | FIRST_PORT | u16, network order, of the destination; left out for any |
//! | 8 | LAST_PORT | u16, network order |
//! | 9 | INTERFACE | text, up to 15 octets; left out for any |
//! | 10 | MARK | u32, the bits that are set |
//! | 11 | MASK | u32, the bits that are cleared before; all if left out |

use ipvs_core::addr::{Addr, Family};
use ipvs_core::command::Command;
use ipvs_core::mark::{MarkRule, prefix_len, prefix_mask};
use rustix::io::Errno;

use crate::attr::{Attrs, Policy, Table, Writer};
use crate::service::{addr_of, family_of, number_of};

/// Makes edits, all or none.
pub const CHANGE_MARKS: u8 = 16;
/// Only as a reply: one rule.
pub const NEW_MARK: u8 = 17;
/// Asks for every rule.
pub const GET_MARK: u8 = 18;

const ADD: u16 = 1;
const DELETE: u16 = 2;
const FLUSH: u16 = 3;

const FAMILY: u16 = 1;
const SOURCE: u16 = 2;
const SOURCE_PREFIX: u16 = 3;
const DESTINATION: u16 = 4;
const DESTINATION_PREFIX: u16 = 5;
const PROTOCOL: u16 = 6;
const FIRST_PORT: u16 = 7;
const LAST_PORT: u16 = 8;
const INTERFACE: u16 = 9;
const MARK: u16 = 10;
const MASK: u16 = 11;

const POLICY: &[(u16, Policy)] = &[
    (FAMILY, Policy::AtLeast(2)),
    (SOURCE, Policy::AtLeast(4)),
    (SOURCE_PREFIX, Policy::AtLeast(1)),
    (DESTINATION, Policy::AtLeast(4)),
    (DESTINATION_PREFIX, Policy::AtLeast(1)),
    (PROTOCOL, Policy::AtLeast(1)),
    (FIRST_PORT, Policy::AtLeast(2)),
    (LAST_PORT, Policy::AtLeast(2)),
    (INTERFACE, Policy::Text(15)),
    (MARK, Policy::AtLeast(4)),
    (MASK, Policy::AtLeast(4)),
];

/// Writes edits as attributes; what is no edit of mark rules is left out.
pub fn write_edits(writer: &mut Writer, edits: &[Command]) {
    for edit in edits {
        match edit {
            Command::AddMarkRule(rule) => writer.nest(ADD, |writer| write(writer, rule)),
            Command::DeleteMarkRule(rule) => writer.nest(DELETE, |writer| write(writer, rule)),
            Command::FlushMarkRules => writer.attr(FLUSH, &[]),
            _ => {}
        }
    }
}

/// Reads edits; one that makes no sense spoils all.
pub fn read_edits(attrs: &[u8]) -> Result<Vec<Command>, Errno> {
    let edit = |(number, payload)| match number {
        ADD => Some(read(payload).map(Command::AddMarkRule)),
        DELETE => Some(read(payload).map(Command::DeleteMarkRule)),
        FLUSH => Some(Some(Command::FlushMarkRules)),
        _ => None,
    };
    Attrs(attrs).filter_map(edit).collect::<Option<_>>().ok_or(Errno::INVAL)
}

/// Writes the attributes of a rule.
pub fn write(writer: &mut Writer, rule: &MarkRule) {
    writer.u16(FAMILY, number_of(Family::from_tag(rule.family)));
    let mut net = |numbers: [u16; 2], addr: Addr, mask: Addr| {
        if !mask.is_unspecified() {
            writer.attr(numbers[0], &addr.octets());
            writer.u8(numbers[1], u8::try_from(prefix_len(mask)).unwrap_or(u8::MAX));
        }
    };
    net([SOURCE, SOURCE_PREFIX], rule.source, rule.source_mask);
    net([DESTINATION, DESTINATION_PREFIX], rule.destination, rule.destination_mask);
    if rule.protocol != 0 {
        writer.u8(PROTOCOL, rule.protocol);
    }
    if (rule.first_port, rule.last_port) != (0, u16::MAX) {
        writer.be16(FIRST_PORT, rule.first_port);
        writer.be16(LAST_PORT, rule.last_port);
    }
    let interface = rule.interface_name();
    if !interface.is_empty() {
        writer.text(INTERFACE, interface.as_bytes());
    }
    writer.u32(MARK, rule.mark);
    writer.u32(MASK, rule.mask);
}

/// Reads the attributes of a rule; `None` if they make none.
pub fn read(attrs: &[u8]) -> Option<MarkRule> {
    let table = Table::<12>::parse(attrs, POLICY).ok()?;
    let family = family_of(table.u16(FAMILY)?)?;
    let longest = match family {
        Family::V4 => 32,
        Family::V6 => 128,
    };
    let net = |number, prefix| match table.padded(number) {
        None => Some((Addr::UNSPECIFIED, Addr::UNSPECIFIED)),
        Some(octets) => {
            let len = table.u8(prefix).unwrap_or(longest);
            (len <= longest).then(|| (addr_of(family, octets), prefix_mask(family, len)))
        }
    };
    let mut rule = MarkRule::any(family, table.u32(MARK)?, table.u32(MASK).unwrap_or(u32::MAX));
    (rule.source, rule.source_mask) = net(SOURCE, SOURCE_PREFIX)?;
    (rule.destination, rule.destination_mask) = net(DESTINATION, DESTINATION_PREFIX)?;
    rule.protocol = table.u8(PROTOCOL).unwrap_or(0);
    if let Some(first) = table.be16(FIRST_PORT) {
        rule.first_port = first;
        rule.last_port = table.be16(LAST_PORT).unwrap_or(first);
    }
    for (to, from) in rule.interface.iter_mut().zip(table.text(INTERFACE).unwrap_or(&[])) {
        *to = *from;
    }
    core::str::from_utf8(&rule.interface).ok()?;
    Some(rule.named())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule() -> MarkRule {
        let mut rule = MarkRule::any(Family::V6, 0x70, 0xf0);
        rule.source = Addr::v6([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        rule.source_mask = prefix_mask(Family::V6, 48);
        (rule.protocol, rule.first_port, rule.last_port) = (17, 53, 54);
        rule.interface[..4].copy_from_slice(b"eth0");
        rule.named()
    }

    #[test]
    fn edits_come_out_as_they_went_in() {
        let edits = [
            Command::FlushMarkRules,
            Command::AddMarkRule(rule()),
            Command::DeleteMarkRule(MarkRule::any(Family::V4, 1, u32::MAX)),
        ];
        let mut writer = Writer::new();
        write_edits(&mut writer, &edits);
        assert_eq!(read_edits(writer.bytes()).unwrap(), edits);
    }

    #[test]
    fn one_rule_without_a_mark_spoils_all() {
        let mut writer = Writer::new();
        write_edits(&mut writer, &[Command::AddMarkRule(rule())]);
        writer.nest(ADD, |writer| writer.u16(FAMILY, 2));
        assert_eq!(read_edits(writer.bytes()), Err(Errno::INVAL));
    }

    #[test]
    fn a_prefix_that_is_too_long_makes_no_rule() {
        let mut writer = Writer::new();
        writer.u16(FAMILY, 2);
        writer.attr(SOURCE, &[10, 0, 0, 0]);
        writer.u8(SOURCE_PREFIX, 33);
        writer.u32(MARK, 1);
        assert_eq!(read(writer.bytes()), None);
    }
}
