//! What a kernel shows of IPVS in `/proc/net`, in its formats, from any director.

use std::fmt::Write as _;

use ipvs_core::addr::{Addr, Family};
use ipvs_core::service::ServiceFlags;
use ipvs_core::snapshot::{DestStatus, ServiceStatus};
use ipvs_core::stats::{Counters, Rates};

use crate::client::Transport;
use crate::conn::Connection;
use crate::helper::Helper;
use crate::{Client, ClientError, Info};

/// The files, as they are called in `/proc/net`.
pub const FILES: [&str; 6] =
    ["ip_vs", "ip_vs_app", "ip_vs_conn", "ip_vs_conn_sync", "ip_vs_stats", "ip_vs_stats_percpu"];

/// Ticks a second of the kernel that persistence timeouts are shown for.
const TICKS: u32 = 250;
/// The kernel's flag of a connection that another director told of.
const FROM_SYNC: u32 = 0x0020;

/// The text of one of [`FILES`].
pub fn text<T: Transport>(client: &mut Client<T>, file: &str) -> Result<String, ClientError> {
    if let Some(text) = client.kernel_file(file)? {
        return Ok(text);
    }
    Ok(match file {
        "ip_vs_app" => helpers(&client.helpers()?),
        "ip_vs_conn" => connections(&client.connections()?),
        "ip_vs_conn_sync" => connections_by_origin(&client.connections()?),
        "ip_vs_stats" => {
            let total = client.statistics()?.total;
            statistics(&total)
        }
        "ip_vs_stats_percpu" => {
            let statistics = client.statistics()?;
            statistics_by_cpu(&statistics.total, &statistics.cpus)
        }
        _ => {
            let mut text = heading(client.info()?);
            for service in client.services()? {
                text += &service_line(&service);
                for dest in client.dests(&service.key)? {
                    text += &dest_line(&dest);
                }
            }
            text
        }
    })
}

/// Lines above services and destinations.
fn heading(info: Info) -> String {
    let [_, major, minor, patch] = info.version.to_be_bytes();
    let size = info.table_size;
    format!(
        "IP Virtual Server version {major}.{minor}.{patch} (size={size})\n\
         Prot LocalAddress:Port Scheduler Flags\n\
         \x20 -> RemoteAddress:Port Forward Weight ActiveConn InActConn\n"
    )
}

fn service_line(status: &ServiceStatus) -> String {
    let ServiceStatus { key, spec, .. } = status;
    let scheduler = if spec.scheduler.is_empty() { "none" } else { spec.scheduler.as_str() };
    let has = |flag| spec.flags & flag != 0;
    let one_packet = if has(ServiceFlags::ONE_PACKET) { "ops " } else { "" };
    let mut line = if key.is_fwmark() {
        format!("FWM  {:08X} {scheduler} {one_packet}", key.fwmark)
    } else {
        let protocol = protocol_name(key.protocol);
        let addr = bracketed(key.family(), key.addr);
        let port = key.port;
        match key.family() {
            Family::V4 => format!("{protocol}  {addr}:{port:04X} {scheduler} {one_packet} "),
            // One-packet scheduling is not shown here.
            Family::V6 => format!("{protocol}  {addr}:{port:04X} {scheduler} "),
        }
    };
    if has(ServiceFlags::PERSISTENT) {
        let ticks = spec.timeout.wrapping_mul(TICKS);
        // A prefix length is shown as if it were a mask: with its octets reversed.
        let mask = u32::from_be_bytes(spec.netmask);
        let _infallible = write!(line, "persistent {ticks} {mask:08X}");
    }
    line + "\n"
}

fn dest_line(status: &DestStatus) -> String {
    let DestStatus { key, spec, active, inactive, .. } = status;
    let addr = bracketed(key.family(), key.addr);
    let method = match spec.method {
        1 => "Local",
        2 => "Tunnel",
        3 => "Route",
        _ => "Masq",
    };
    let (port, weight) = (key.port, spec.weight);
    format!("  -> {addr}:{port:04X}      {method:<7} {weight:<6} {active:<10} {inactive:<10}\n")
}

/// An address in hexadecimal; that of IPv6 in groups.
fn plain(family: Family, addr: Addr) -> String {
    match family {
        Family::V4 => format!("{:08X}", u32::from_be_bytes(addr.v4_octets())),
        Family::V6 => {
            let octets = addr.octets();
            let groups = octets.chunks(2).map(|pair| match pair {
                [high, low] => format!("{high:02x}{low:02x}"),
                _ => String::new(),
            });
            groups.collect::<Vec<_>>().join(":")
        }
    }
}

fn bracketed(family: Family, addr: Addr) -> String {
    match family {
        Family::V4 => plain(family, addr),
        Family::V6 => format!("[{}]", plain(family, addr)),
    }
}

/// The columns of a connection up to its state.
fn connection(conn: &Connection) -> String {
    let protocol = protocol_name(conn.protocol);
    let client = plain(conn.family, conn.client);
    let service = plain(conn.family, conn.virtual_addr);
    let dest = plain(conn.dest_family, conn.dest);
    format!(
        "{protocol:<3} {client} {:04X} {service} {:04X} {dest} {:04X} {:<11}",
        conn.client_port, conn.virtual_port, conn.dest_port, conn.state
    )
}

fn connections(all: &[Connection]) -> String {
    let heading =
        "Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires PEName PEData\n";
    lines(heading, all, |conn| {
        let (columns, seconds) = (connection(conn), conn.expires_ms / 1000);
        if conn.engine.is_empty() {
            return format!("{columns} {seconds:>7}\n");
        }
        format!("{columns} {seconds:>7} {} {}\n", conn.engine, conn.engine_data)
    })
}

fn connections_by_origin(all: &[Connection]) -> String {
    let heading = "Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Origin Expires\n";
    lines(heading, all, |conn| {
        let origin = if conn.flags & FROM_SYNC != 0 { "SYNC" } else { "LOCAL" };
        format!("{} {origin:<6} {:>7}\n", connection(conn), conn.expires_ms / 1000)
    })
}

fn helpers(all: &[Helper]) -> String {
    lines("prot port    usecnt name\n", all, |helper| {
        let Helper { protocol, port, users, name } = helper;
        format!("{:<3}  {port:<7} {users:<6} {name:<17}\n", protocol_name(*protocol))
    })
}

/// A heading and the lines below it.
fn lines<T>(heading: &str, all: &[T], line: impl Fn(&T) -> String) -> String {
    std::iter::once(heading.to_owned()).chain(all.iter().map(line)).collect()
}

/// Counters, or what else stands in their columns.
fn columns([conns, in_packets, out_packets, in_bytes, out_bytes]: [u64; 5]) -> String {
    format!("{conns:8X} {in_packets:8X} {out_packets:8X} {in_bytes:16X} {out_bytes:16X}\n")
}

const fn counters(it: &Counters) -> [u64; 5] {
    [it.conns, it.in_packets, it.out_packets, it.in_bytes, it.out_bytes]
}

const fn rates(it: &Rates) -> [u64; 5] {
    [it.conns, it.in_packets, it.out_packets, it.in_bytes, it.out_bytes]
}

fn statistics(total: &(Counters, Rates)) -> String {
    format!(
        "   Total Incoming Outgoing         Incoming         Outgoing\n   \
         Conns  Packets  Packets            Bytes            Bytes\n\
         {}\n \
         Conns/s   Pkts/s   Pkts/s          Bytes/s          Bytes/s\n\
         {}",
        columns(counters(&total.0)),
        columns(rates(&total.1))
    )
}

fn statistics_by_cpu(total: &(Counters, Rates), cpus: &[Counters]) -> String {
    let heading = "       Total Incoming Outgoing         Incoming         Outgoing\n\
                   CPU    Conns  Packets  Packets            Bytes            Bytes\n";
    let numbered: Vec<_> = cpus.iter().enumerate().collect();
    let rows = lines(heading, &numbered, |(cpu, counted)| {
        format!("{cpu:3X} {}", columns(counters(counted)))
    });
    format!(
        "{rows}  ~ {}\n     Conns/s   Pkts/s   Pkts/s          Bytes/s          Bytes/s\n    {}",
        columns(counters(&total.0)),
        columns(rates(&total.1))
    )
}

/// A protocol as connections and the kernel's files show it.
pub fn protocol_name(protocol: u8) -> String {
    match protocol {
        0 => "IP".to_owned(),
        1 => "ICMP".to_owned(),
        6 => "TCP".to_owned(),
        17 => "UDP".to_owned(),
        58 => "ICMPv6".to_owned(),
        132 => "SCTP".to_owned(),
        other => format!("IP_{other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection() -> Connection {
        Connection {
            family: Family::V6,
            protocol: 17,
            client: Addr::v6([0x20; 16]),
            client_port: 50000,
            virtual_addr: Addr::v6([0; 16]),
            virtual_port: 80,
            dest_family: Family::V4,
            dest: Addr::v4([10, 1, 0, 11]),
            dest_port: 8080,
            state: "UDP".to_owned(),
            expires_ms: 299_999,
            flags: FROM_SYNC,
            fwmark: 0,
            engine: "sip".to_owned(),
            engine_data: "id@host".to_owned(),
        }
    }

    #[test]
    fn a_connection_has_its_engine_or_its_origin_behind_it() {
        let columns = "UDP 2020:2020:2020:2020:2020:2020:2020:2020 C350 \
                       0000:0000:0000:0000:0000:0000:0000:0000 0050 0A01000B 1F90 UDP        ";
        let all = [connection()];
        let last = |text: String| text.lines().last().unwrap_or_default().to_owned();
        assert_eq!(last(connections(&all)), format!("{columns}     299 sip id@host"));
        assert_eq!(last(connections_by_origin(&all)), format!("{columns} SYNC       299"));
    }

    #[test]
    fn counters_stand_in_hexadecimal_columns() {
        let counted =
            Counters { conns: 3, in_packets: 30, out_packets: 24, in_bytes: 2500, out_bytes: 8000 };
        let expect = "   Total Incoming Outgoing         Incoming         Outgoing\n   \
                      Conns  Packets  Packets            Bytes            Bytes\n       \
                      3       1E       18              9C4             1F40\n\n \
                      Conns/s   Pkts/s   Pkts/s          Bytes/s          Bytes/s\n       \
                      0        0        0                0                0\n";
        assert_eq!(statistics(&(counted, Rates::default())), expect);
        let expect = "       Total Incoming Outgoing         Incoming         Outgoing\n\
                      CPU    Conns  Packets  Packets            Bytes            Bytes\n  \
                      0        3       1E       18              9C4             1F40\n  \
                      ~        3       1E       18              9C4             1F40\n\n     \
                      Conns/s   Pkts/s   Pkts/s          Bytes/s          Bytes/s\n           \
                      0        0        0                0                0\n";
        assert_eq!(statistics_by_cpu(&(counted, Rates::default()), &[counted]), expect);
    }
}
