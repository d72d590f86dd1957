//! One run: scenarios, batch after batch, and what differs.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Mutex;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, ensure};
use ipvs_conformance::case::{Action, Case, Recorded};
use ipvs_conformance::compare::Difference;
use ipvs_conformance::plane::{Plane, run_case};
use ipvs_conformance::report::{Outcome, write_case};
use ipvs_conformance::subject::Trouble;

use crate::compare::recorded;
use crate::generate::{LONG, TOPICS, Topic, scenario};
use crate::guest::{self, Guest};
use crate::job::{Pace, Transcript};
use crate::known::{self, Known};
use crate::options::{Kind, Options};
use crate::save::save;
use crate::shrink::shrink;

/// How long a run is of which nothing else is said.
const MINUTES: u64 = 3;
/// Differences that are told whole; after them only their shapes are.
const TOLD: u64 = 20;
/// Unknown differences that are shrunk in one run.
const SHRUNK: u64 = 4;

/// What a run came to.
#[derive(Debug, Default)]
struct Tally {
    scenarios: u64,
    packets: usize,
    differences: u64,
    /// Scenarios that differed once and not again.
    unsteady: u64,
    skipped: u64,
    known: BTreeMap<String, u64>,
    unknown: Vec<String>,
}

/// A batch on its way to the guest or back.
#[derive(Debug)]
struct Batch {
    cases: Vec<Case>,
    pace: Pace,
    /// They differed when they were played before.
    again: bool,
}

/// Scenarios that differed and are played again at a time.
const SUSPECTS: usize = 16;

/// Runs; returns whether nothing differed that is not known.
pub(crate) fn run(options: &Options) -> Result<bool> {
    let mut out = io::stdout().lock();
    let long: &[Topic] = if options.guest == Kind::Qemu { LONG } else { &[] };
    let topics: Vec<&Topic> = TOPICS
        .iter()
        .chain(long)
        .filter(|it| options.only.is_empty() || options.only.iter().any(|name| name == it.name))
        .collect();
    for name in &options.only {
        ensure!(topics.iter().any(|it| it.name == name), "no topic is called {name}");
    }
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    let known = Known::load(&home.join("known.txt"), &home.join("../../PARITY.md"))?;
    if let Some(reason) = guest::is_missing(options.guest) {
        writeln!(out, "SKIPPED: the live oracle: {reason}")?;
        return Ok(true);
    }
    // The guest is a process beside the planes' namespaces.
    let begin = Instant::now();
    let guests: Vec<Guest> =
        (0..options.guests).map(|_| guest::start(options.guest)).collect::<Result<_>>()?;
    options.plane.prepare()?;
    let seed = options.seed.unwrap_or_else(|| {
        SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs() << 20)
    });
    let names: Vec<&str> = topics.iter().map(|it| it.name).collect();
    writeln!(out, "seed {seed}, plane {}, topics {}", options.plane.name(), names.join(" "))?;
    let mut session = Session {
        options,
        topics,
        known,
        pace: if options.guest == Kind::Uml { Pace::Fast } else { Pace::Timed },
        seed,
        begin,
        tally: Tally::default(),
        trouble: None,
        saved: 0,
        suspects: Vec::new(),
    };
    session.all(guests, &mut out)?;
    session.tell(&mut out)
}

struct Session<'a> {
    options: &'a Options,
    topics: Vec<&'a Topic>,
    known: Known,
    pace: Pace,
    seed: u64,
    begin: Instant,
    tally: Tally,
    trouble: Option<String>,
    saved: u64,
    /// Scenarios that differed once.
    suspects: Vec<Case>,
}

impl Session<'_> {
    /// Plays batches: while the guests play, we compare what they have played and
    /// make up the next.
    fn all(&mut self, guests: Vec<Guest>, out: &mut impl Write) -> Result<()> {
        let (to_guest, jobs) = mpsc::sync_channel::<Batch>(guests.len());
        let jobs = &Mutex::new(jobs);
        let (to_us, done) = mpsc::sync_channel(1);
        let patience = self.options.guest.patience();
        let mut guest = thread::scope(|scope| {
            let players: Vec<_> = guests
                .into_iter()
                .map(|guest| {
                    let to_us = to_us.clone();
                    scope.spawn(move || serve(guest, jobs, &to_us, patience))
                })
                .collect();
            let played = self.batches(&to_guest, &done, players.len() + 1, out);
            drop(to_guest);
            drop(done);
            let mut guests = players.into_iter().map(ScopedJoinHandle::join).collect::<Vec<_>>();
            played?;
            guests.pop().and_then(Result::ok).context("the guest's thread ended")
        })?;
        for name in std::mem::take(&mut self.tally.unknown) {
            self.small(&name, &mut guest, out)?;
        }
        Ok(())
    }

    fn batches(
        &mut self,
        to_guest: &SyncSender<Batch>,
        done: &Receiver<Result<(Batch, Vec<Transcript>)>>,
        at_once: usize,
        out: &mut impl Write,
    ) -> Result<()> {
        let mut made = 0;
        let mut under_way = 0;
        loop {
            while under_way < at_once {
                let more = self.goes_on(made);
                let few = if more { SUSPECTS } else { 1 };
                let batch = if self.suspects.len() >= few {
                    let pace = if self.pace == Pace::Fast { Pace::Careful } else { self.pace };
                    Batch { cases: std::mem::take(&mut self.suspects), pace, again: true }
                } else if more {
                    Batch { cases: self.batch(&mut made), pace: self.pace, again: false }
                } else {
                    break;
                };
                if to_guest.send(batch).is_err() {
                    break;
                }
                under_way += 1;
            }
            if under_way == 0 {
                return Ok(());
            }
            let (batch, transcripts) = done.recv().context("the guest's thread ended")??;
            under_way -= 1;
            for (case, transcript) in batch.cases.iter().zip(transcripts) {
                let recorded = recorded(case, transcript, batch.pace);
                if batch.again {
                    self.held_again(case, &recorded, out)?;
                } else {
                    self.held(case, &recorded);
                }
            }
        }
    }

    fn goes_on(&self, made: u64) -> bool {
        let Options { minutes, scenarios, .. } = self.options;
        let limit = minutes.or_else(|| scenarios.is_none().then_some(MINUTES));
        let limit = limit.map(Duration::from_mins);
        self.options.scenarios.is_none_or(|wanted| made < wanted)
            && limit.is_none_or(|limit| self.begin.elapsed() < limit)
    }

    fn batch(&mut self, made: &mut u64) -> Vec<Case> {
        let left = self.options.scenarios.map_or(u64::MAX, |wanted| wanted - *made);
        let count = (self.options.batch as u64).min(left);
        let mut cases = Vec::new();
        for seed in (self.seed + *made..).take(usize::try_from(count).unwrap_or(1)) {
            match self.scenario(seed) {
                Ok(case) => cases.push(case),
                Err(trouble) => {
                    self.tally.skipped += 1;
                    self.trouble = Some(format!("{seed}: {trouble}"));
                }
            }
        }
        *made += count;
        cases
    }

    fn scenario(&self, seed: u64) -> Result<Case, Trouble> {
        let longer = usize::from(self.options.longer);
        scenario(seed, &self.topics, self.pace == Pace::Timed, longer)
    }

    /// Compares one scenario with what the kernel did.
    fn held(&mut self, case: &Case, recorded: &Recorded) {
        match run_case(recorded, self.options.plane) {
            Outcome::Skipped(reason) => {
                self.tally.skipped += 1;
                self.trouble = Some(format!("{}: {reason}", case.name));
                return;
            }
            Outcome::Failed(_) => self.suspects.push(case.clone()),
            Outcome::Passed => {}
        }
        self.tally.scenarios += 1;
        self.tally.packets += frames(case);
    }

    /// Compares one that differed before. If it does not any more, it was a
    /// matter of the kernel's ticks: what a guest that is short of time puts
    /// off comes behind the next packet.
    fn held_again(&mut self, case: &Case, recorded: &Recorded, out: &mut impl Write) -> Result<()> {
        let outcome = run_case(recorded, self.options.plane);
        let Outcome::Failed(differences) = &outcome else {
            self.tally.unsteady += 1;
            return Ok(());
        };
        self.tally.differences += 1;
        let topic = topic(case);
        if let Some(reason) = self.known.reason(topic, differences) {
            *self.tally.known.entry(reason.to_owned()).or_default() += 1;
            return Ok(());
        }
        self.tally.unknown.push(case.name.clone());
        if let Some(folder) = &self.options.save {
            save(folder, recorded)?;
        }
        if self.tally.unknown.len() as u64 <= TOLD {
            write_case(&mut *out, &case.name, &case.title, &outcome, false)?;
        } else {
            let shapes = differences.first().map(|it| known::shapes(topic, it));
            writeln!(out, "FAIL  {}: {}", case.name, shapes.unwrap_or_default().join("; "))?;
        }
        out.flush()?;
        Ok(())
    }

    /// Plays a scenario that differed twice once more, with nothing beside it: if it
    /// differs still, makes it small, and saves it.
    fn small(&mut self, name: &str, guest: &mut Guest, out: &mut impl Write) -> Result<()> {
        let seed = name.rsplit('-').next().and_then(|it| it.parse().ok()).context("no seed")?;
        let Ok(case) = self.scenario(seed) else {
            return Ok(());
        };
        let pace = if self.pace == Pace::Fast { Pace::Careful } else { self.pace };
        let patience = self.options.guest.patience();
        let plane = self.options.plane;
        let (case, differences) = {
            let found =
                again(guest, plane, pace, true, patience, std::slice::from_ref(&case))?.pop();
            match found {
                Some((_, differences)) if !differences.is_empty() => (case, differences),
                _ => {
                    writeln!(out, "{name} agreed when played alone: not counted")?;
                    self.tally.differences -= 1;
                    self.tally.unsteady += 1;
                    return Ok(());
                }
            }
        };
        if self.saved >= SHRUNK {
            return Ok(());
        }
        let wanted = differences.first().map(known::place);
        let sums = wanted.as_ref().is_some_and(|it| it.contains("--stats"));
        let mut cut = case.clone();
        cut.steps.truncate(last_step(&differences).map_or(usize::MAX, |it| it + 1));
        let differs = |cases: &[Case]| -> Result<Vec<bool>> {
            let found = again(guest, plane, pace, sums, patience, cases)?;
            let first = |it: &Vec<Difference>| it.first().map(known::place);
            Ok(found.iter().map(|(_, it)| !it.is_empty() && first(it) == wanted).collect())
        };
        let small = shrink(&cut, differs)?;
        if let Some((recorded, differences)) =
            again(guest, plane, pace, true, patience, std::slice::from_ref(&small))?.pop()
        {
            self.saved += 1;
            let outcome = Outcome::Failed(differences);
            writeln!(out, "small: {} commands and steps", small.setup.len() + small.steps.len())?;
            for line in &small.setup {
                writeln!(out, "      {line}")?;
            }
            write_case(&mut *out, &small.name, &small.title, &outcome, false)?;
            if let Some(folder) = &self.options.save {
                save(folder, &recorded)?;
            }
        }
        Ok(())
    }

    fn tell(&self, out: &mut impl Write) -> Result<bool> {
        for (reason, count) in &self.tally.known {
            writeln!(out, "known, {count} times: {reason}")?;
        }
        if let Some(trouble) = &self.trouble {
            writeln!(out, "{} scenarios not played; the last: {trouble}", self.tally.skipped)?;
        }
        if self.tally.unsteady > 0 {
            writeln!(out, "{} differed, and not when played again", self.tally.unsteady)?;
        }
        let known: u64 = self.tally.known.values().sum();
        let Tally { scenarios, packets, differences, .. } = self.tally;
        writeln!(out, "{scenarios} scenarios, {packets} packets, {differences} differences")?;
        Ok(known == differences)
    }
}

/// Plays what comes, until nothing does.
fn serve(
    mut guest: Guest,
    jobs: &Mutex<Receiver<Batch>>,
    done: &SyncSender<Result<(Batch, Vec<Transcript>)>>,
    patience: Duration,
) -> Guest {
    let next = || jobs.lock().ok()?.recv().ok();
    while let Some(batch) = next() {
        let played = guest.play(&batch.cases, batch.pace, true, patience).map(|it| (batch, it));
        if done.send(played).is_err() {
            break;
        }
    }
    guest
}

/// Plays cases and compares them at once.
fn again(
    guest: &mut Guest,
    plane: Plane,
    pace: Pace,
    sums: bool,
    patience: Duration,
    cases: &[Case],
) -> Result<Vec<(Recorded, Vec<Difference>)>> {
    let transcripts = guest.play(cases, pace, sums, patience)?;
    let held = cases.iter().zip(transcripts).map(|(case, transcript)| {
        let recorded = recorded(case, transcript, pace);
        let differences = match run_case(&recorded, plane) {
            Outcome::Failed(differences) => differences,
            Outcome::Passed | Outcome::Skipped(_) => Vec::new(),
        };
        (recorded, differences)
    });
    Ok(held.collect())
}

/// The step of the first difference, if that is one of a step.
fn last_step(differences: &[Difference]) -> Option<usize> {
    let words = differences.first()?.place.strip_prefix("step ")?;
    words.split(' ').next()?.parse().ok()
}

fn frames(case: &Case) -> usize {
    case.steps.iter().filter(|it| matches!(it.action, Action::Frame(_))).count()
}

fn topic(case: &Case) -> &str {
    case.tags.last().map_or("", String::as_str)
}
