//! Helpers, which the kernel shows in `/proc/net/ip_vs_app`, in the family `IPVS_RS`
//! ([`conn`](crate::conn)): `GET_HELPER` is answered by one `NEW_HELPER` for each port.
//!
//! | no | attribute | type |
//! |---|---|---|
//! | 1 | PROTOCOL | u8 |
//! | 2 | PORT | u16, network order |
//! | 3 | USERS | u32, connections that are helped |
//! | 4 | NAME | text |

use ipvs_core::dest::ForwardingMethod;
use ipvs_core::snapshot::{ConnStatus, Control};

use crate::attr::{Table, Writer};

/// The protocol of FTP.
const TCP: u8 = 6;

const PROTOCOL: u16 = 1;
const PORT: u16 = 2;
const USERS: u16 = 3;
const NAME: u16 = 4;

/// A port whose connections are helped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Helper {
    /// Their protocol.
    pub protocol: u8,
    /// The virtual port.
    pub port: u16,
    /// How many connections are helped now.
    pub users: u32,
    /// The helper.
    pub name: String,
}

/// Calls `each` for every port whose connections `control` helps, the last first, as a
/// kernel does (`ip_vs_ftp` loaded with two ports, on 6.1.176).
pub(crate) fn each(control: &mut dyn Control, each: &mut dyn FnMut(&Helper)) {
    let ports = control.ftp_ports();
    let mut helpers: Vec<Helper> = ports
        .into_iter()
        .rev()
        .filter(|port| *port != 0)
        .map(|port| Helper { protocol: TCP, port, users: 0, name: "ftp".to_owned() })
        .collect();
    control.connections(&mut |conn| {
        if let Some(helper) = helpers.iter_mut().find(|helper| is_helped(&conn, helper)) {
            helper.users += 1;
        }
    });
    helpers.iter().for_each(each);
}

/// Templates are not: they have no client's port.
fn is_helped(conn: &ConnStatus, helper: &Helper) -> bool {
    (conn.protocol, conn.virtual_port) == (helper.protocol, helper.port)
        && conn.client_port != 0
        && ForwardingMethod::from_flags(conn.flags) == ForwardingMethod::Masquerade
}

/// Writes the attributes of one.
pub(crate) fn write(writer: &mut Writer, helper: &Helper) {
    writer.u8(PROTOCOL, helper.protocol);
    writer.u16(PORT, helper.port.to_be());
    writer.u32(USERS, helper.users);
    writer.text(NAME, helper.name.as_bytes());
}

/// Reads the attributes of one.
pub(crate) fn read(attrs: &[u8]) -> Option<Helper> {
    let table = Table::<5>::parse(attrs, &[]).ok()?;
    Some(Helper {
        protocol: table.u8(PROTOCOL)?,
        port: u16::from_be(table.u16(PORT)?),
        users: table.u32(USERS)?,
        name: String::from_utf8_lossy(table.text(NAME)?).into_owned(),
    })
}
