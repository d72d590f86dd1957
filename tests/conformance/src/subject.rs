//! What is held against a recording: a director that is given frames and
//! commands while time is a value.

use std::time::Duration;

use crate::case::{Frame, Output};

/// How far time goes between two looks at the timers.
const TICK: Duration = Duration::from_millis(500);
/// How old the recorded director was at time 0, which shows in when its rates
/// were estimated: every two seconds of its life (found from the rates of all
/// recordings, to about a tenth of a second).
pub const BEFORE: Duration = Duration::from_millis(500);
/// When they were estimated first, after time 0.
pub const FIRST_LOOK: Duration = Duration::from_millis(1500);

/// When the timers are looked at next, after `elapsed` since time 0.
pub fn next_tick(elapsed: Duration) -> Duration {
    let ticks = elapsed.as_nanos() / TICK.as_nanos() + 1;
    TICK.saturating_mul(u32::try_from(ticks).unwrap_or(u32::MAX))
}

/// A director, laid out as in the recordings.
pub trait Subject {
    /// Runs a command on the director's host.
    fn command(&mut self, line: &str) -> Result<Output, Trouble>;

    /// Gives the director a frame and returns what it did with it.
    fn inject(&mut self, frame: &Frame) -> Result<Handled, Trouble>;

    /// Lets time pass until `to` after the start; returns the frames that left
    /// the director meanwhile.
    fn advance(&mut self, to: Duration) -> Result<Vec<Frame>, Trouble>;
}

/// What became of a frame.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Handled {
    /// The frames that left the director because of it.
    pub frames: Vec<Frame>,
    /// Set where the director gave the frame to its host and there is no host:
    /// the reason it gave.
    pub passed: Option<String>,
}

/// Why a case could not be replayed to its end.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// The subject has no such thing: the case is skipped.
    #[error("{0}")]
    Unsupported(String),
    /// Something that should work did not: the case fails.
    #[error(transparent)]
    Broken(#[from] anyhow::Error),
}
