//! A scenario that is being made up.

use std::time::Duration;

use ipvs_conformance::case::{Action, Case, Frame, Output, Step};
use ipvs_conformance::core_subject::CoreSubject;
use ipvs_conformance::subject::{Subject as _, Trouble};

use super::Topic;
use super::flow::Flow;
use super::service::Service;
use crate::rng::Rng;

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
    subject: CoreSubject,
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
            services: Vec::new(),
            gone: Vec::new(),
            flows: Vec::new(),
            ports: 0,
            subject: CoreSubject::new()?,
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
        let output = self.subject.command(&line)?;
        self.steps.push(Step { at: self.now, action: Action::Command { line } });
        Ok(output)
    }

    /// A frame comes in; returns what our core sends because of it.
    pub(crate) fn send(&mut self, frame: Frame) -> Result<Vec<Frame>, Trouble> {
        let handled = self.subject.inject(&frame)?;
        self.steps.push(Step { at: self.now, action: Action::Frame(frame) });
        Ok(handled.frames)
    }

    /// The kernel is given the time to end what it ends with its next tick: a
    /// connection that makes way for another is counted until then.
    pub(crate) fn pause(&mut self) {
        self.steps.push(Step { at: self.now, action: Action::Skip });
    }

    /// Time goes by.
    pub(crate) fn wait(&mut self, by: Duration) -> Result<(), Trouble> {
        self.now += by;
        self.subject.advance(self.now)?;
        Ok(())
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
