//! What is told about the cases: lines for people, JSON for machines.

use std::io::{self, Write};

use serde::Serialize;

use crate::compare::Difference;

/// Lines told about one case, unless all are wanted.
const SHOWN: usize = 40;

/// What became of a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As the kernel.
    Passed,
    /// Otherwise.
    Failed(Vec<Difference>),
    /// Not replayed to its end, with the reason.
    Skipped(String),
}

impl Outcome {
    /// The outcome where skipping is failing.
    #[must_use]
    pub fn or_failed(self) -> Self {
        match self {
            Self::Skipped(reason) => {
                let place = "it must pass, and was skipped".to_owned();
                Self::Failed(vec![Difference { place, lines: vec![reason] }])
            }
            other => other,
        }
    }
}

/// All outcomes of one run.
#[derive(Debug)]
pub struct Report {
    /// The plane that was held against the recordings.
    pub plane: String,
    /// The outcomes by name of the case, in order.
    pub cases: Vec<(String, Outcome)>,
}

impl Report {
    /// The number of cases that passed, failed and were skipped.
    pub fn counts(&self) -> (usize, usize, usize) {
        let count = |is: fn(&Outcome) -> bool| self.cases.iter().filter(|(_, it)| is(it)).count();
        (
            count(|it| *it == Outcome::Passed),
            count(|it| matches!(it, Outcome::Failed(_))),
            count(|it| matches!(it, Outcome::Skipped(_))),
        )
    }

    /// The last line.
    pub fn summary(&self) -> String {
        let (passed, failed, skipped) = self.counts();
        format!("{passed} passed, {failed} failed, {skipped} skipped")
    }

    /// The report as JSON.
    pub fn write_json(&self, out: impl Write) -> serde_json::Result<()> {
        let (passed, failed, skipped) = self.counts();
        let cases = self.cases.iter().map(|(name, outcome)| JsonCase::of(name, outcome)).collect();
        serde_json::to_writer_pretty(
            out,
            &JsonReport { plane: &self.plane, passed, failed, skipped, cases },
        )
    }
}

/// Tells about one case, as soon as it is known; `whole` leaves nothing out.
pub fn write_case(
    out: &mut impl Write,
    name: &str,
    title: &str,
    outcome: &Outcome,
    whole: bool,
) -> io::Result<()> {
    let differences = match outcome {
        Outcome::Passed => return writeln!(out, "ok    {name}"),
        Outcome::Skipped(reason) => return writeln!(out, "skip  {name}: {reason}"),
        Outcome::Failed(differences) => differences,
    };
    writeln!(out, "FAIL  {name}: {title}")?;
    let lines: Vec<String> = differences.iter().flat_map(told).collect();
    let shown = if whole { lines.len() } else { SHOWN };
    for line in lines.iter().take(shown) {
        writeln!(out, "      {line}")?;
    }
    match lines.len().saturating_sub(shown) {
        0 => Ok(()),
        more => writeln!(out, "      … and {more} more lines"),
    }
}

fn told(difference: &Difference) -> Vec<String> {
    let lines = difference.lines.iter().map(|line| format!("  {line}"));
    std::iter::once(difference.place.clone()).chain(lines).collect()
}

#[derive(Serialize)]
struct JsonReport<'a> {
    plane: &'a str,
    passed: usize,
    failed: usize,
    skipped: usize,
    cases: Vec<JsonCase<'a>>,
}

#[derive(Serialize)]
struct JsonCase<'a> {
    name: &'a str,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    differences: Vec<String>,
}

impl<'a> JsonCase<'a> {
    fn of(name: &'a str, outcome: &'a Outcome) -> Self {
        let (outcome, reason, differences) = match outcome {
            Outcome::Passed => ("passed", None, Vec::new()),
            Outcome::Failed(differences) => {
                ("failed", None, differences.iter().flat_map(told).collect())
            }
            Outcome::Skipped(reason) => ("skipped", Some(reason.as_str()), Vec::new()),
        };
        Self { name, outcome, reason, differences }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed() -> Outcome {
        let lines = vec!["ipv4.ttl: got 63 expected 64".to_owned()];
        Outcome::Failed(vec![Difference { place: "step 1 at 0 s".into(), lines }])
    }

    fn shown(outcome: &Outcome) -> String {
        let mut out = Vec::new();
        write_case(&mut out, "ttl-nat", "TTL 1, 2 and 0", outcome, false).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_difference_is_told_under_its_step() {
        assert_eq!(
            shown(&failed()),
            "FAIL  ttl-nat: TTL 1, 2 and 0\n      step 1 at 0 s\n        ipv4.ttl: got 63 expected 64\n"
        );
        assert_eq!(shown(&Outcome::Skipped("no nft".into())), "skip  ttl-nat: no nft\n");
    }

    #[test]
    fn the_summary_counts_each_outcome_once() {
        let cases = [Outcome::Passed, failed(), Outcome::Passed, Outcome::Skipped("x".into())];
        let cases = cases.into_iter().map(|outcome| ("a".to_owned(), outcome)).collect();
        let report = Report { plane: "core".into(), cases };
        assert_eq!(report.summary(), "2 passed, 1 failed, 1 skipped");
        let mut json = Vec::new();
        report.write_json(&mut json).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
        assert_eq!((&json["passed"], &json["failed"]), (&2.into(), &1.into()));
        assert_eq!(json["cases"][1]["differences"][1], "  ipv4.ttl: got 63 expected 64");
    }
}
