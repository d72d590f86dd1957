//! A data plane at work: its interfaces in network namespaces, frames on real
//! wires, and its clock moved instead of waited for.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use ipvs_core::snapshot::Control;
use ipvs_lab::Namespace;

use crate::case::{Frame, Output};
use crate::compare::made_by_host;
use crate::host::Host;
use crate::layout::Layout;
use crate::marks::{self, Meant};
use crate::room::Room;
use crate::shell;
use crate::subject::{self, Handled, Subject, Trouble};
use crate::wire::Wire;

/// A data plane as the replay drives it.
pub trait Driven {
    /// Its control side.
    fn control(&mut self) -> &mut dyn Control;

    /// Sets its clock on by `by`, and does what has become due.
    fn pass_time(&mut self, by: Duration);

    /// How long it is, on its clock, until it makes its statistics next.
    fn until_look(&mut self) -> Duration;

    /// Hears that routes or interfaces of the host have changed.
    fn host_changed(&mut self);

    /// Returns when every frame that reached the plane is done with. What is
    /// handled inside the kernel needs no more than the kernel's own order.
    fn settle(&mut self) {}

    /// Whether it asks and answers for neighbours itself, and announces
    /// addresses. That is its own business, and not compared.
    fn resolves(&self) -> bool {
        false
    }

    /// Whether packets have passed the host's firewall before the plane has them,
    /// with the marks that it gives. If not, rules of our own give them.
    fn has_marks(&self) -> bool {
        false
    }

    /// Why frames were passed to the host since the last call, if some were and
    /// the host lacks what it had in the recordings, so that it cannot answer.
    fn passed(&mut self) -> Option<String> {
        None
    }
}

/// A plane in the network of the recordings.
///
/// The thread that makes one is in the director's namespace while it lives.
pub struct NamespaceSubject {
    // Dropped before the network that it works on.
    driven: Box<dyn Driven>,
    wire: Wire,
    layout: Layout,
    #[expect(dead_code, reason = "ends when it is dropped")]
    visit: Visit,
    elapsed: Duration,
    /// When its clock began to run, and how far it was set on since.
    started: Instant,
    set_on: Duration,
    /// Where lines run that need our programs in a shell, from the first of them on.
    room: Option<Room>,
}

impl std::fmt::Debug for NamespaceSubject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NamespaceSubject").field("elapsed", &self.elapsed).finish_non_exhaustive()
    }
}

impl NamespaceSubject {
    /// Lays the network out and starts a plane in it.
    pub fn new(
        host: &Host,
        start: impl FnOnce() -> Result<Box<dyn Driven>, Trouble>,
    ) -> Result<Self, Trouble> {
        if !ipvs_lab::can_make_namespaces() {
            return Err(Trouble::Unsupported("no right to make network namespaces".into()));
        }
        let layout = Layout::build(host)?;
        let wire = Wire::open(&layout, host)?;
        let visit = Visit::to(&layout.director)?;
        let mut driven = start()?;
        // Starting it takes its time, on a busy machine more than a recorded director's life.
        let mut until_look = driven.until_look();
        if until_look < subject::FIRST_LOOK {
            driven.pass_time(until_look);
            until_look = driven.until_look();
        }
        driven.pass_time(until_look.saturating_sub(subject::FIRST_LOOK));
        let started = Instant::now();
        let mut subject = Self {
            driven,
            wire,
            layout,
            visit,
            elapsed: Duration::ZERO,
            started,
            set_on: Duration::ZERO,
            room: None,
        };
        subject.settle()?;
        Ok(subject)
    }

    /// Waits until all that was sent is done with; returns what came out.
    fn settle(&mut self) -> Result<Vec<Frame>> {
        // What the kernel has not handed over, the plane cannot have done;
        // what the plane sends, the kernel may have to carry on.
        let mut frames = self.wire.settle()?;
        self.driven.settle();
        frames.extend(self.wire.settle()?);
        if self.driven.resolves() {
            frames.retain(|frame| !made_by_host::resolves(frame));
        }
        Ok(frames)
    }

    fn on_host(&self, line: &str) -> Result<Output> {
        let mut command = self.layout.director.command("sh")?;
        command.args(["-c", line]).stdin(Stdio::null());
        let output = command.output().context("cannot start sh")?;
        let text = |octets: Vec<u8>| String::from_utf8_lossy(&octets).into_owned();
        Ok(Output {
            rc: output.status.code().unwrap_or(-1),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        })
    }
}

/// The stay of a thread in another network namespace than its own.
struct Visit {
    home: Namespace,
}

impl Visit {
    fn to(namespace: &Namespace) -> Result<Self> {
        let home = Namespace::current("home")?;
        namespace.enter()?;
        Ok(Self { home })
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        // A thread that cannot go home stays where it is, with nothing left to do there.
        drop(self.home.enter());
    }
}

impl Subject for NamespaceSubject {
    fn command(&mut self, line: &str) -> Result<Output, Trouble> {
        if let Some(output) = shell::plain(line, self.driven.control()) {
            return Ok(output);
        }
        if !self.driven.has_marks() {
            let words = shell::words(line);
            match words.as_deref().map_or(Meant::Other, marks::meant) {
                Meant::Other => {}
                Meant::Unknown => return Err(marks::unknown(line)),
                Meant::Nothing => return Ok(Output::default()),
                Meant::Edits(edits) => return Ok(marks::apply(self.driven.control(), &edits)?),
            }
        }
        let output = if shell::is_ours(line) {
            let room = match &mut self.room {
                Some(room) => room,
                none => none.insert(Room::open()?),
            };
            let command = self.layout.director.command("sh").map_err(anyhow::Error::from)?;
            room.run(line, command, self.driven.control())?
        } else {
            self.on_host(line)?
        };
        if output.rc == 127 {
            return Err(Trouble::Unsupported(format!("`{line}`: no such program here")));
        }
        self.driven.host_changed();
        Ok(output)
    }

    fn inject(&mut self, frame: &Frame) -> Result<Handled, Trouble> {
        // What was passed before is of no interest.
        self.driven.passed();
        self.wire.send(frame)?;
        let mut frames = self.settle()?;
        let mut passed = self.driven.passed();
        let refuses = |it: &Frame| made_by_host::refuses_sctp(it, frame);
        if frames.iter().any(refuses) {
            frames.retain(|it| !refuses(it));
            passed = Some("the host has no SCTP".to_owned());
        }
        Ok(Handled { frames, passed })
    }

    fn advance(&mut self, to: Duration) -> Result<Vec<Frame>, Trouble> {
        if to <= self.elapsed {
            return Ok(Vec::new());
        }
        while self.elapsed < to {
            self.elapsed = subject::next_tick(self.elapsed).min(to);
            // Its clock runs while we work: it is set on by what it lacks.
            let shown = self.started.elapsed() + self.set_on;
            let lacking = self.elapsed.saturating_sub(shown);
            self.set_on += lacking;
            self.driven.pass_time(lacking);
        }
        Ok(self.settle()?)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use ipvs_lab::testing::isolated;

    use super::*;
    use crate::case::Recorded;
    use crate::core_subject::CoreSubject;
    use crate::replay::replay;

    /// Takes commands and sees no packet.
    struct Blind(CoreSubject);

    impl Driven for Blind {
        fn control(&mut self) -> &mut dyn Control {
            self.0.control()
        }

        fn pass_time(&mut self, _: Duration) {}

        fn until_look(&mut self) -> Duration {
            subject::FIRST_LOOK
        }

        fn host_changed(&mut self) {}
    }

    #[test]
    fn what_the_host_alone_does_is_what_it_did_in_the_recording() {
        let name =
            "namespace_subject::tests::what_the_host_alone_does_is_what_it_did_in_the_recording";
        isolated(name, || {
            let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases");
            let replayed = |case: &str| {
                let recorded = Recorded::load(&cases.join(case)).unwrap();
                let start = || -> Result<Box<dyn Driven>, Trouble> {
                    Ok(Box::new(Blind(CoreSubject::new()?)))
                };
                let mut subject = NamespaceSubject::new(&Host::std_1(), start).unwrap();
                replay(&recorded, &mut subject).unwrap()
            };
            // Echo requests are for the host alone.
            assert_eq!(replayed("icmp-echo"), []);
            // Connections are not, and a plane that sees no packet is found out.
            assert!(!replayed("tcp-nat-life").is_empty());
        });
    }
}
