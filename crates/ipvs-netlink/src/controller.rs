//! The part of the generic-netlink controller (`nlctrl`) that resolves a
//! family's name to its number, for clients and for the server.

use rustix::io::Errno;

use crate::attr::{Attrs, BadAttr, Policy, Table, Writer};
use crate::message::{Header, answer};
use crate::{conn, drains, marks, numbers, transaction};

/// Message type of the controller, fixed.
pub const ID: u16 = 0x10;
/// Only as a reply: one family.
pub const NEW_FAMILY: u8 = 1;
/// Asks for one family, or all.
pub const GET_FAMILY: u8 = 3;
/// Version of the controller's messages.
pub const VERSION: u8 = 2;

/// Attributes of the controller.
mod attr {
    pub(super) const FAMILY_ID: u16 = 1;
    pub(super) const FAMILY_NAME: u16 = 2;
    pub(super) const VERSION: u16 = 3;
    pub(super) const HEADER_SIZE: u16 = 4;
    pub(super) const MAX_ATTR: u16 = 5;
    pub(super) const OPS: u16 = 6;
    pub(super) const OP_ID: u16 = 1;
    pub(super) const OP_FLAGS: u16 = 2;
}

/// Flags of an operation: needs rights, answers a plain request, answers a
/// dump, has a policy.
const ADMIN: u32 = 0x01;
const DO: u32 = 0x02;
const DUMP: u32 = 0x04;
const POLICY: u32 = 0x08;

/// A family as the controller describes it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FamilyInfo {
    id: u16,
    name: &'static str,
    version: u8,
    max_attr: u16,
    /// Its commands, each with its flags.
    ops: &'static [(u8, u32)],
}

const IPVS_OPS: &[(u8, u32)] = {
    use numbers::command as c;
    const PLAIN: u32 = ADMIN | DO | POLICY;
    &[
        (c::NEW_SERVICE, PLAIN),
        (c::SET_SERVICE, PLAIN),
        (c::DEL_SERVICE, PLAIN),
        (c::GET_SERVICE, PLAIN | DUMP),
        (c::NEW_DEST, PLAIN),
        (c::SET_DEST, PLAIN),
        (c::DEL_DEST, PLAIN),
        (c::GET_DEST, ADMIN | DUMP | POLICY),
        (c::NEW_DAEMON, PLAIN),
        (c::DEL_DAEMON, PLAIN),
        (c::GET_DAEMON, ADMIN | DUMP | POLICY),
        (c::SET_CONFIG, PLAIN),
        (c::GET_CONFIG, PLAIN),
        (c::GET_INFO, PLAIN),
        (c::ZERO, PLAIN),
        (c::FLUSH, PLAIN),
    ]
};

/// The controller, the kernel's IPVS family and ours.
const FAMILIES: [FamilyInfo; 3] = [
    FamilyInfo {
        id: ID,
        name: "nlctrl",
        version: VERSION,
        max_attr: 10,
        ops: &[(3, DO | DUMP | POLICY)],
    },
    FamilyInfo {
        id: numbers::FAMILY_ID,
        name: numbers::FAMILY_NAME,
        version: numbers::FAMILY_VERSION,
        max_attr: numbers::FAMILY_MAX_ATTR,
        ops: IPVS_OPS,
    },
    FamilyInfo {
        id: conn::FAMILY_ID,
        name: conn::FAMILY_NAME,
        version: conn::FAMILY_VERSION,
        max_attr: conn::FAMILY_MAX_ATTR,
        ops: &[
            (conn::GET_CONN, ADMIN | DUMP),
            (conn::GET_STATUS, ADMIN | DUMP),
            (conn::GET_SETTING, ADMIN | DO | DUMP),
            (conn::SET_SETTING, ADMIN | DO),
            (marks::CHANGE_MARKS, ADMIN | DO),
            (marks::GET_MARK, ADMIN | DUMP),
            (drains::DRAIN, ADMIN | DO),
            (drains::UNDRAIN, ADMIN | DO),
            (drains::GET_DRAIN, ADMIN | DUMP),
            (conn::GET_STATS, ADMIN | DUMP),
            (conn::GET_HELPER, ADMIN | DUMP),
            (transaction::BEGIN, ADMIN | DO),
            (transaction::COMMIT, ADMIN | DO),
            (transaction::DISCARD, ADMIN | DO),
            (transaction::CONFIRM, ADMIN | DO),
            (transaction::ROLL_BACK, ADMIN | DO),
        ],
    },
];

/// All families, for a dump.
pub(crate) fn families() -> impl Iterator<Item = &'static FamilyInfo> {
    FAMILIES.iter()
}

/// The family that a request names, by number if it has one, else by name.
pub(crate) fn find(attrs: &[u8]) -> Result<&'static FamilyInfo, Errno> {
    const REQUEST: &[(u16, Policy)] =
        &[(attr::FAMILY_ID, Policy::AtLeast(2)), (attr::FAMILY_NAME, Policy::Text(15))];
    let table = Table::<3>::parse(attrs, REQUEST).map_err(|bad| match bad {
        BadAttr::Length => Errno::RANGE,
        BadAttr::Unterminated => Errno::INVAL,
    })?;
    let by_id = table.u16(attr::FAMILY_ID);
    let by_name = table.text(attr::FAMILY_NAME);
    if by_id.is_none() && by_name.is_none() {
        return Err(Errno::INVAL);
    }
    // The kernel lets a name given beside a number win.
    FAMILIES
        .iter()
        .find(|family| match by_name {
            Some(name) => family.name.as_bytes() == name,
            None => Some(family.id) == by_id,
        })
        .ok_or(Errno::NOENT)
}

/// Writes the description of one family, in the kernel's order.
pub(crate) fn write(writer: &mut Writer, request: &Header, flags: u16, family: &FamilyInfo) {
    writer.generic(answer(request, ID, flags), NEW_FAMILY, VERSION, |writer| {
        writer.text(attr::FAMILY_NAME, family.name.as_bytes());
        writer.u16(attr::FAMILY_ID, family.id);
        writer.u32(attr::VERSION, family.version.into());
        writer.u32(attr::HEADER_SIZE, 0);
        writer.u32(attr::MAX_ATTR, family.max_attr.into());
        writer.nest(attr::OPS, |writer| {
            for (index, &(command, flags)) in (1..).zip(family.ops) {
                writer.nest(index, |writer| {
                    writer.u32(attr::OP_ID, command.into());
                    writer.u32(attr::OP_FLAGS, flags);
                });
            }
        });
    });
}

/// Writes the attributes that ask for the family called `name`.
pub fn write_request(writer: &mut Writer, name: &str) {
    writer.text(attr::FAMILY_NAME, name.as_bytes());
}

/// The name of the family that a request asks for.
pub fn read_name(attrs: &[u8]) -> Option<&[u8]> {
    let (_, text) = Attrs(attrs).find(|(number, _)| *number == attr::FAMILY_NAME)?;
    text.split(|octet| *octet == 0).next()
}

/// The number of the family in a reply.
pub fn read_id(attrs: &[u8]) -> Option<u16> {
    Attrs(attrs).find_map(|(number, payload)| {
        (number == attr::FAMILY_ID).then_some(u16::from_ne_bytes(*payload.first_chunk()?))
    })
}
