//! The family `IPVS_RS`, our own: connections, which the kernel shows in
//! `/proc/net/ip_vs_conn` only, the state of the data plane ([`status`](crate::status)),
//! and the settings of `net.ipv4.vs` (`setting`).
//!
//! It has the framing of the kernel's family and these commands:
//!
//! | no | command | do | dump | reply |
//! |---|---|---|---|---|
//! | 1 | `NEW_CONN` | | | (only as a reply) |
//! | 2 | `GET_CONN` | | x | `NEW_CONN`, multi, one a connection or template, in no order |
//! | 3 | `NEW_STATUS` | | | (only as a reply) |
//! | 4 | `GET_STATUS` | | x | `NEW_STATUS`, multi, one a line or reason |
//! | 5 | `NEW_SETTING` | | | (only as a reply) |
//! | 6 | `GET_SETTING` | x | x | `NEW_SETTING`; as a dump multi, one a setting, sorted by name |
//! | 7 | `SET_SETTING` | x | | acknowledgement |
//! | 8 | `NEW_STATS` | | | (only as a reply) |
//! | 9 | `GET_STATS` | | x | `NEW_STATS`, multi, the total and then one a CPU |
//! | 14 | `NEW_HELPER` | | | (only as a reply) |
//! | 15 | `GET_HELPER` | | x | [`NEW_HELPER`](crate::helper), multi, one a port |
//!
//! From 10 on there are [transactions](crate::transaction), from 16 on [mark rules](crate::marks),
//! from 21 on [health](crate::health), from 24 on [drains](crate::drains).
//!
//! | no | attribute | type |
//! |---|---|---|
//! | 1 | FAMILY | u16: 2 or 10, of client and virtual address |
//! | 2 | PROTOCOL | u8; 0 for the template of a firewall-mark service |
//! | 3 | CLIENT_ADDR | 16 bytes (IPv4: first 4, rest 0) |
//! | 4 | CLIENT_PORT | u16, network order |
//! | 5 | VIRTUAL_ADDR | 16 bytes; the mark in the first 4, big-endian, where the protocol is 0 |
//! | 6 | VIRTUAL_PORT | u16, network order |
//! | 7 | DEST_FAMILY | u16: 2 or 10 |
//! | 8 | DEST_ADDR | 16 bytes |
//! | 9 | DEST_PORT | u16, network order |
//! | 10 | STATE | text, the kernel's word: ESTABLISHED, UDP, NONE, … |
//! | 11 | EXPIRES | u64, milliseconds |
//! | 12 | FLAGS | u32, the kernel's connection flags; forwarding method in the low three bits |
//! | 13 | FWMARK | u32; left out when 0 |
//! | 14 | PE_NAME | text; left out without a persistence engine |
//! | 15 | PE_DATA | bytes; left out without |

use ipvs_core::addr::{Addr, Family};
use ipvs_core::snapshot::ConnStatus;

use crate::attr::{Table, Writer};
use crate::service::{addr_of, family_of, number_of};

/// Name of the family.
pub const FAMILY_NAME: &str = "IPVS_RS";
/// Version of the family.
pub const FAMILY_VERSION: u8 = 1;
/// Message type of the family.
pub const FAMILY_ID: u16 = 0x21;
/// Highest attribute of the family.
pub const FAMILY_MAX_ATTR: u16 = 15;
/// Only as a reply: one connection.
pub const NEW_CONN: u8 = 1;
/// Asks for every connection.
pub const GET_CONN: u8 = 2;
/// Only as a reply: one line of the plane's state, or the packets of one reason.
pub const NEW_STATUS: u8 = 3;
/// Asks for the plane's state.
pub const GET_STATUS: u8 = 4;
/// Only as a reply: one setting with its value.
pub const NEW_SETTING: u8 = 5;
/// Asks for every setting, or the one that is named.
pub const GET_SETTING: u8 = 6;
/// Changes a setting.
pub const SET_SETTING: u8 = 7;
/// Only as a reply: statistics of everything together, or of a CPU.
pub const NEW_STATS: u8 = 8;
/// Asks for statistics of everything together, and by CPU.
pub const GET_STATS: u8 = 9;
/// Only as a reply: a port whose connections are helped.
pub const NEW_HELPER: u8 = 14;
/// Asks for the ports whose connections are helped.
pub const GET_HELPER: u8 = 15;

const FAMILY: u16 = 1;
const PROTOCOL: u16 = 2;
const CLIENT_ADDR: u16 = 3;
const CLIENT_PORT: u16 = 4;
const VIRTUAL_ADDR: u16 = 5;
const VIRTUAL_PORT: u16 = 6;
const DEST_FAMILY: u16 = 7;
const DEST_ADDR: u16 = 8;
const DEST_PORT: u16 = 9;
const STATE: u16 = 10;
const EXPIRES: u16 = 11;
const FLAGS: u16 = 12;
const FWMARK: u16 = 13;
const PE_NAME: u16 = 14;
const PE_DATA: u16 = 15;

/// A connection or template as a client gets it; its own text, unlike
/// [`ConnStatus`], since a kernel may know more states than we do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Family of client and virtual address.
    pub family: Family,
    /// IANA protocol number; 0 for the template of a firewall-mark service.
    pub protocol: u8,
    /// Client address; for a template, masked.
    pub client: Addr,
    /// Client port; 0 for a template.
    pub client_port: u16,
    /// Virtual address; the mark in the first four octets, big-endian, for the
    /// template of a firewall-mark service.
    pub virtual_addr: Addr,
    /// Virtual port.
    pub virtual_port: u16,
    /// Family of the destination address.
    pub dest_family: Family,
    /// Destination address.
    pub dest: Addr,
    /// Destination port.
    pub dest_port: u16,
    /// State as the kernel prints it.
    pub state: String,
    /// Milliseconds until it expires.
    pub expires_ms: u64,
    /// The kernel's connection flags; 0 where it does not show them.
    pub flags: u32,
    /// The firewall mark it was made under; 0 for none.
    pub fwmark: u32,
    /// Persistence engine; empty for none.
    pub engine: String,
    /// What the engine keeps, as the kernel prints it.
    pub engine_data: String,
}

/// Writes the attributes of one connection.
pub fn write(writer: &mut Writer, conn: &ConnStatus) {
    writer.u16(FAMILY, number_of(conn.family));
    writer.u8(PROTOCOL, conn.protocol);
    writer.attr(CLIENT_ADDR, &conn.client.octets());
    writer.be16(CLIENT_PORT, conn.client_port);
    writer.attr(VIRTUAL_ADDR, &conn.virtual_addr.octets());
    writer.be16(VIRTUAL_PORT, conn.virtual_port);
    writer.u16(DEST_FAMILY, number_of(conn.dest_family));
    writer.attr(DEST_ADDR, &conn.dest.octets());
    writer.be16(DEST_PORT, conn.dest_port);
    writer.text(STATE, conn.state.as_bytes());
    writer.u64(EXPIRES, conn.expires_ms);
    writer.u32(FLAGS, conn.flags);
    if conn.fwmark != 0 {
        writer.u32(FWMARK, conn.fwmark);
    }
    if let Some((name, data)) = conn.engine {
        writer.text(PE_NAME, name.as_bytes());
        writer.attr(PE_DATA, &data.octets().collect::<Vec<_>>());
    }
}

/// Reads the attributes of one connection; `None` if they make none.
pub fn read(attrs: &[u8]) -> Option<Connection> {
    let table = Table::<16>::parse(attrs, &[]).ok()?;
    let family = family_of(table.u16(FAMILY)?)?;
    let dest_family = family_of(table.u16(DEST_FAMILY)?)?;
    let addr = |number, family| Some(addr_of(family, table.padded(number)?));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Some(Connection {
        family,
        protocol: table.u8(PROTOCOL)?,
        client: addr(CLIENT_ADDR, family)?,
        client_port: table.be16(CLIENT_PORT)?,
        virtual_addr: addr(VIRTUAL_ADDR, family)?,
        virtual_port: table.be16(VIRTUAL_PORT)?,
        dest_family,
        dest: addr(DEST_ADDR, dest_family)?,
        dest_port: table.be16(DEST_PORT)?,
        state: text(table.text(STATE)?),
        expires_ms: table.u64(EXPIRES)?,
        flags: table.u32(FLAGS).unwrap_or(0),
        fwmark: table.u32(FWMARK).unwrap_or(0),
        engine: text(table.text(PE_NAME).unwrap_or(&[])),
        engine_data: text(table.get(PE_DATA).unwrap_or(&[])),
    })
}
