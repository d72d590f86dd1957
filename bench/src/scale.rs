//! `cargo xtask bench scale`: what two CPUs do together, held against one.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use ipvs_core::addr::Family;

use crate::machine::{cpus, on_one_cpu};
use crate::mode::{Hook, Method, Mode};
use crate::packet::{Addresses, Order, Phase, Traffic};
use crate::say;
use crate::sheet::Sheet;
use crate::subject::{Subject, Way};

/// Packets a second of two CPUs at once as a multiple of what one of them does alone.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How long each measurement takes, about
    #[arg(long, value_name = "N", default_value_t = 0.7)]
    seconds: f64,
    /// How many rounds; in each, everything is measured once
    #[arg(long, value_name = "N", default_value_t = 5)]
    rounds: u32,
    /// How many flows each CPU has of its own
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    flows: u32,
    /// Write all figures to this file, too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// One short round: does it all work?
    #[arg(long)]
    smoke: bool,
}

const MODES: [Mode; 3] =
    [Mode::Floor, Mode::Ipvs(Hook::Xdp, Method::Nat), Mode::Ipvs(Hook::Xdp, Method::Dr)];
const TIMES: &str = "times one CPU";
const RATE: &str = "million packets a second of CPU time";
/// How much of the longer run both have to run at the same time.
const TOGETHER: f64 = 0.8;
/// How often to try that, where others have the CPUs, too.
const ATTEMPTS: u32 = 5;

/// Who has which flows.
#[derive(Clone, Copy, Debug)]
enum Sharing {
    /// Each CPU its own.
    Apart,
    /// Both the same.
    Same,
    /// Both the same single one.
    One,
}

impl Sharing {
    const ALL: [Self; 3] = [Self::Apart, Self::Same, Self::One];

    const fn name(self) -> &'static str {
        match self {
            Self::Apart => "apart",
            Self::Same => "same",
            Self::One => "one",
        }
    }

    /// The flows of a CPU.
    const fn flows(self, number: u32, flows: u32) -> (u32, u32) {
        match self {
            Self::Apart => (number * flows, flows),
            Self::Same => (0, flows),
            Self::One => (0, 1),
        }
    }
}

/// Runs the bench, and writes the table to `out`.
pub(crate) fn run_task(options: &Options, out: &mut impl Write) -> Result<()> {
    measure(options)?.publish(out, options.json.as_deref())
}

/// Runs the bench.
pub(crate) fn measure(options: &Options) -> Result<Sheet> {
    let (rounds, seconds) =
        if options.smoke { (1, 0.02) } else { (options.rounds, options.seconds) };
    ensure!(rounds > 0 && seconds > 0.0 && seconds < 10.0, "nothing to be measured");
    ensure!((1..=500_000).contains(&options.flows), "1 to 500000 flows");
    let mut sheet = Sheet::new("scale", rounds);
    let allowed = cpus()?;
    let [.., other, one] = allowed[..] else {
        sheet.note("skipped: two CPUs against one, where there is one only");
        return Ok(sheet);
    };
    sheet.note(format!(
        "CPUs {one} and {other}, each with a generator of its own, both through the same interfaces \
         (of two queues); apart: {} flows each, same: the same {0}, one: a single flow",
        options.flows
    ));
    let all = options.flows * 2;
    let mut subjects = Vec::new();
    for mode in MODES {
        say(&format!("setting up {mode}"));
        let set_up = || -> Result<Subject> {
            on_one_cpu(|| {
                let mut subject = Subject::wide(mode, Addresses::of(Family::V4), all)?;
                subject.establish(all)?;
                subject.all_established(all)?;
                Ok(subject)
            })
        };
        subjects.push(set_up().with_context(|| format!("cannot set up {mode}"))?);
    }
    let time = Duration::from_secs_f64(seconds);
    for round in 1..=rounds {
        say(&format!("round {round} of {rounds}"));
        for sharing in Sharing::ALL {
            for subject in &mut subjects {
                let flows = |number| sharing.flows(number, options.flows);
                let name = format!("{}/{}", subject.mode, sharing.name());
                match compare(subject, [one, other], flows, time, !options.smoke)? {
                    Ok([alone, together]) => {
                        sheet.add(&name, TIMES, together / alone);
                        sheet.add(&format!("{name}/rate-of-one"), RATE, alone / 1e6);
                        sheet.add(&format!("{name}/rate-of-two"), RATE, together / 1e6);
                    }
                    Err(flaw) => sheet.refuse(&name, TIMES, flaw),
                }
            }
        }
    }
    Ok(sheet)
}

/// The rates of one CPU alone, and of both together; or why they may not be believed.
fn compare(
    subject: &mut Subject,
    cpus: [usize; 2],
    flows: impl Fn(u32) -> (u32, u32),
    time: Duration,
    strictly: bool,
) -> Result<Result<[f64; 2], String>> {
    let traffic = |number| {
        let (first, flows) = flows(number);
        Traffic { first, ..Traffic::new(Family::V4, Phase::Established, flows, Order::Random) }
    };
    let [one, other] = cpus;
    let both = [(one, traffic(0)), (other, traffic(1))];
    // To bring everything near, and to learn the pace.
    let warm = match at_once(subject, &both, 50_000)? {
        Ok(ran) => ran,
        Err(flaw) => return Ok(Err(flaw)),
    };
    let pace = warm.iter().map(|it| it.cpu).max().unwrap_or_default() / 50_000;
    let packets = u32::try_from(time.as_nanos() / pace.as_nanos().max(1))?.max(1000);
    let rate = |ran: &Ran| f64::from(packets) / ran.cpu.as_secs_f64();
    let mut attempts = 0;
    loop {
        let [alone, together] = [&both[..1], &both[..]].map(|who| at_once(subject, who, packets));
        let (alone, together) = match (alone?, together?) {
            (Ok(alone), Ok(together)) => (alone, together),
            (Err(flaw), _) | (_, Err(flaw)) => return Ok(Err(flaw)),
        };
        let share = share_together(&together);
        if !strictly || share >= TOGETHER {
            return Ok(Ok([alone.iter().map(rate).sum(), together.iter().map(rate).sum()]));
        }
        // Somebody else had one of the CPUs: that is no fault of ours, but no figure either.
        attempts += 1;
        if attempts == ATTEMPTS {
            let share = share * 100.0;
            return Ok(Err(format!("both CPUs were at it in {share:.0} % of the time only")));
        }
    }
}

/// In how much of the longest run all were running.
fn share_together(ran: &[Ran]) -> f64 {
    let begin = ran.iter().map(|it| it.begin).max();
    let end = ran.iter().map(|it| it.end).min();
    let longest = ran.iter().map(|it| it.end.duration_since(it.begin)).max();
    let overlap = end.zip(begin).map(|(end, begin)| end.saturating_duration_since(begin));
    overlap
        .zip(longest)
        .map_or(0.0, |(overlap, longest)| overlap.as_secs_f64() / longest.as_secs_f64())
}

/// What a CPU spent, and when.
#[derive(Clone, Copy, Debug)]
struct Ran {
    cpu: Duration,
    begin: Instant,
    end: Instant,
}

/// Sends from several CPUs at once, so many packets from each.
fn at_once(
    subject: &mut Subject,
    who: &[(usize, Traffic)],
    packets: u32,
) -> Result<Result<Vec<Ran>, String>> {
    let ways: Result<Vec<Way>> =
        who.iter().map(|(cpu, traffic)| subject.way(*cpu, traffic)).collect();
    let ways = ways?;
    let start = Barrier::new(ways.len());
    let (ran, flaw) =
        subject.watch(u64::from(packets) * u64::from(u32::try_from(who.len())?), || {
            thread::scope(|scope| -> Result<Vec<Ran>> {
                let start = &start;
                let send = |mut way: Way| {
                    scope.spawn(move || -> Result<Ran> {
                        let ready = way.ready();
                        // All wait for all, whatever happened.
                        start.wait();
                        ready?;
                        let begin = Instant::now();
                        let took = way.send(packets)?;
                        Ok(Ran { cpu: took.cpu, begin, end: Instant::now() })
                    })
                };
                let threads: Vec<_> = ways.into_iter().map(send).collect();
                let joined = threads
                    .into_iter()
                    .map(|it| it.join().map_err(|_panic| anyhow!("a generator panicked"))?);
                joined.collect()
            })
        })?;
    Ok(match flaw {
        Some(flaw) => Err(flaw),
        None => Ok(ran),
    })
}
