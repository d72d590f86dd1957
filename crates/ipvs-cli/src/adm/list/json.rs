//! Listings as JSON (`--json`), one object for each, with everything that is known; no
//! names are looked up.

use std::io::{self, Write};
use std::net::IpAddr;

use ipvs_core::addr::{Addr, Family};
use ipvs_core::service::ServiceFlags;
use ipvs_core::snapshot::{DestStatus, ServiceStatus, Timeouts};
use ipvs_core::stats::{Counters, Rates};
use ipvs_netlink::Info;
use ipvs_netlink::conn::Connection;
use ipvs_netlink::sync::{SyncDaemon, SyncState};
use ipvs_netlink::views::protocol_name;
use serde::Serialize;

use super::text::{mask, sched_flags};

/// Services with their destinations.
#[derive(Debug, Serialize)]
pub(super) struct Table {
    version: String,
    size: u32,
    services: Vec<Service>,
}

#[derive(Debug, Serialize)]
struct Service {
    #[serde(skip_serializing_if = "Option::is_none")]
    protocol: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fwmark: Option<u32>,
    ipv6: bool,
    scheduler: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    scheduler_flags: Option<String>,
    one_packet: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    persistence: Option<Persistence>,
    statistics: Statistics,
    destinations: Vec<Dest>,
}

#[derive(Debug, Serialize)]
struct Persistence {
    timeout: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    mask: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    engine: Option<String>,
}

#[derive(Debug, Serialize)]
struct Dest {
    address: IpAddr,
    port: u16,
    method: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tunnel: Option<Tunnel>,
    weight: i32,
    upper_threshold: u32,
    lower_threshold: u32,
    active: u32,
    inactive: u32,
    persistent: u32,
    statistics: Statistics,
}

#[derive(Debug, Serialize)]
struct Tunnel {
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    checksum: &'static str,
}

/// Totals, and rates per second.
#[derive(Debug, Serialize)]
struct Statistics {
    connections: u64,
    packets_in: u64,
    packets_out: u64,
    bytes_in: u64,
    bytes_out: u64,
    connections_per_second: u64,
    packets_in_per_second: u64,
    packets_out_per_second: u64,
    bytes_in_per_second: u64,
    bytes_out_per_second: u64,
}

impl Statistics {
    const fn new(counters: &Counters, rates: &Rates) -> Self {
        Self {
            connections: counters.conns,
            packets_in: counters.in_packets,
            packets_out: counters.out_packets,
            bytes_in: counters.in_bytes,
            bytes_out: counters.out_bytes,
            connections_per_second: rates.conns,
            packets_in_per_second: rates.in_packets,
            packets_out_per_second: rates.out_packets,
            bytes_in_per_second: rates.in_bytes,
            bytes_out_per_second: rates.out_bytes,
        }
    }
}

impl Table {
    pub(super) fn new(info: Info) -> Self {
        let [_, major, minor, patch] = info.version.to_be_bytes();
        let version = format!("{major}.{minor}.{patch}");
        Self { version, size: info.table_size, services: Vec::new() }
    }

    /// Adds a service and its destinations.
    pub(super) fn add(&mut self, status: &ServiceStatus, dests: &[DestStatus]) {
        let ServiceStatus { key, spec, counters, rates } = status;
        let by_address = !key.is_fwmark();
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let persistence = (spec.flags & ServiceFlags::PERSISTENT != 0).then(|| Persistence {
            timeout: spec.timeout,
            mask: mask(key.family(), spec),
            engine: some(spec.engine.as_str()),
        });
        self.services.push(Service {
            protocol: by_address.then(|| protocol_name(key.protocol)),
            address: by_address.then(|| key.addr.to_ip(key.family())),
            port: by_address.then_some(key.port),
            fwmark: key.is_fwmark().then_some(key.fwmark),
            ipv6: key.family() == Family::V6,
            scheduler: spec.scheduler.as_str().to_owned(),
            scheduler_flags: sched_flags(spec),
            one_packet: spec.flags & ServiceFlags::ONE_PACKET != 0,
            persistence,
            statistics: Statistics::new(counters, rates),
            destinations: dests.iter().map(dest).collect(),
        });
    }
}

fn dest(status: &DestStatus) -> Dest {
    let DestStatus { key, spec, active, inactive, persistent, counters, rates } = status;
    let method = match spec.method & 7 {
        0 => "masquerade",
        1 => "local",
        2 => "tunnel",
        3 => "route",
        _ => "bypass",
    };
    let (kind, has_port) = match spec.tunnel_type {
        1 => ("gue", true),
        2 => ("gre", false),
        _ => ("ipip", false),
    };
    let checksum = match spec.tunnel_flags {
        1 => "full",
        2 => "remote",
        _ => "none",
    };
    let port = has_port.then_some(spec.tunnel_port);
    Dest {
        address: key.addr.to_ip(key.family()),
        port: key.port,
        method,
        tunnel: (method == "tunnel").then_some(Tunnel { kind, port, checksum }),
        weight: spec.weight,
        upper_threshold: spec.upper,
        lower_threshold: spec.lower,
        active: *active,
        inactive: *inactive,
        persistent: *persistent,
        statistics: Statistics::new(counters, rates),
    }
}

/// Connections and templates.
#[derive(Debug, Serialize)]
pub(super) struct Connections<'a> {
    connections: Vec<Conn<'a>>,
}

#[derive(Debug, Serialize)]
struct Conn<'a> {
    protocol: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    fwmark: Option<u32>,
    client: IpAddr,
    client_port: u16,
    /// Left out of the template of a firewall mark.
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<IpAddr>,
    service_port: u16,
    destination: IpAddr,
    destination_port: u16,
    state: &'a str,
    expires_ms: u64,
    flags: u32,
    #[serde(skip_serializing_if = "str::is_empty")]
    engine: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    engine_data: &'a str,
}

impl<'a> Connections<'a> {
    pub(super) fn new(all: &'a [Connection]) -> Self {
        Self { connections: all.iter().map(conn).collect() }
    }
}

fn conn(conn: &Connection) -> Conn<'_> {
    let ip = |addr: Addr, family| addr.to_ip(family);
    Conn {
        protocol: protocol_name(conn.protocol),
        fwmark: (conn.fwmark != 0).then_some(conn.fwmark),
        client: ip(conn.client, conn.family),
        client_port: conn.client_port,
        service: (conn.protocol != 0).then(|| ip(conn.virtual_addr, conn.family)),
        service_port: conn.virtual_port,
        destination: ip(conn.dest, conn.dest_family),
        destination_port: conn.dest_port,
        state: &conn.state,
        expires_ms: conn.expires_ms,
        flags: conn.flags,
        engine: &conn.engine,
        engine_data: &conn.engine_data,
    }
}

/// The three timeouts, in seconds.
#[derive(Debug, Serialize)]
pub(super) struct Seconds {
    tcp: u32,
    tcp_fin: u32,
    udp: u32,
}

impl From<Timeouts> for Seconds {
    fn from(Timeouts { tcp, tcp_fin, udp }: Timeouts) -> Self {
        Self { tcp, tcp_fin, udp }
    }
}

/// Sync daemons, the master first.
#[derive(Debug, Serialize)]
pub(super) struct Daemons {
    daemons: Vec<Daemon>,
}

#[derive(Debug, Serialize)]
struct Daemon {
    state: &'static str,
    interface: String,
    sync_id: u32,
    max_len: u16,
    group: Option<IpAddr>,
    port: u16,
    ttl: u8,
}

impl Daemons {
    pub(super) fn new(all: &[SyncDaemon]) -> Self {
        let daemon = |it: &SyncDaemon| Daemon {
            state: if it.state == SyncState::Master.number() { "master" } else { "backup" },
            interface: it.interface.as_str().to_owned(),
            sync_id: it.sync_id,
            max_len: it.max_len,
            group: it.group,
            port: it.port,
            ttl: it.ttl,
        };
        Self { daemons: all.iter().map(daemon).collect() }
    }
}

/// Writes one object, and a newline.
pub(super) fn write(out: &mut dyn Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value)?;
    writeln!(out)
}
