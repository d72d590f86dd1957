//! Holds a plane against what the kernel did with the same scenario.

use std::collections::BTreeMap;
use std::time::Duration;

use ipvs_conformance::case::{Action, Case, Expected, Recorded};

use crate::job::{Pace, Transcript};

/// How far apart two steps are at least whose times are told apart: no timer
/// is looked at closer than that.
const GRAIN: f64 = 0.5;

/// What the kernel did, as a recording.
///
/// Steps that were played as fast as they went get the times at which they
/// happened, coarsely.
pub(crate) fn recorded(case: &Case, transcript: Transcript, pace: Pace) -> Recorded {
    let mut case = case.clone();
    let mut transcript = transcript;
    if pace != Pace::Timed {
        if case.steps.iter().any(|step| sets_to_zero(&step.action)) {
            transcript.dumps.retain(|name, _| !name.starts_with("stats"));
        }
        for (step, at) in case.steps.iter_mut().zip(&transcript.times) {
            step.at = coarse(*at);
        }
        case.end = coarse(transcript.end);
    }
    let expected = Expected {
        setup: transcript.setup,
        steps: transcript.steps,
        dumps: transcript.dumps,
        volatile_dump_lines: BTreeMap::new(),
        unstable: Vec::new(),
    };
    Recorded { case, expected }
}

/// Whether a step sets counters to zero. The kernel takes for zero what it summed
/// up last, which may be two seconds ago, so where time is real they cannot be
/// compared from then on.
fn sets_to_zero(action: &Action) -> bool {
    let Action::Command { line } = action else { return false };
    ["ipvsadm -Z", "ipvsadm -a", "ipvsadm -A"].iter().any(|it| line.starts_with(it))
}

fn coarse(seconds: f64) -> Duration {
    Duration::from_secs_f64((seconds / GRAIN).floor().max(0.0) * GRAIN)
}
