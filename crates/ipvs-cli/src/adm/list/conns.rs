//! The listing of connections (`-c`).

use std::io::{self, Write};

use ipvs_netlink::conn::Connection;
use ipvs_netlink::views::protocol_name;

use super::text::Naming;

/// Writes the two lines above all connections.
pub(crate) fn header(out: &mut dyn Write, with_engine: bool) -> io::Result<()> {
    let [state, source, service, dest] = ["state", "source", "virtual", "destination"];
    writeln!(out, "IPVS connection entries")?;
    write!(out, "pro expire {state:<11} {source:<18} {service:<18} ")?;
    if with_engine {
        writeln!(out, "{dest:<18} {:<16} pe_data", "pe name")
    } else {
        writeln!(out, "{dest}")
    }
}

/// Writes the line of a connection.
pub(crate) fn row(
    out: &mut dyn Write,
    naming: Naming<'_>,
    with_engine: bool,
    conn: &Connection,
) -> io::Result<()> {
    let protocol = protocol_name(conn.protocol);
    let seconds = conn.expires_ms / 1000;
    let expire = format!("{:02}:{:02}", seconds / 60, seconds % 60);
    let endpoint = |family, addr, port| naming.endpoint(family, addr, port, conn.protocol);
    let source = endpoint(conn.family, conn.client, conn.client_port);
    let service = endpoint(conn.family, conn.virtual_addr, conn.virtual_port);
    let dest = endpoint(conn.dest_family, conn.dest, conn.dest_port);
    let state = &conn.state;
    write!(out, "{protocol:<3} {expire:<6} {state:<11} {source:<18} {service:<18} ")?;
    if with_engine && !conn.engine.is_empty() {
        // The widths are those of the header the other way round, as there.
        writeln!(out, "{dest:<16} {:<18} {}", conn.engine, conn.engine_data)
    } else {
        writeln!(out, "{dest}")
    }
}

#[cfg(test)]
mod tests {
    use ipvs_core::addr::{Addr, Family};

    use super::super::super::names::NoNames;
    use super::*;

    fn connection() -> Connection {
        Connection {
            family: Family::V4,
            protocol: 6,
            client: Addr::v4([198, 51, 100, 7]),
            client_port: 50000,
            virtual_addr: Addr::v4([192, 0, 2, 10]),
            virtual_port: 80,
            dest_family: Family::V4,
            dest: Addr::v4([10, 1, 0, 11]),
            dest_port: 8080,
            state: "ESTABLISHED".to_owned(),
            expires_ms: 899_999,
            flags: 0,
            fwmark: 0,
            engine: String::new(),
            engine_data: String::new(),
        }
    }

    #[track_caller]
    fn check(conn: &Connection, with_engine: bool, expect: &str) {
        let mut out = Vec::new();
        let naming = Naming { numeric: true, names: &NoNames };
        row(&mut out, naming, with_engine, conn).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), expect);
    }

    #[test]
    fn a_connection_shows_minutes_and_seconds() {
        let expect =
            "TCP 14:59  ESTABLISHED 198.51.100.7:50000 192.0.2.10:80      10.1.0.11:8080\n";
        check(&connection(), false, expect);
    }

    #[test]
    fn the_template_of_a_mark_shows_the_mark_as_an_address() {
        let conn = Connection {
            protocol: 0,
            client_port: 0,
            virtual_addr: Addr::v4([0, 0, 0, 7]),
            virtual_port: 0,
            dest_port: 0,
            state: "NONE".to_owned(),
            expires_ms: 86_400_000,
            ..connection()
        };
        let expect = "IP  1440:00 NONE        198.51.100.7:0     0.0.0.7:0          10.1.0.11:0\n";
        check(&conn, false, expect);
    }

    #[test]
    fn the_data_of_an_engine_is_shown_when_asked_for() {
        let conn = Connection {
            protocol: 17,
            engine: "sip".to_owned(),
            engine_data: "id@host".to_owned(),
            ..connection()
        };
        let expect = "UDP 14:59  ESTABLISHED 198.51.100.7:50000 192.0.2.10:80      \
            10.1.0.11:8080   sip                id@host\n";
        check(&conn, true, expect);
    }
}
