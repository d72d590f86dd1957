//! `cargo xtask bench proxy-view`: what users of real programs see through a director, next to
//! what they see through others.

mod bed;
mod flood;
mod load;
mod peers;

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail, ensure};

use crate::say;
use crate::sheet::Sheet;
use bed::Bed;
use peers::Peer;

/// Requests a second, throughput and latency of real programs, interfaces as the kernel makes
/// them: offloads on. And datagrams a second of the plane in user space.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How long each measurement takes
    #[arg(long, value_name = "N", default_value_t = 2)]
    seconds: u32,
    /// How many rounds; in each, everything is measured once
    #[arg(long, value_name = "N", default_value_t = 5)]
    rounds: u32,
    /// Requests a second that are offered, to see how long each takes
    #[arg(long, value_name = "N", default_value_t = 2000)]
    offered: u32,
    /// Only these: forward, ipvs-bpf, ipvs-user, nft-dnat, haproxy, nginx
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    only: Vec<String>,
    /// Write all figures to this file, too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// One short round: does it all work?
    #[arg(long)]
    smoke: bool,
}

const REQUESTS: &str = "requests a second";
const GIGABITS: &str = "Gbit/s";
const MICROS: &str = "µs";
const DATAGRAMS: &str = "thousand datagrams a second of CPU time";

/// Runs the bench, and writes the table to `out`.
pub(crate) fn run_task(options: &Options, out: &mut impl Write) -> Result<()> {
    measure(options)?.publish(out, options.json.as_deref())
}

/// Runs the bench.
pub(crate) fn measure(options: &Options) -> Result<Sheet> {
    let (rounds, seconds, offered) = if options.smoke {
        (1, 1, 200)
    } else {
        (options.rounds, options.seconds, options.offered)
    };
    ensure!(rounds > 0 && (1..60).contains(&seconds), "nothing to be measured");
    ensure!((1..=100_000).contains(&offered), "1 to 100000 requests a second");
    let names = Peer::ALL.map(Peer::name);
    if let Some(unknown) = options.only.iter().find(|it| !names.contains(&it.as_str())) {
        bail!("nothing is called {unknown}; there are {}", names.join(", "));
    }
    let is_wanted =
        |name: &str| options.only.is_empty() || options.only.iter().any(|it| it == name);
    let mut sheet = Sheet::new("proxy-view", rounds);
    sheet.note(format!(
        "clients, director and servers on {} CPUs; wrk with 32 connections, iperf3 with one, \
         latency at {offered} requests a second over 16 connections, from when each was due; \
         by the clock on the wall",
        crate::machine::cpus()?.len()
    ));
    if let Some(package) = load::is_missing() {
        sheet.note(format!("skipped: all that is by TCP, for want of package {package}"));
    } else {
        by_tcp(&is_wanted, rounds, seconds, offered, &mut sheet)?;
    }
    for round in 1..=rounds {
        for peer in [Peer::IpvsUser, Peer::Nginx].into_iter().filter(|it| is_wanted(it.name())) {
            if let Some(reason) = peer.is_missing() {
                sheet.note(format!("skipped: {}: {reason}", peer.name()));
                continue;
            }
            say(&format!("round {round} of {rounds}: datagrams through {}", peer.name()));
            let name = format!("udp/{}", peer.name());
            match flood::measure(peer, options.smoke).with_context(|| name.clone())? {
                Ok(rate) => sheet.add(&name, DATAGRAMS, rate / 1e3),
                Err(flaw) => sheet.refuse(&name, DATAGRAMS, flaw),
            }
        }
    }
    Ok(sheet)
}

fn by_tcp(
    is_wanted: &dyn Fn(&str) -> bool,
    rounds: u32,
    seconds: u32,
    offered: u32,
    sheet: &mut Sheet,
) -> Result<()> {
    let mut beds = Vec::new();
    for peer in Peer::ALL.into_iter().filter(|it| is_wanted(it.name())) {
        if let Some(reason) = peer.is_missing() {
            sheet.note(format!("skipped: {}: {reason}", peer.name()));
            continue;
        }
        say(&format!("setting up {}", peer.name()));
        beds.push(Bed::new(peer).with_context(|| peer.name())?);
    }
    for round in 1..=rounds {
        for bed in &mut beds {
            let peer = bed.peer().name();
            say(&format!("round {round} of {rounds}: {peer}"));
            let before = bed.connections()?;
            for (what, keeps) in [("keep-alive", true), ("close", false)] {
                let name = format!("wrk/{what}/{peer}");
                match load::wrk(bed, keeps, seconds).with_context(|| name.clone())? {
                    Ok(rate) => sheet.add(&name, REQUESTS, rate),
                    Err(flaw) => sheet.refuse(&name, REQUESTS, flaw),
                }
            }
            let name = format!("iperf3/{peer}");
            sheet.add(&name, GIGABITS, load::iperf3(bed, seconds).with_context(|| name.clone())?);
            let latency = load::latency(bed, offered, seconds).context("latency")?;
            for (percentile, micros) in latency {
                sheet.add(&format!("latency/{percentile}/{peer}"), MICROS, micros);
            }
            // It all went by a way of its own, or it says nothing about it.
            if let (Some(before), Some(after)) = (before, bed.connections()?)
                && after == before
            {
                sheet.refuse(&name, GIGABITS, "the director saw no connection of it");
            }
        }
    }
    Ok(())
}
