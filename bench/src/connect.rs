//! `cargo xtask bench connect`: what a packet costs that opens a connection.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ipvs_core::addr::Family;

use crate::director::{has_nft, too_few_tracked};
use crate::machine::{CpuTime, go_before_others, take_one_cpu};
use crate::mode::{Hook, Method, Mode};
use crate::packet::{Addresses, Order, Phase, Traffic};
use crate::say;
use crate::sheet::Sheet;
use crate::subject::{Run, Subject};

/// Thousands of packets a second, each of which opens a connection, and what few such packets
/// cost among those of known connections.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How many connections there is room for; with 10000000 the machine needs 8 GiB
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    table: u32,
    /// How many packets a measurement has
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    packets: u32,
    /// How many rounds; in each, everything is measured once, beginning with nothing
    #[arg(long, value_name = "N", default_value_t = 5)]
    rounds: u32,
    /// Only these: xdp-nat, xdp-dr, tc-nat, nft-dnat
    #[arg(long, value_name = "MODE,…", value_delimiter = ',')]
    only: Vec<String>,
    /// IPv6 instead of IPv4
    #[arg(long)]
    ipv6: bool,
    /// The CPU that everything runs on [default: the last]
    #[arg(long, value_name = "N")]
    cpu: Option<usize>,
    /// Write all figures to this file, too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// One short round: does it all work?
    #[arg(long)]
    smoke: bool,
}

const MODES: [Mode; 4] = [
    Mode::Ipvs(Hook::Xdp, Method::Nat),
    Mode::Ipvs(Hook::Xdp, Method::Dr),
    Mode::Ipvs(Hook::Tc, Method::Nat),
    Mode::NftDnat,
];
/// Known connections in mixes.
const KNOWN: u32 = 10_000;
const MIXES: [u32; 2] = [1, 10];
const RATE: &str = "thousand packets a second";
/// As long as a connection that nobody answers lives, with some to spare.
const LIFE: Duration = Duration::from_secs(55);

/// Runs the bench, and writes the table to `out`.
pub(crate) fn run_task(options: &Options, out: &mut impl Write) -> Result<()> {
    measure(options)?.publish(out, options.json.as_deref())
}

/// Runs the bench.
pub(crate) fn measure(options: &Options) -> Result<Sheet> {
    let (table, packets, rounds) = if options.smoke {
        (50_000, 5_000, 1)
    } else {
        (options.table, options.packets, options.rounds)
    };
    ensure!(rounds > 0 && packets > 0, "nothing to be measured");
    let most = u64::from(packets) * 3 + u64::from(KNOWN);
    ensure!(
        table <= 1 << 25 && u64::from(table) >= most,
        "room for at least {most} connections, which are opened, and at most {}",
        1 << 25
    );
    if let Some(unknown) =
        options.only.iter().find(|it| !MODES.iter().any(|mode| mode.name() == it.as_str()))
    {
        anyhow::bail!("no mode {unknown}; there are {}", MODES.map(Mode::name).join(", "));
    }
    let cpu = take_one_cpu(options.cpu)?;
    go_before_others();
    let mut sheet = Sheet::new("connect", rounds);
    sheet.note(format!(
        "time of CPU {cpu}, which does everything: generator, director, sink; SYNs of {packets} \
         new connections each, room for {table}; mixes with {KNOWN} known connections"
    ));
    let family = if options.ipv6 { Family::V6 } else { Family::V4 };
    for round in 1..=rounds {
        for mode in MODES {
            let name = mode.name();
            if !options.only.is_empty() && !options.only.iter().any(|it| it == name) {
                continue;
            }
            let mut room = table;
            if mode == Mode::NftDnat {
                if !has_nft() {
                    sheet.note("skipped: nft-dnat, for want of nft (package nftables)");
                    continue;
                }
                if let Some(reason) = too_few_tracked(table)? {
                    sheet.note(format!("skipped: nft-dnat with a full table: {reason}"));
                    room = 0;
                }
            }
            say(&format!("round {round} of {rounds}: {name}"));
            let subject = Subject::new(mode, Addresses::of(family), table, CpuTime::of(cpu))?;
            let mut opener = Opener { subject, family, packets, next: 0, sheet: &mut sheet };
            opener.measure(room).with_context(|| mode.name())?;
        }
    }
    Ok(sheet)
}

/// Opens one connection after the other, none twice.
struct Opener<'s> {
    subject: Subject,
    family: Family,
    /// Of a measurement.
    packets: u32,
    /// The first flow that there was not yet.
    next: u32,
    sheet: &'s mut Sheet,
}

impl Opener<'_> {
    /// Measures into an empty table, among known connections, and last, if there is to be a
    /// full table, when it is nearly full.
    fn measure(&mut self, table: u32) -> Result<()> {
        let start = std::time::Instant::now();
        let empty = self.open(self.packets)?;
        self.note("empty", &empty);
        let known = self.next;
        let traffic = Traffic {
            first: known,
            ..Traffic::new(self.family, Phase::Established, KNOWN, Order::Random)
        };
        self.subject.establish_all(traffic)?;
        self.next += KNOWN;
        for percent in MIXES {
            let fresh = Some((65_536 * percent / 100, self.next));
            let run = self.subject.pass(&Traffic { fresh, ..traffic }, self.packets)?;
            self.next += run.opened;
            self.note(&format!("{percent}%"), &run);
        }
        if table == 0 {
            return Ok(());
        }
        let free = table.saturating_sub(self.next);
        let fill = self.open(free.saturating_sub(self.packets))?;
        if let Some(flaw) = self.subject.flaw(&fill) {
            self.sheet.refuse(&self.name("full"), RATE, format!("as it was filled: {flaw}"));
            return Ok(());
        }
        let full = self.open(self.packets)?;
        if start.elapsed() > LIFE {
            let flaw = "the first connections were gone before the table was full";
            self.sheet.refuse(&self.name("full"), RATE, flaw);
            return Ok(());
        }
        self.note("full", &full);
        Ok(())
    }

    fn open(&mut self, packets: u32) -> Result<Run> {
        let traffic = Traffic {
            first: self.next,
            ..Traffic::new(self.family, Phase::Open, packets, Order::Sequence)
        };
        self.next += packets;
        self.subject.pass(&traffic, packets)
    }

    fn name(&self, which: &str) -> String {
        format!("{}/{which}", self.subject.mode)
    }

    fn note(&mut self, which: &str, run: &Run) {
        let name = self.name(which);
        if let Some(flaw) = self.subject.flaw(run) {
            self.sheet.refuse(&name, RATE, flaw);
        } else {
            let rate = f64::from(run.sent) / run.took.cpu.as_secs_f64();
            self.sheet.add(&name, RATE, rate / 1e3);
        }
    }
}
