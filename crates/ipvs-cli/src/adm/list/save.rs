//! The table as command lines that make it (`-S`).

use std::io::{self, Write};

use ipvs_core::addr::Family;
use ipvs_core::service::{ServiceFlags, ServiceKey};
use ipvs_core::snapshot::{DestStatus, ServiceStatus};

use super::text::{Naming, mask, sched_flags};

/// Writes the line that adds a service. The engine and mask of a service
/// without persistence are not saved.
pub(crate) fn service(
    out: &mut dyn Write,
    naming: Naming<'_>,
    status: &ServiceStatus,
) -> io::Result<()> {
    let (key, spec) = (&status.key, &status.spec);
    write!(out, "-A {} -s {}", selector(naming, key), spec.scheduler)?;
    if spec.flags & ServiceFlags::PERSISTENT != 0 {
        write!(out, " -p {}", spec.timeout)?;
        if let Some(mask) = mask(key.family(), spec) {
            write!(out, " -M {mask}")?;
        }
    }
    if !spec.engine.is_empty() {
        write!(out, " --pe {}", spec.engine)?;
    }
    if spec.flags & ServiceFlags::ONE_PACKET != 0 {
        write!(out, " -o")?;
    }
    if let Some(flags) = sched_flags(spec) {
        write!(out, " -b {flags}")?;
    }
    writeln!(out)
}

/// Writes the line that adds a destination. Thresholds are saved only if `full`: the
/// original leaves them out.
pub(crate) fn dest(
    out: &mut dyn Write,
    naming: Naming<'_>,
    service: &ServiceKey,
    status: &DestStatus,
    full: bool,
) -> io::Result<()> {
    let (key, spec) = (&status.key, &status.spec);
    let server = naming.endpoint(key.family(), key.addr, key.port, service.protocol);
    let method = match spec.method & 7 {
        0 => "-m",
        2 => "-i",
        // A local one is found out again when it is added.
        _ => "-g",
    };
    write!(out, "-a {} -r {server} {method} -w {}", selector(naming, service), spec.weight)?;
    if method == "-i" {
        let flag = match spec.tunnel_flags {
            1 => "--tun-csum",
            2 => "--tun-remcsum",
            _ => "--tun-nocsum",
        };
        match spec.tunnel_type {
            1 => write!(out, " --tun-type gue --tun-port {} {flag}", spec.tunnel_port)?,
            2 => write!(out, " --tun-type gre {flag}")?,
            _ => write!(out, " --tun-type ipip")?,
        }
    }
    if full && (spec.upper, spec.lower) != (0, 0) {
        write!(out, " -x {} -y {}", spec.upper, spec.lower)?;
    }
    writeln!(out)
}

/// The options that name a service.
fn selector(naming: Naming<'_>, key: &ServiceKey) -> String {
    if key.is_fwmark() {
        let family = if key.family() == Family::V6 { " -6" } else { "" };
        return format!("-f {}{family}", key.fwmark.cast_signed());
    }
    let option = match key.protocol {
        6 => "-t",
        17 => "-u",
        132 => "--sctp-service",
        _ => "--xxx-service",
    };
    format!("{option} {}", naming.endpoint(key.family(), key.addr, key.port, key.protocol))
}
