//! `cargo xtask bench forward`: what a packet of a known connection costs.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use aya::sys::{Stats, enable_stats};
use ipvs_core::addr::Family;

use crate::director::{has_nft, too_few_tracked};
use crate::machine::{CpuTime, Machine, go_before_others, take_one_cpu};
use crate::mode::Mode;
use crate::packet::{Addresses, Order, Phase, Traffic};
use crate::report::{Report, Sample, Series, figures, ratios};
use crate::say;
use crate::subject::{Run, Subject};

/// Packets per second for each way of sending them on, and what it adds to
/// the bare floor.
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
pub(crate) struct Options {
    /// How long each measurement takes, about
    #[arg(long, value_name = "N", default_value_t = 0.7)]
    seconds: f64,
    /// How many rounds; in each, every mode is measured once
    #[arg(long, value_name = "N", default_value_t = 7)]
    rounds: u32,
    /// How many flows
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_values_t = [1, 10_000, 100_000])]
    flows: Vec<u32>,
    /// By Zipf's law: few flows have most packets
    #[arg(long)]
    zipf: bool,
    /// Octets of a frame, without its check sequence [default: the shortest]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(74..=1514))]
    length: Option<u16>,
    /// Only these modes, and the floor
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
    /// Ask the kernel in a round of its own how long the eBPF programs run
    #[arg(long)]
    programs: bool,
    /// One short round: does it all work?
    #[arg(long)]
    smoke: bool,
}

/// Runs the bench, and writes the table to `out`.
pub(crate) fn run_task(options: &Options, out: &mut impl Write) -> Result<()> {
    let (rounds, seconds) =
        if options.smoke { (1, 0.05) } else { (options.rounds, options.seconds) };
    ensure!(rounds > 0 && seconds > 0.0 && seconds < 10.0, "nothing to be measured");
    let most = options.flows.iter().copied().max().unwrap_or(0);
    ensure!(options.flows.iter().all(|it| (1..=1_000_000).contains(it)), "1 to 1000000 flows");
    let modes = modes(&options.only)?;
    let cpu = take_one_cpu(options.cpu)?;
    if !go_before_others() {
        say("others may take the CPU meanwhile and cool its caches (no chrt, package util-linux)");
    }
    let family = if options.ipv6 { Family::V6 } else { Family::V4 };
    let order = if options.zipf { Order::Zipf } else { Order::Random };
    let traffic = Traffic::new(family, Phase::Established, most, order);
    let length = options.length.map_or(traffic.length, usize::from);
    let traffic = Traffic { length, ..traffic };
    let mut subjects = subjects(&modes, &traffic, &CpuTime::of(cpu), Addresses::of(family))?;
    let mut all: Vec<Series> = Vec::new();
    for &flows in &options.flows {
        let empty = |subject: &Subject| Series {
            mode: subject.mode,
            flows,
            samples: Vec::new(),
            flaw: None,
            program_ns: None,
        };
        all.extend(subjects.iter().map(empty));
    }
    for round in 1..=rounds {
        say(&format!("round {round} of {rounds}"));
        for series in &mut all {
            let subject = of_mode(&mut subjects, series.mode)?;
            let traffic = Traffic { flows: series.flows, ..traffic };
            measure(subject, &traffic, series, Duration::from_secs_f64(seconds))?;
        }
    }
    if options.programs {
        say("how long the eBPF programs run");
        let _statistics = enable_stats(Stats::RunTime).context("no statistics of programs")?;
        for series in &mut all {
            let subject = of_mode(&mut subjects, series.mode)?;
            ask_program(subject, &Traffic { flows: series.flows, ..traffic }, series)?;
        }
    }
    let results = figures(&all);
    let report = Report {
        machine: Machine::this(),
        cpu,
        family: if options.ipv6 { "IPv6" } else { "IPv4" },
        frame_octets: length,
        order: if options.zipf { "by Zipf's law" } else { "evenly" },
        rounds,
        seconds,
        ratios: ratios(&results),
        results,
    };
    report.write(out)?;
    if let Some(path) = &options.json {
        let text = serde_json::to_string_pretty(&report)? + "\n";
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let flawed: Vec<&str> =
        report.results.iter().filter(|it| it.flaw.is_some()).map(|it| it.mode).collect();
    ensure!(flawed.is_empty(), "no figure of {}", flawed.join(", "));
    Ok(())
}

/// The modes asked for, in their order, and the floor.
fn modes(only: &[String]) -> Result<Vec<Mode>> {
    if let Some(unknown) = only.iter().find(|name| Mode::named(name).is_none()) {
        let names = Mode::ALL.map(Mode::name).join(", ");
        bail!("no mode {unknown}; there are {names}");
    }
    let wanted = |mode: &Mode| {
        only.is_empty() || *mode == Mode::Floor || only.iter().any(|it| it == mode.name())
    };
    Ok(Mode::ALL.into_iter().filter(wanted).collect())
}

/// Lays a rig out for each mode, and sets up its connections.
fn subjects(
    modes: &[Mode],
    traffic: &Traffic,
    cpu_time: &CpuTime,
    addresses: Addresses,
) -> Result<Vec<Subject>> {
    let mut subjects = Vec::new();
    for &mode in modes {
        if mode == Mode::NftDnat && !has_nft() {
            say("skipped: nft-dnat, for want of nft (package nftables)");
            continue;
        }
        if mode == Mode::NftDnat
            && let Some(reason) = too_few_tracked(traffic.flows)?
        {
            say(&format!("skipped: nft-dnat: {reason}"));
            continue;
        }
        say(&format!("setting up {mode}"));
        let set_up = || -> Result<Subject> {
            let mut subject = Subject::new(mode, addresses, traffic.flows, cpu_time.clone())?;
            subject.establish_all(*traffic)?;
            subject.all_established(traffic.flows)?;
            Ok(subject)
        };
        subjects.push(set_up().with_context(|| format!("cannot set up {mode}"))?);
    }
    Ok(subjects)
}

fn of_mode(subjects: &mut [Subject], mode: Mode) -> Result<&mut Subject> {
    subjects.iter_mut().find(|it| it.mode == mode).context("a mode without a rig")
}

/// Adds a sample to the series, or a flaw.
fn measure(
    subject: &mut Subject,
    traffic: &Traffic,
    series: &mut Series,
    time: Duration,
) -> Result<()> {
    let pace = subject.warm_up(traffic)?;
    let packets = time.as_nanos() / pace.as_nanos().max(1);
    let run = subject.pass(traffic, u32::try_from(packets)?)?;
    if let Some(flaw) = subject.flaw(&run) {
        say(&format!("{}, {} flows: {flaw}", series.mode, series.flows));
        series.flaw.get_or_insert(flaw);
        return Ok(());
    }
    series.samples.push(sample(&run));
    Ok(())
}

fn sample(run: &Run) -> Sample {
    let (seconds, cpu_seconds) = (run.took.wall.as_secs_f64(), run.took.cpu.as_secs_f64());
    let arrived = f64::from(u32::try_from(run.counts.right).unwrap_or(u32::MAX));
    Sample {
        sent: run.sent,
        arrived: run.counts.right,
        seconds,
        cpu_seconds,
        ns: cpu_seconds * 1e9 / arrived,
        wall_ns: seconds * 1e9 / arrived,
    }
}

/// Asks how long the mode's program runs for a packet.
fn ask_program(subject: &mut Subject, traffic: &Traffic, series: &mut Series) -> Result<()> {
    const PACKETS: u32 = 200_000;
    subject.warm_up(traffic)?;
    let before = subject.program_time()?;
    subject.pass(traffic, PACKETS)?;
    if let (Some(before), Some(after)) = (before, subject.program_time()?) {
        let runs = u32::try_from(after.1.saturating_sub(before.1))?;
        let time = after.0.saturating_sub(before.0);
        series.program_ns = (runs > 0).then(|| time.as_secs_f64() * 1e9 / f64::from(runs));
    }
    Ok(())
}
