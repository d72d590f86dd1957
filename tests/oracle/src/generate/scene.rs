//! A scenario that is being made up.

use std::net::SocketAddr;
use std::time::Duration;

use ipvs_conformance::case::{Action, Case, Frame, Output, Step};
use ipvs_conformance::core_subject::CoreSubject;
use ipvs_conformance::replay::LATER;
use ipvs_conformance::subject::{Subject as _, Trouble};

use super::Topic;
use super::edges::Edges;
use super::flow::Flow;
use super::service::Service;
use crate::rng::Rng;

/// The time from one frame to the next, where time goes by: the kernel may leave what comes of
/// one to a thread of its own.
const NEXT: Duration = Duration::from_millis(8);
/// The time before other steps: more than two ticks of the slowest guest.
const STEP: Duration = Duration::from_millis(25);
/// How often the end is put off at most. What is not known then will be found to be unsteady.
const FINISHES: usize = 200;
/// The longest time after which connections are looked at.
const STRIDE: Duration = Duration::from_secs(25);
/// The time in which counters are summed up.
const SUMMED: Duration = Duration::from_millis(2500);

/// The scenario so far, and the world as it has become.
#[derive(Debug)]
pub(crate) struct Scene {
    /// What decides.
    pub(crate) rng: Rng,
    /// The virtual services that were added and not deleted.
    pub(crate) services: Vec<Service>,
    /// Those that were deleted.
    pub(crate) gone: Vec<Service>,
    /// The connections that clients have begun.
    pub(crate) flows: Vec<Flow>,
    /// Ports that clients have used.
    pub(crate) ports: u16,
    /// Whether what begins a connection may come where there is one.
    pub(crate) reuses: bool,
    /// Packets with few hops left, of a hundred.
    pub(crate) tired: usize,
    /// Whether time goes by.
    pub(crate) timed: bool,
    /// How many times as many packets as usual come.
    pub(crate) longer: usize,
    subject: CoreSubject,
    edges: Edges,
    setup: Vec<String>,
    steps: Vec<Step>,
    now: Duration,
}

impl Scene {
    /// Nothing has happened yet.
    pub(crate) fn new(rng: Rng, timed: bool) -> Result<Self, Trouble> {
        Ok(Self {
            rng,
            reuses: false,
            tired: 0,
            timed,
            longer: 1,
            services: Vec::new(),
            gone: Vec::new(),
            flows: Vec::new(),
            ports: 0,
            subject: CoreSubject::new()?,
            edges: Edges::default(),
            setup: Vec::new(),
            steps: Vec::new(),
            now: Duration::ZERO,
        })
    }

    /// A command before the first step.
    pub(crate) fn setup(&mut self, line: String) -> Result<Output, Trouble> {
        let output = self.subject.command(&line)?;
        self.setup.push(line);
        Ok(output)
    }

    /// A command.
    pub(crate) fn command(&mut self, line: String) -> Result<Output, Trouble> {
        // What counters show is the last sum, and so is what a zeroing takes for zero.
        let sums = ["ipvsadm -Z", "ipvsadm -a", "ipvsadm -A"].iter().any(|it| line.starts_with(it));
        self.go_on(if sums { SUMMED } else { STEP })?;
        let output = self.subject.command(&line)?;
        self.steps.push(Step { at: self.now, action: Action::Command { line } });
        Ok(output)
    }

    /// A frame comes in; returns what our core sends because of it.
    pub(crate) fn send(&mut self, frame: Frame) -> Result<Vec<Frame>, Trouble> {
        self.go_on(NEXT)?;
        let handled = self.subject.inject(&frame)?;
        self.steps.push(Step { at: self.now, action: Action::Frame(frame) });
        Ok(handled.frames)
    }

    /// The kernel is given the time to end what it ends with its next tick: a
    /// connection that makes way for another is counted until then.
    pub(crate) fn pause(&mut self) -> Result<(), Trouble> {
        self.go_on(STEP)?;
        self.steps.push(Step { at: self.now, action: Action::Skip });
        Ok(())
    }

    /// Where time goes by, it does before the next step; so much, or more if a connection
    /// may end then.
    fn go_on(&mut self, by: Duration) -> Result<(), Trouble> {
        if self.timed { self.wait(by) } else { Ok(()) }
    }

    /// Whether the kernel's table and ours show the same times to the ends of connections.
    pub(crate) fn shows_times(&self) -> bool {
        self.edges.unknown_until().is_none()
    }

    /// What lblc and lblcr remember is looked at, which they forget after such a time.
    pub(crate) const fn forgets(&mut self, after: Option<Duration>) {
        self.edges.forgets = after;
    }

    /// A destination is taken away.
    pub(crate) fn deleted(&mut self, server: SocketAddr) {
        self.edges.deleted(server, self.now);
    }

    /// Whether a destination may be added, since it is known whether it is in the trash.
    pub(crate) fn may_add(&self, server: SocketAddr) -> bool {
        !self.timed || self.edges.may_add(server, self.now)
    }

    /// Time goes by until the tables may be looked at, now and a while later.
    pub(crate) fn finish(&mut self) -> Result<(), Trouble> {
        if !self.timed {
            return Ok(());
        }
        self.wait(STEP)?;
        for _ in 0..FINISHES {
            let later = self.now + LATER;
            let clear = self.edges.clear_of(later);
            let shown = self.edges.unknown_until().unwrap_or_default();
            if clear == later && shown.is_zero() {
                break;
            }
            self.wait(clear.saturating_sub(later).max(shown.saturating_sub(self.now)).max(STEP))?;
        }
        Ok(())
    }

    /// Time goes by: so much, or more if a connection may end then.
    pub(crate) fn wait(&mut self, by: Duration) -> Result<(), Trouble> {
        let mut to = self.now + by;
        loop {
            self.edges.look(self.now, self.subject.control());
            to = self.edges.clear_of(to);
            if to <= self.now {
                return Ok(());
            }
            // A connection on which others hang gets another minute each time that it ends:
            // each is to be seen.
            self.now = to.min(self.now + STRIDE);
            self.subject.advance(self.now)?;
        }
    }

    /// The scenario, at its end.
    pub(crate) fn into_case(self, name: &str, topic: &Topic) -> Case {
        Case {
            name: name.to_owned(),
            title: topic.about.to_owned(),
            tags: vec!["oracle".to_owned(), topic.name.to_owned()],
            topology: "std-1".to_owned(),
            setup: self.setup,
            steps: self.steps,
            end: self.now,
        }
    }
}
