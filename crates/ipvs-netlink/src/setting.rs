//! The settings of `net.ipv4.vs`, which the kernel shows in `/proc/sys`, in the
//! family `IPVS_RS` ([`conn`](crate::conn)). `GET_SETTING` is answered by
//! `NEW_SETTING`, one for each or the one that is named; `SET_SETTING` changes one.
//!
//! | no | attribute | type |
//! |---|---|---|
//! | 1 | NAME | text, without `net.ipv4.vs.` |
//! | 2 | VALUE | text, as the kernel reads and writes it |

use ipvs_core::command::Command;
use ipvs_core::sysctl::{self, SysctlError, Value};
use rustix::io::Errno;

use crate::attr::{Table, Writer};

const NAME: u16 = 1;
const VALUE: u16 = 2;

/// Writes the attributes of a setting and its value.
pub(crate) fn write(writer: &mut Writer, name: &str, value: Value) {
    write_name(writer, name);
    writer.text(VALUE, value.to_string().as_bytes());
}

/// Writes the attribute that names a setting.
pub(crate) fn write_name(writer: &mut Writer, name: &str) {
    writer.text(NAME, name.as_bytes());
}

/// Writes the attributes that ask for a change.
pub(crate) fn write_change(writer: &mut Writer, name: &str, text: &str) {
    write_name(writer, name);
    writer.text(VALUE, text.as_bytes());
}

/// Reads name and value, as far as they are there.
pub(crate) fn read(attrs: &[u8]) -> Option<(Option<String>, Option<String>)> {
    let table = Table::<3>::parse(attrs, &[]).ok()?;
    let text = |number| table.text(number).map(|text| String::from_utf8_lossy(text).into_owned());
    Some((text(NAME), text(VALUE)))
}

/// Reads what asks for a change.
pub(crate) fn read_edit(attrs: &[u8]) -> Result<Command, Errno> {
    let (name, text) = read(attrs).ok_or(Errno::RANGE)?;
    let name = name.ok_or(Errno::INVAL)?;
    let text = text.ok_or(Errno::INVAL)?;
    let sysctl = sysctl::find(&name).ok_or(Errno::NOENT)?;
    let value = sysctl.read(&text).map_err(errno_of)?;
    Ok(Command::SetSysctl(sysctl, value))
}

/// The errno that stands for a refused change.
pub(crate) const fn errno_of(error: SysctlError) -> Errno {
    match error {
        SysctlError::Unknown => Errno::NOENT,
        SysctlError::Invalid => Errno::INVAL,
        SysctlError::Plane => Errno::IO,
    }
}
