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
    for frame in transcript.steps.iter_mut().flat_map(|step| &mut step.frames) {
        frame.volatile_bytes = random(&frame.frame.octets);
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

/// The places of what the kernel draws by lot in a frame: the source port of a
/// tunnel in UDP, which is hashed with a secret, with the checksum over it, and
/// the identification of fragments that the director made.
fn random(octets: &[u8]) -> Vec<usize> {
    const FRAGMENT: u8 = 44;
    const UDP: u8 = 17;
    const GUE: [u8; 2] = 6080_u16.to_be_bytes();
    let at = |place: usize| octets.get(place).copied();
    let mut places = Vec::new();
    let (protocol, body) = match octets.get(12..14) {
        Some([0x86, 0xdd]) if at(20) == Some(FRAGMENT) => {
            places.extend(58..62);
            let first = at(56) == Some(0) && at(57).is_some_and(|it| it & 0xf8 == 0);
            (at(54).filter(|_| first), 62)
        }
        Some([0x86, 0xdd]) => (at(20), 54),
        Some([0x08, 0x00]) => {
            let first = at(20).is_some_and(|it| it.trailing_zeros() >= 5) && at(21) == Some(0);
            (at(23).filter(|_| first), 34)
        }
        _ => (None, 0),
    };
    if protocol == Some(UDP) && octets.get(body + 2..body + 4) == Some(&GUE) {
        places.extend([body, body + 1, body + 6, body + 7]);
    }
    places
}

fn coarse(seconds: f64) -> Duration {
    Duration::from_secs_f64((seconds / GRAIN).floor().max(0.0) * GRAIN)
}
