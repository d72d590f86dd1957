//! What a data plane says of itself, in the family `IPVS_RS` ([`conn`](crate::conn)):
//! `GET_STATUS` is answered by `NEW_STATUS` messages, first the lines of words, then
//! interfaces, tables, the reasons under which packets were counted, and what is wrong.
//!
//! | no | attribute | type |
//! |---|---|---|
//! | 1 | LINE | text, one line |
//! | 2 | REASON | text, the label of a reason |
//! | 3 | PACKETS | u64, with REASON |
//! | 4 | INTERFACE | text, the name of an interface that packets come in by |
//! | 5 | MODE | text, with INTERFACE: how they are taken from it |
//! | 6 | WHY | text, with INTERFACE: why so |
//! | 7 | TABLE | text, what a table holds that may become full |
//! | 8 | ENTRIES | u64, with TABLE |
//! | 9 | CAPACITY | u64, with TABLE |
//! | 10 | PROBLEM | text, one line: what is wrong, and what to do about it |

use ipvs_core::verdict::Reason;

use crate::attr::{Table, Writer};

const LINE: u16 = 1;
const REASON: u16 = 2;
const PACKETS: u16 = 3;
const INTERFACE: u16 = 4;
const MODE: u16 = 5;
const WHY: u16 = 6;
const TABLE: u16 = 7;
const ENTRIES: u16 = 8;
const CAPACITY: u16 = 9;
const PROBLEM: u16 = 10;

/// What a data plane says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Words for an administrator, line by line.
    pub lines: Vec<String>,
    /// Packets by the label of the reason under which they were counted.
    pub packets: Vec<(String, u64)>,
    /// The interfaces that packets come in by.
    pub interfaces: Vec<Interface>,
    /// The tables that may become full.
    pub tables: Vec<Fill>,
    /// What is wrong, and what to do about it.
    pub problems: Vec<String>,
}

/// An interface that packets come in by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// How they are taken from it: `xdp`, `tc`, `netfilter` or `user`.
    pub mode: String,
    /// Why so.
    pub why: String,
}

/// How full a table is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fill {
    /// What it holds.
    pub name: String,
    /// How many there are.
    pub entries: u64,
    /// How many there may be.
    pub capacity: u64,
}

/// Writes the attributes of a line.
pub fn write_line(writer: &mut Writer, line: &str) {
    writer.text(LINE, line.as_bytes());
}

/// Writes the attributes of a reason.
pub fn write_packets(writer: &mut Writer, reason: Reason, packets: u64) {
    writer.text(REASON, reason.label().as_bytes());
    writer.u64(PACKETS, packets);
}

/// Writes the attributes of an interface.
pub fn write_interface(writer: &mut Writer, name: &str, mode: &str, why: &str) {
    writer.text(INTERFACE, name.as_bytes());
    writer.text(MODE, mode.as_bytes());
    writer.text(WHY, why.as_bytes());
}

/// Writes the attributes of a table.
pub fn write_table(writer: &mut Writer, name: &str, entries: u64, capacity: u64) {
    writer.text(TABLE, name.as_bytes());
    writer.u64(ENTRIES, entries);
    writer.u64(CAPACITY, capacity);
}

/// Writes the attribute of something that is wrong.
pub fn write_problem(writer: &mut Writer, problem: &str) {
    writer.text(PROBLEM, problem.as_bytes());
}

/// Adds what one message says to `status`; `None` if it says nothing.
pub fn read(attrs: &[u8], status: &mut Status) -> Option<()> {
    let table = Table::<11>::parse(attrs, &[]).ok()?;
    let text = |number| table.text(number).map(|it| String::from_utf8_lossy(it).into_owned());
    if let Some(line) = text(LINE) {
        status.lines.push(line);
    } else if let Some(name) = text(INTERFACE) {
        status.interfaces.push(Interface { name, mode: text(MODE)?, why: text(WHY)? });
    } else if let Some(name) = text(TABLE) {
        let (entries, capacity) = (table.u64(ENTRIES)?, table.u64(CAPACITY)?);
        status.tables.push(Fill { name, entries, capacity });
    } else if let Some(problem) = text(PROBLEM) {
        status.problems.push(problem);
    } else {
        status.packets.push((text(REASON)?, table.u64(PACKETS)?));
    }
    Some(())
}
