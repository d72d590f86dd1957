//! What a data plane says of itself, in the family `IPVS_RS` ([`conn`](crate::conn)):
//! `GET_STATUS` is answered by `NEW_STATUS` messages, first the lines of words,
//! then the reasons under which packets were counted.
//!
//! | no | attribute | type |
//! |---|---|---|
//! | 1 | LINE | text, one line |
//! | 2 | REASON | text, the label of a reason |
//! | 3 | PACKETS | u64, with REASON |

use ipvs_core::verdict::Reason;

use crate::attr::{Table, Writer};

const LINE: u16 = 1;
const REASON: u16 = 2;
const PACKETS: u16 = 3;

/// What a data plane says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Words for an administrator, line by line.
    pub lines: Vec<String>,
    /// Packets by the label of the reason under which they were counted.
    pub packets: Vec<(String, u64)>,
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

/// Adds what one message says to `status`; `None` if it says nothing.
pub fn read(attrs: &[u8], status: &mut Status) -> Option<()> {
    let table = Table::<4>::parse(attrs, &[]).ok()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if let Some(line) = table.text(LINE) {
        status.lines.push(text(line));
        return Some(());
    }
    status.packets.push((text(table.text(REASON)?), table.u64(PACKETS)?));
    Some(())
}
