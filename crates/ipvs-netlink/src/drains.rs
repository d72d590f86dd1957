//! Drains of destinations in the family `IPVS_RS` ([`conn`](crate::conn)).
//!
//! | no | command | do | dump | reply |
//! |---|---|---|---|---|
//! | 24 | `DRAIN` | x | | acknowledgement |
//! | 25 | `UNDRAIN` | x | | acknowledgement; `ENODATA` if the destination is not drained |
//! | 26 | `NEW_DRAIN` | | | (only as a reply) |
//! | 27 | `GET_DRAIN` | | x | `NEW_DRAIN`, multi, one a destination that is drained, in no order |
//!
//! | no | attribute | type |
//! |---|---|---|
//! | 1 | SERVICE | nest: the key of a service, as in the kernel's family |
//! | 2 | DEST | nest: the key of a destination, as in the kernel's family |
//! | 3 | DEADLINE | u32, milliseconds until the deadline; left out without one |
//! | 4 | THEN | u32, of connections left at the deadline: 0 they stay, 1 moved, 2 TCP reset and others moved |
//! | 5 | SINCE | u32, milliseconds; only in replies, as all that follow |
//! | 6 | BEGAN_WITH | u32, open connections when the drain began |
//! | 7 | OPEN | u32, connections that are open still |
//! | 8 | OVER | u32, connections that are over and wait for their time |
//! | 9 | PERSISTENT | u32, templates that are left; they lead nobody there |

use ipvs_core::command::Command;
use ipvs_core::drain::{AtDeadline, Drain, DrainStatus};
use ipvs_core::time::Millis;
use rustix::io::Errno;

use crate::attr::{Policy, Table, Writer};
use crate::dest::{self, DestAttrs};
use crate::numbers::top;
use crate::service::{self, ServiceAttrs};

/// Drains a destination.
pub const DRAIN: u8 = 24;
/// Ends the drain of a destination.
pub const UNDRAIN: u8 = 25;
/// Only as a reply: one drain.
pub const NEW_DRAIN: u8 = 26;
/// Asks for every drain.
pub const GET_DRAIN: u8 = 27;

const DEADLINE: u16 = 3;
const THEN: u16 = 4;
const SINCE: u16 = 5;
const BEGAN_WITH: u16 = 6;
const OPEN: u16 = 7;
const OVER: u16 = 8;
const PERSISTENT: u16 = 9;

const POLICY: &[(u16, Policy)] = &[
    (top::SERVICE, Policy::Nest),
    (top::DEST, Policy::Nest),
    (DEADLINE, Policy::AtLeast(4)),
    (THEN, Policy::AtLeast(4)),
    (SINCE, Policy::AtLeast(4)),
    (BEGAN_WITH, Policy::AtLeast(4)),
    (OPEN, Policy::AtLeast(4)),
    (OVER, Policy::AtLeast(4)),
    (PERSISTENT, Policy::AtLeast(4)),
];

/// Writes an edit as attributes; what is none of drains is left out.
pub fn write_edit(writer: &mut Writer, edit: &Command) {
    if let Command::DrainDest(service, dest, _) | Command::UndrainDest(service, dest) = edit {
        service::write_key(writer, service);
        dest::write_key(writer, dest);
    }
    if let Command::DrainDest(.., drain) = edit {
        write_drain(writer, *drain);
    }
}

fn write_drain(writer: &mut Writer, drain: Drain) {
    if let Some(Millis(limit)) = drain.limit {
        writer.u32(DEADLINE, limit);
    }
    writer.u32(THEN, drain.then as u32);
}

/// Reads the edit that `command` asks for.
pub fn read_edit(command: u8, attrs: &[u8]) -> Result<Command, Errno> {
    let table = Table::<10>::parse(attrs, POLICY).or(Err(Errno::INVAL))?;
    let service = ServiceAttrs::parse(table.get(top::SERVICE))?.key;
    let dest = DestAttrs::parse(table.get(top::DEST))?.key(service.family())?;
    if command == UNDRAIN {
        return Ok(Command::UndrainDest(service, dest));
    }
    let then = AtDeadline::from_number(table.u32(THEN).unwrap_or(0)).ok_or(Errno::INVAL)?;
    let drain = Drain { limit: table.u32(DEADLINE).map(Millis), then };
    Ok(Command::DrainDest(service, dest, drain))
}

/// Writes the attributes of a drain.
pub fn write(writer: &mut Writer, status: &DrainStatus) {
    service::write_key(writer, &status.service);
    dest::write_key(writer, &status.dest);
    write_drain(writer, Drain { limit: status.deadline, then: status.then });
    writer.u32(SINCE, status.since.0);
    writer.u32(BEGAN_WITH, status.began_with);
    writer.u32(OPEN, status.open);
    writer.u32(OVER, status.over);
    writer.u32(PERSISTENT, status.persistent);
}

/// Reads the attributes of a drain; `None` if something is missing.
pub fn read(attrs: &[u8]) -> Option<DrainStatus> {
    let Command::DrainDest(service, dest, drain) = read_edit(DRAIN, attrs).ok()? else {
        return None;
    };
    let table = Table::<10>::parse(attrs, POLICY).ok()?;
    Some(DrainStatus {
        service,
        dest,
        then: drain.then,
        since: Millis(table.u32(SINCE)?),
        deadline: drain.limit,
        began_with: table.u32(BEGAN_WITH)?,
        open: table.u32(OPEN)?,
        over: table.u32(OVER)?,
        persistent: table.u32(PERSISTENT)?,
    })
}

#[cfg(test)]
mod tests {
    use ipvs_core::addr::{Addr, Family};
    use ipvs_core::dest::DestKey;
    use ipvs_core::service::ServiceKey;

    use super::*;

    fn keys() -> (ServiceKey, DestKey) {
        let service = ServiceKey::address(Family::V4, 6, Addr::v4([192, 0, 2, 10]), 80);
        (service, DestKey::new(Family::V4, Addr::v4([10, 1, 0, 11]), 8080))
    }

    #[test]
    fn edits_come_out_as_they_went_in() {
        let (service, dest) = keys();
        let limited = Drain { limit: Some(Millis(600_000)), then: AtDeadline::Reset };
        for (command, edit) in [
            (DRAIN, Command::DrainDest(service, dest, limited)),
            (DRAIN, Command::DrainDest(service, dest, Drain::default())),
            (UNDRAIN, Command::UndrainDest(service, dest)),
        ] {
            let mut writer = Writer::new();
            write_edit(&mut writer, &edit);
            assert_eq!(read_edit(command, writer.bytes()), Ok(edit));
        }
    }

    #[test]
    fn a_drain_comes_out_as_it_went_in() {
        let (service, dest) = keys();
        let status = DrainStatus {
            service,
            dest,
            then: AtDeadline::Rehash,
            since: Millis(5),
            deadline: Some(Millis(0)),
            began_with: 9,
            open: 3,
            over: 2,
            persistent: 1,
        };
        let mut writer = Writer::new();
        write(&mut writer, &status);
        assert_eq!(read(writer.bytes()), Some(status));
    }

    #[test]
    fn what_shall_be_done_at_the_deadline_must_be_known() {
        let (service, dest) = keys();
        let mut writer = Writer::new();
        service::write_key(&mut writer, &service);
        dest::write_key(&mut writer, &dest);
        writer.u32(THEN, 3);
        assert_eq!(read_edit(DRAIN, writer.bytes()), Err(Errno::INVAL));
    }
}
