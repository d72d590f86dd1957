//! Drives one case through a subject and gathers what differs.

use std::time::Duration;

use crate::case::{Action, Expected, ExpectedFrame, Frame, Output, Recorded, StepResult, Volatile};
use crate::compare::{Difference, frames, made_by_host, text};
use crate::subject::{Handled, Subject, Trouble};

/// The tables that are compared at the end, each with the command that shows
/// it: first those at the end itself, then those 5 s later.
pub const TABLES: [(&str, &str, Duration); 14] = [
    ("conn", "ipvsadm -Lnc", AT_END),
    ("conn_persistent", "ipvsadm -Lnc --persistent-conn", AT_END),
    ("list", "ipvsadm -Ln", AT_END),
    ("proc_conn", "cat /proc/net/ip_vs_conn", AT_END),
    ("stats", "ipvsadm -Ln --stats --exact", LATER),
    ("stats_noexact", "ipvsadm -Ln --stats", LATER),
    ("thresholds", "ipvsadm -Ln --thresholds", LATER),
    ("persistent", "ipvsadm -Ln --persistent-conn", LATER),
    ("save", "ipvsadm -Sn", LATER),
    ("timeout", "ipvsadm -L --timeout", LATER),
    ("proc_ip_vs", "cat /proc/net/ip_vs", LATER),
    ("proc_conn_sync", "cat /proc/net/ip_vs_conn_sync", LATER),
    ("proc_stats", "cat /proc/net/ip_vs_stats", LATER),
    ("rate", "ipvsadm -Ln --rate", LATER),
];
/// The time of tables that show the present.
pub const AT_END: Duration = Duration::ZERO;
/// The time of tables that show what the kernel sums up now and then.
pub const LATER: Duration = Duration::from_secs(5);

/// Replays a case; returns what differs from the recording.
pub fn replay(recorded: &Recorded, subject: &mut dyn Subject) -> Result<Vec<Difference>, Trouble> {
    let (case, expected) = (&recorded.case, &recorded.expected);
    if case.topology != "std-1" {
        return Err(Trouble::Unsupported(format!("topology {}", case.topology)));
    }
    if let Some(reason) = expected.unstable.first() {
        return Err(Trouble::Unsupported(format!("the recordings differ: {reason}")));
    }
    let is_random = case.tags.iter().any(|tag| tag == "random");
    let mut replay = Replay { subject, is_random, differences: Vec::new() };
    for (line, wanted) in case.setup.iter().zip(&expected.setup) {
        let got = replay.subject.command(line)?;
        replay.command(format!("setup `{line}`"), line, wanted, &got, &Volatile::default());
    }
    if let Some(first) = case.steps.first() {
        replay.subject.advance(first.at)?;
    }
    replay.steps(recorded)?;
    replay.tables(case.end, expected)?;
    Ok(replay.differences)
}

struct Replay<'a> {
    subject: &'a mut dyn Subject,
    /// Whether the kernel drew lots, so that numbers are only about the same.
    is_random: bool,
    differences: Vec<Difference>,
}

impl Replay<'_> {
    fn differ(&mut self, place: String, lines: Vec<String>) {
        if !lines.is_empty() {
            self.differences.push(Difference { place, lines });
        }
    }

    fn steps(&mut self, recorded: &Recorded) -> Result<(), Trouble> {
        let case = &recorded.case;
        for (number, (step, expected)) in
            case.steps.iter().zip(&recorded.expected.steps).enumerate()
        {
            let until = case.steps.get(number + 1).map_or(case.end, |next| next.at);
            let place = format!("step {number} at {} s", step.at.as_secs_f64());
            let (mut handled, place, injected) = match &step.action {
                Action::Frame(frame) => {
                    let place = format!("{place}: frame {}", frames::summary(frame));
                    (self.subject.inject(frame)?, place, Some(frame))
                }
                Action::Command { line } => {
                    let place = format!("{place}: `{line}`");
                    let got = self.subject.command(line)?;
                    if let Some(wanted) = &expected.output {
                        self.command(place.clone(), line, wanted, &got, &expected.volatile_lines);
                    }
                    (Handled::default(), place, None)
                }
                Action::Skip => (Handled::default(), place, None),
            };
            // What leaves while time goes by is still reckoned to this step.
            handled.frames.extend(self.subject.advance(until)?);
            self.frames(place, expected, &handled, injected);
        }
        Ok(())
    }

    fn frames(
        &mut self,
        place: String,
        expected: &StepResult,
        handled: &Handled,
        injected: Option<&Frame>,
    ) {
        let all: Vec<&ExpectedFrame> = expected.frames.iter().collect();
        let mut lines = frames::compare(&all, &handled.frames, injected);
        if let (false, Some(reason), Some(injected)) = (lines.is_empty(), &handled.passed, injected)
        {
            // Not more than what the host made is excused, and only as a whole.
            let directors = all
                .into_iter()
                .filter(|it| !made_by_host::accepts(&it.frame, injected))
                .collect::<Vec<_>>();
            let excused = frames::compare(&directors, &handled.frames, Some(injected));
            if excused.is_empty() {
                lines.clear();
            } else {
                lines.push(format!("the director passed the packet to its host: {reason}"));
            }
        }
        self.differ(place, lines);
    }

    fn command(
        &mut self,
        place: String,
        line: &str,
        wanted: &Output,
        got: &Output,
        volatile: &Volatile,
    ) {
        let mut lines = Vec::new();
        if wanted.rc != got.rc {
            lines.push(format!("exit status: got {} expected {}", got.rc, wanted.rc));
        }
        lines.extend(text::compare(&wanted.stdout, &got.stdout, volatile, kind(line)));
        if self.is_random {
            lines.extend(text::follow(&wanted.stdout, &got.stdout, volatile));
        }
        let errors =
            text::compare(&wanted.stderr, &got.stderr, &Volatile::default(), text::Kind::Ordered);
        lines.extend(errors.into_iter().map(|line| format!("stderr {line}")));
        self.differ(place, lines);
    }

    fn tables(&mut self, end: Duration, expected: &Expected) -> Result<(), Trouble> {
        for (name, line, later) in TABLES {
            let Some(wanted) = expected.dumps.get(name) else { continue };
            self.subject.advance(end + later)?;
            let got = self.subject.command(line)?;
            let volatile = expected.volatile_dump_lines.get(name).cloned().unwrap_or_default();
            let got = format!("{}{}", got.stdout, got.stderr);
            self.differ(
                format!("at the end: `{line}`"),
                text::compare(wanted, &got, &volatile, kind(line)),
            );
        }
        Ok(())
    }
}

/// How what a line prints is compared.
fn kind(line: &str) -> text::Kind {
    let has = |word: &str| line.split_whitespace().any(|it| it == word);
    if line.starts_with("ipvsadm -Lnc") && !line.contains('|') {
        text::Kind::Connections
    } else if has("/proc/net/ip_vs_conn") || has("/proc/net/ip_vs_conn_sync") {
        text::Kind::ProcConnections
    } else if has("/proc/net/ip_vs") {
        text::Kind::AnyOrder
    } else if has("--rate") {
        text::Kind::Rates { radix: 10 }
    } else if has("/proc/net/ip_vs_stats") {
        text::Kind::Rates { radix: 16 }
    } else {
        text::Kind::Ordered
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::folders;
    use std::collections::VecDeque;
    use std::path::Path;

    /// Does what the kernel did, but for one frame of the step `spoilt`.
    struct Echo {
        outputs: VecDeque<Output>,
        frames: VecDeque<Vec<Frame>>,
        spoilt: Option<usize>,
        step: usize,
        /// When the first step is, and whether time went on until then.
        first: Duration,
        began: bool,
    }

    impl Echo {
        fn of(recorded: &Recorded, spoilt: Option<usize>) -> Self {
            let expected = &recorded.expected;
            let steps = expected.steps.iter().filter_map(|step| step.output.clone());
            let tables = TABLES.iter().filter_map(|(name, ..)| expected.dumps.get(*name));
            let tables = tables.map(|text| Output { stdout: text.clone(), ..Output::default() });
            Self {
                outputs: expected.setup.iter().cloned().chain(steps).chain(tables).collect(),
                frames: expected
                    .steps
                    .iter()
                    .map(|step| step.frames.iter().map(|it| it.frame.clone()).collect())
                    .collect(),
                spoilt,
                step: 0,
                first: recorded.case.steps.first().map_or(Duration::ZERO, |step| step.at),
                began: false,
            }
        }
    }

    impl Subject for Echo {
        fn command(&mut self, _: &str) -> Result<Output, Trouble> {
            Ok(self.outputs.pop_front().unwrap())
        }

        fn inject(&mut self, _: &Frame) -> Result<Handled, Trouble> {
            Ok(Handled::default())
        }

        fn advance(&mut self, to: Duration) -> Result<Vec<Frame>, Trouble> {
            if !std::mem::replace(&mut self.began, true) && to == self.first {
                return Ok(Vec::new());
            }
            let mut frames = self.frames.pop_front().unwrap_or_default();
            if self.spoilt == Some(self.step) {
                frames[0].octets[0] ^= 4;
            }
            self.step += 1;
            Ok(frames)
        }
    }

    fn load(name: &str) -> Recorded {
        let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases");
        Recorded::load(&cases.join(name)).unwrap()
    }

    #[test]
    fn every_recording_agrees_with_itself() {
        for folder in folders(&Path::new(env!("CARGO_MANIFEST_DIR")).join("cases")).unwrap() {
            let recorded = Recorded::load(&folder).unwrap();
            let differences = replay(&recorded, &mut Echo::of(&recorded, None)).unwrap();
            assert_eq!(differences, [], "{}", recorded.case.name);
        }
    }

    #[test]
    fn one_wrong_bit_in_one_frame_is_found() {
        let recorded = load("tcp-nat-life");
        let differences = replay(&recorded, &mut Echo::of(&recorded, Some(2))).unwrap();
        assert_eq!(differences.len(), 1);
        assert!(differences[0].place.starts_with("step 2 at 0.1 s: frame on s0"));
        assert_eq!(
            differences[0].lines,
            ["frame 0: eth.destination: got 06:00:00:00:0c:02 expected 02:00:00:00:0c:02"]
        );
    }

    /// Passes every frame to a host that is not there.
    struct PassesAll(Echo);

    impl Subject for PassesAll {
        fn command(&mut self, line: &str) -> Result<Output, Trouble> {
            self.0.command(line)
        }

        fn inject(&mut self, _: &Frame) -> Result<Handled, Trouble> {
            Ok(Handled { frames: vec![], passed: Some("no_service".into()) })
        }

        fn advance(&mut self, _: Duration) -> Result<Vec<Frame>, Trouble> {
            Ok(vec![])
        }
    }

    #[test]
    fn a_pass_excuses_what_the_host_answers_and_nothing_else() {
        let passes = |name| {
            let recorded = load(name);
            replay(&recorded, &mut PassesAll(Echo::of(&recorded, None))).unwrap()
        };
        assert_eq!(passes("icmp-echo"), []);
        assert!(!passes("tcp-nat-life").is_empty());
        assert!(!passes("nodest-empty-v6").is_empty());
    }
}
