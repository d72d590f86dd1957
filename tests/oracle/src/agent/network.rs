//! One scenario in the guest: its network, its steps, its tables.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use ipvs_conformance::case::{Action, Case, ExpectedFrame, Frame, Output, StepResult, Volatile};
use ipvs_conformance::replay::{AT_END, LATER, TABLES};
use ipvs_conformance::subject::BEFORE;
use ipvs_lab::Namespace;
use nix::sched::sched_yield;

use super::commands;
use super::layout::Layout;
use super::tap::{Seen, Tap};
use crate::job::{Pace, Transcript};

/// Frames that are sent before what came of them is looked at.
const AHEAD: usize = 48;

/// Two ticks of the slowest guest, and some more.
const TICKS: Duration = Duration::from_millis(25);

/// How late a step may be whose time is virtual: what comes of it is then what comes of it at
/// its time.
const LATE: Duration = Duration::from_millis(200);

/// A scenario that was played, with its network, where its statistics are
/// summed up meanwhile.
#[derive(Debug)]
pub(crate) struct Played {
    layout: Layout,
    transcript: Transcript,
}

/// A scenario while it is played.
struct Stage<'a> {
    layout: &'a Layout,
    tap: Tap,
    pace: Pace,
    start: Instant,
    /// Steps whose frame is under way.
    sent: Vec<usize>,
    times: Vec<f64>,
    steps: Vec<StepResult>,
}

impl Played {
    /// Plays `case` in a network of its own.
    ///
    /// `home` is the namespace of this thread.
    pub(crate) fn play(case: &Case, pace: Pace, home: &Namespace) -> Result<Self> {
        let begin = Instant::now();
        let layout = Layout::build(home);
        home.enter()?;
        let layout = layout?;
        let tap = Tap::open(&layout)?;
        layout.director.enter()?;
        let transcript = Self::steps(case, pace, begin, &layout, tap);
        home.enter()?;
        Ok(Self { transcript: transcript?, layout })
    }

    /// `begin` is when the director began to be.
    fn steps(
        case: &Case,
        pace: Pace,
        begin: Instant,
        layout: &Layout,
        tap: Tap,
    ) -> Result<Transcript> {
        let setup = case.setup.iter().map(|line| commands::run(line, &layout.director));
        let setup = setup.collect::<Result<Vec<Output>>>()?;
        if pace == Pace::Timed {
            std::thread::sleep(BEFORE.saturating_sub(begin.elapsed()));
        }
        tap.take(&mut Vec::new())?;
        let (start, times, steps) = (Instant::now(), Vec::new(), Vec::new());
        let mut stage = Stage { layout, tap, pace, start, sent: Vec::new(), times, steps };
        for step in &case.steps {
            stage.wait_until(step.at)?;
            stage.step(&step.action)?;
        }
        stage.wait_until(case.end)?;
        stage.gather()?;
        let end = stage.start.elapsed().as_secs_f64();
        let mut dumps = BTreeMap::new();
        let director = &layout.director;
        tables(&mut dumps, director, |_, later| later == AT_END)?;
        if pace == Pace::Timed {
            stage.wait_until(case.end + LATER)?;
            tables(&mut dumps, director, |_, later| later == LATER)?;
        }
        Ok(Transcript { setup, times: stage.times, steps: stage.steps, end, dumps })
    }

    /// What there is without statistics.
    pub(crate) fn unsummed(self) -> Transcript {
        self.transcript
    }

    /// Lists the tables that show statistics, and ends the network.
    pub(crate) fn finish(mut self, home: &Namespace) -> Result<Transcript> {
        self.layout.director.enter()?;
        let listed = tables(&mut self.transcript.dumps, &self.layout.director, |name, later| {
            // Time is real: these show another moment than that of the rest, and estimates
            // follow ticks whose beginning nobody knows.
            let shows_loads = matches!(name, "thresholds" | "persistent" | "proc_ip_vs");
            let shows_rates = matches!(name, "rate" | "proc_stats");
            later != AT_END && !shows_loads && !shows_rates
        });
        home.enter()?;
        listed.map(|()| self.transcript)
    }
}

/// Lists the tables that are wanted, by name and time.
fn tables(
    dumps: &mut BTreeMap<String, String>,
    director: &Namespace,
    wanted: impl Fn(&str, Duration) -> bool,
) -> Result<()> {
    for (name, line, later) in TABLES {
        // Nothing is synchronised.
        if name != "proc_conn_sync" && wanted(name, later) {
            let output = commands::run(line, director)?;
            dumps.insert(name.to_owned(), format!("{}{}", output.stdout, output.stderr));
        }
    }
    Ok(())
}

impl Stage<'_> {
    fn wait_until(&mut self, at: Duration) -> Result<()> {
        if self.pace == Pace::Timed {
            let now = self.start.elapsed();
            ensure!(now <= at + LATE, "{:?} late at {at:?}", now.saturating_sub(at));
            if at > now {
                std::thread::sleep(at.saturating_sub(now));
                self.gather()?;
            }
        }
        Ok(())
    }

    fn step(&mut self, action: &Action) -> Result<()> {
        if !matches!(action, Action::Frame(_)) {
            self.gather()?;
        }
        self.times.push(self.start.elapsed().as_secs_f64());
        let place = self.steps.len();
        let mut output = None;
        match action {
            Action::Frame(frame) => {
                self.tap.send(frame)?;
                self.sent.push(place);
            }
            Action::Command { line } => output = Some(commands::run(line, &self.layout.director)?),
            // Scenarios have it where the kernel ends something with its next tick.
            Action::Skip if self.pace != Pace::Timed => std::thread::sleep(TICKS),
            Action::Skip => {}
        }
        let volatile_lines = Volatile::default();
        self.steps.push(StepResult { frames: Vec::new(), output, volatile_lines });
        let ahead = if self.pace == Pace::Careful { 1 } else { AHEAD };
        if self.sent.len() >= ahead {
            if self.pace == Pace::Careful {
                // A kernel thread may have been left with the rest of the work.
                sched_yield()?;
            }
            self.gather()?;
        }
        Ok(())
    }

    /// Takes what came out, and puts it behind the steps that caused it.
    fn gather(&mut self) -> Result<()> {
        let mut seen = Vec::new();
        self.tap.take(&mut seen)?;
        let mut sent = std::mem::take(&mut self.sent).into_iter();
        // What comes unasked belongs to the step before.
        let mut place = sent.as_slice().first().map_or(self.steps.len(), |first| *first);
        place = place.saturating_sub(1);
        for event in seen {
            match event {
                Seen::In => place = sent.next().context("a frame that nobody sent")?,
                Seen::Out(frame) => self.came(place, frame),
            }
        }
        ensure!(sent.next().is_none(), "a frame was sent and not seen");
        Ok(())
    }

    fn came(&mut self, place: usize, frame: Frame) {
        if let Some(step) = self.steps.get_mut(place) {
            step.frames.push(ExpectedFrame { frame, volatile_bytes: Vec::new() });
        }
    }
}
