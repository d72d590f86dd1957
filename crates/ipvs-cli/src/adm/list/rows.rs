//! The lines of a listing of services and destinations, in its formats.

use std::io::{self, Write};

use ipvs_core::service::{ServiceFlags, ServiceKey, ServiceSpec};
use ipvs_core::snapshot::{DestStatus, ServiceStatus};
use ipvs_core::stats::{Counters, Rates};

use super::super::options::{Given, GivenSet};
use super::text::{Naming, mask, method, number, sched_flags, tunnel};

/// What is shown of services and destinations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// Methods, weights and connections.
    Plain,
    /// Totals (`--stats`).
    Stats,
    /// Rates (`--rate`).
    Rate,
    /// Thresholds (`--thresholds`).
    Thresholds,
    /// Persistent connections (`--persistent-conn`).
    Persistent,
    /// Tunnels (`--tun-info`).
    Tunnel,
}

impl Format {
    /// The format asked for; of several, the first in this order.
    pub(crate) fn of(given: GivenSet) -> Self {
        let formats = [
            (Given::Stats, Self::Stats),
            (Given::Rate, Self::Rate),
            (Given::Thresholds, Self::Thresholds),
            (Given::PersistentConn, Self::Persistent),
            (Given::TunInfo, Self::Tunnel),
        ];
        formats.into_iter().find(|(option, _)| given.has(*option)).map_or(Self::Plain, |(_, f)| f)
    }
}

/// Writes the two lines above all services.
pub(crate) fn header(out: &mut dyn Write, format: Format) -> io::Result<()> {
    let first = "Prot LocalAddress:Port";
    let second = "  -> RemoteAddress:Port";
    match format {
        Format::Plain => {
            writeln!(out, "{first} Scheduler Flags")?;
            writeln!(out, "{second}           Forward Weight ActiveConn InActConn")
        }
        Format::Tunnel => {
            writeln!(out, "{first} Scheduler Flags")?;
            writeln!(out, "{second}           Forward TunnelInfo    Weight ActiveConn InActConn")
        }
        Format::Stats => {
            let columns = "    Conns   InPkts  OutPkts  InBytes OutBytes";
            writeln!(out, "{first:<33}{columns}\n{second}")
        }
        Format::Rate => {
            let columns = "      CPS    InPPS   OutPPS    InBPS   OutBPS";
            writeln!(out, "{first:<33}{columns}\n{second}")
        }
        Format::Thresholds => {
            let columns = " Uthreshold Lthreshold ActiveConn InActConn ";
            writeln!(out, "{first:<33}{columns}\n{second}")
        }
        Format::Persistent => {
            let columns = " Weight    PersistConn ActiveConn InActConn ";
            writeln!(out, "{first:<33}{columns}\n{second}")
        }
    }
}

/// Writes the line of a service.
pub(crate) fn service(
    out: &mut dyn Write,
    (format, exact): (Format, bool),
    naming: Naming<'_>,
    status: &ServiceStatus,
) -> io::Result<()> {
    let name = naming.service(&status.key);
    match format {
        Format::Stats => writeln!(out, "{name:<33}{}", totals(&status.counters, exact)),
        Format::Rate => {
            let rates = &status.rates;
            let counts = [rates.conns, rates.in_packets, rates.out_packets];
            let counts = counts.map(|count| number(count, exact)).concat();
            writeln!(out, "{name:<33}{counts}{}", byte_rates(rates, exact))
        }
        _ => {
            write!(out, "{name} ")?;
            scheduling(out, &status.key, &status.spec)
        }
    }
}

/// Writes the line of a destination.
pub(crate) fn dest(
    out: &mut dyn Write,
    (format, exact): (Format, bool),
    naming: Naming<'_>,
    service: &ServiceKey,
    status: &DestStatus,
) -> io::Result<()> {
    let DestStatus { key, spec, active, inactive, persistent, .. } = status;
    let name = naming.dest(key.family(), key.addr, key.port, service.protocol);
    write!(out, "  -> {name:<28}")?;
    let (weight, method) = (spec.weight, method(spec));
    match format {
        Format::Plain => {
            writeln!(out, " {method:<7} {weight:<6} {active:<10} {inactive:<10}")
        }
        Format::Tunnel => {
            let tunnel = tunnel(spec);
            writeln!(out, " {method:<7} {tunnel:<13} {weight:<6} {active:<10} {inactive:<10}")
        }
        Format::Stats => writeln!(out, "{}", totals(&status.counters, exact)),
        Format::Rate => {
            let Rates { conns, in_packets, out_packets, .. } = status.rates;
            let bytes = byte_rates(&status.rates, exact);
            writeln!(out, " {conns:>8} {in_packets:>8} {out_packets:>8}{bytes}")
        }
        Format::Thresholds => {
            let (upper, lower) = (spec.upper, spec.lower);
            writeln!(out, " {upper:<10} {lower:<10} {active:<10} {inactive:<10}")
        }
        Format::Persistent => {
            writeln!(out, " {weight:<9} {persistent:<11} {active:<10} {inactive:<10}")
        }
    }
}

/// The five columns of `--stats`.
fn totals(counters: &Counters, exact: bool) -> String {
    let Counters { conns, in_packets, out_packets, in_bytes, out_bytes } = *counters;
    let values = [conns, in_packets, out_packets, in_bytes, out_bytes];
    values.map(|value| number(value, exact)).concat()
}

/// The last two columns of `--rate`.
fn byte_rates(rates: &Rates, exact: bool) -> String {
    [rates.in_bytes, rates.out_bytes].map(|value| number(value, exact)).concat()
}

/// Writes scheduler, flags and persistence of a service.
fn scheduling(out: &mut dyn Write, key: &ServiceKey, spec: &ServiceSpec) -> io::Result<()> {
    write!(out, "{}", spec.scheduler)?;
    if let Some(flags) = sched_flags(spec) {
        write!(out, " ({flags})")?;
    }
    if spec.flags & ServiceFlags::PERSISTENT != 0 {
        write!(out, " persistent {}", spec.timeout)?;
        if let Some(mask) = mask(key.family(), spec) {
            write!(out, " mask {mask}")?;
        }
        if !spec.engine.is_empty() {
            write!(out, " pe {}", spec.engine)?;
        }
    }
    let ops = if spec.flags & ServiceFlags::ONE_PACKET != 0 { " ops" } else { "" };
    writeln!(out, "{ops}")
}
