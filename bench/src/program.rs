//! `cargo xtask bench program`: nanoseconds of the plane's program alone.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ipvs_core::addr::Family;

use crate::machine::{CpuTime, go_before_others, take_one_cpu};
use crate::mode::{Hook, Method, Mode};
use crate::packet::{Addresses, Order, Phase, Traffic};
use crate::say;
use crate::sheet::Sheet;
use crate::subject::Subject;

/// Nanoseconds that the plane's program takes for a packet of a known connection, next to a
/// program that does nothing.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How long each measurement takes, about
    #[arg(long, value_name = "N", default_value_t = 0.3)]
    seconds: f64,
    /// How many rounds; in each, everything is measured once
    #[arg(long, value_name = "N", default_value_t = 5)]
    rounds: u32,
    /// How many flows; with a million, the tables of all cases take a few GiB together
    #[arg(long, value_name = "N,…", value_delimiter = ',',
        default_values_t = [1, 10_000, 100_000, 1_000_000])]
    flows: Vec<u32>,
    /// Only these: xdp-nat/v4, tc-dr/v6, …
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    only: Vec<String>,
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

/// A program with its packets.
#[derive(Clone, Copy, Debug)]
struct Case {
    hook: Hook,
    method: Method,
    family: Family,
}

impl Case {
    fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for hook in [Hook::Xdp, Hook::Tc] {
            for method in [Method::Nat, Method::Dr, Method::Ipip] {
                // What a TC program puts in front of a packet structure cannot be taken off again
                // so that the next run finds it as new.
                if (hook, method) == (Hook::Tc, Method::Ipip) {
                    continue;
                }
                for family in [Family::V4, Family::V6] {
                    all.push(Self { hook, method, family });
                }
            }
        }
        all
    }

    const fn mode(self) -> Mode {
        Mode::Ipvs(self.hook, self.method)
    }

    fn name(self) -> String {
        format!("{}/v{}", self.mode(), self.family.tag())
    }

    /// Of a frame without padding: what was put in front is to be all that is longer.
    fn traffic(self, flows: u32) -> Traffic {
        let traffic = Traffic::new(self.family, Phase::Established, flows, Order::Random);
        Traffic { length: traffic.unpadded(self.family), ..traffic }
    }
}

const NS: &str = "ns";

/// Runs the bench, and writes the table to `out`.
pub(crate) fn run_task(options: &Options, out: &mut impl Write) -> Result<()> {
    measure(options)?.publish(out, options.json.as_deref())
}

/// Runs the bench.
pub(crate) fn measure(options: &Options) -> Result<Sheet> {
    let (rounds, seconds) =
        if options.smoke { (1, 0.01) } else { (options.rounds, options.seconds) };
    ensure!(rounds > 0 && seconds > 0.0 && seconds < 10.0, "nothing to be measured");
    let flows: &[u32] = if options.smoke { &[1, 1000] } else { &options.flows };
    ensure!(flows.iter().all(|it| (1..=10_000_000).contains(it)), "1 to 10000000 flows");
    let most = flows.iter().copied().max().context("no flows")?;
    let names: Vec<String> = Case::all().into_iter().map(Case::name).collect();
    if let Some(unknown) = options.only.iter().find(|it| !names.contains(it)) {
        anyhow::bail!("nothing is called {unknown}; there are {}", names.join(", "));
    }
    let cpu = take_one_cpu(options.cpu)?;
    go_before_others();
    let mut sheet = Sheet::new("program", rounds);
    sheet.note(format!(
        "BPF_PROG_TEST_RUN on CPU {cpu}; a program of ours writes all headers anew and goes on by a \
         tail call, to the plane's program or to one that does nothing; what is told is the \
         difference, of packets of known connections"
    ));
    let is_wanted = |case: &Case| options.only.is_empty() || options.only.contains(&case.name());
    let mut subjects = Vec::new();
    for case in Case::all().into_iter().filter(is_wanted) {
        say(&format!("setting up {}", case.name()));
        let addresses = Addresses::of(case.family);
        let set_up = || -> Result<Subject> {
            let mut subject = Subject::new(case.mode(), addresses, most, CpuTime::of(cpu))?;
            subject.establish(most)?;
            subject.all_established(most)?;
            Ok(subject)
        };
        subjects.push((case, set_up().with_context(|| case.name())?));
    }
    for round in 1..=rounds {
        say(&format!("round {round} of {rounds}"));
        for &flows in flows {
            for (case, subject) in &mut subjects {
                let time = Duration::from_secs_f64(seconds);
                one(*case, subject, flows, time, &mut sheet).with_context(|| case.name())?;
            }
        }
    }
    Ok(sheet)
}

fn one(
    case: Case,
    subject: &mut Subject,
    flows: u32,
    time: Duration,
    sheet: &mut Sheet,
) -> Result<()> {
    const WARM_UP: u32 = 20_000;
    let name = format!("{}/{flows}", case.name());
    let traffic = case.traffic(flows);
    let in_order = Traffic { order: Order::Sequence, ..traffic };
    let warm = subject.run_alone(case.hook, &in_order, flows.max(WARM_UP), false)?;
    let pace = match &warm {
        Ok(took) => took.cpu / flows.max(WARM_UP),
        Err(flaw) => {
            sheet.refuse(&name, NS, flaw);
            return Ok(());
        }
    };
    let runs = u32::try_from(time.as_nanos() / pace.as_nanos().max(1))?.max(1000);
    let per_run = |spent: Duration| spent.as_secs_f64() * 1e9 / f64::from(runs);
    let nothing = subject.run_alone(case.hook, &traffic, runs, true)?;
    match (subject.run_alone(case.hook, &traffic, runs, false)?, nothing) {
        (Ok(took), Ok(nothing)) => {
            sheet.add(&name, NS, per_run(took.cpu) - per_run(nothing.cpu));
        }
        (Err(flaw), _) | (_, Err(flaw)) => sheet.refuse(&name, NS, flaw),
    }
    Ok(())
}
