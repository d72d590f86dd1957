//! What the results of a check mean. Pure: the time is an argument.

use std::collections::VecDeque;
use std::time::Duration;

use ipvs_config::check::Timing;

/// How a check stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    up: bool,
    /// There was a result.
    was_checked: bool,
    /// Results in a row that say something else than `up`.
    against: u32,
    /// When it went down, as far as that is remembered, on the caller's clock.
    falls: VecDeque<Duration>,
    /// Passing for so long, after it has gone down too often.
    held_since: Option<Duration>,
    is_held: bool,
}

impl State {
    /// The state before the first check.
    pub const fn presumed(up: bool) -> Self {
        Self {
            up,
            was_checked: false,
            against: 0,
            falls: VecDeque::new(),
            held_since: None,
            is_held: false,
        }
    }

    /// Whether it is up.
    pub const fn is_up(&self) -> bool {
        self.up
    }

    /// Whether it has been checked.
    pub const fn was_checked(&self) -> bool {
        self.was_checked
    }

    /// Whether it passes, and is down all the same since it has gone down too often.
    pub const fn is_held(&self) -> bool {
        self.is_held && self.held_since.is_some()
    }

    /// Whether results say something else than what counts.
    pub const fn is_in_doubt(&self) -> bool {
        self.against != 0
    }

    /// Takes a result at `now`; whether it has changed sides.
    ///
    /// The very first result is believed when it is a pass, and when nothing is lost by it.
    pub fn take(&mut self, passed: bool, timing: &Timing, now: Duration) -> bool {
        let is_first = !std::mem::replace(&mut self.was_checked, true);
        if !passed {
            self.held_since = None;
        }
        if passed == self.up {
            self.against = 0;
            return false;
        }
        self.against = self.against.saturating_add(1);
        let needed = match (passed, is_first) {
            (true, true) => 1,
            (true, false) => timing.rise,
            (false, _) => timing.fall,
        };
        if self.against < needed || (passed && self.holds(timing, now)) {
            return false;
        }
        self.against = 0;
        self.up = passed;
        self.is_held = false;
        if !passed {
            self.note_fall(timing, now);
        }
        true
    }

    /// Whether it has to pass for longer, being up too seldom.
    fn holds(&mut self, timing: &Timing, now: Duration) -> bool {
        let Some(dampening) = timing.dampening.filter(|_| self.is_held) else { return false };
        let since = *self.held_since.get_or_insert(now);
        now.saturating_sub(since) < dampening.hold
    }

    fn note_fall(&mut self, timing: &Timing, now: Duration) {
        let Some(dampening) = timing.dampening else { return };
        self.falls.push_back(now);
        while self.falls.front().is_some_and(|fall| now.saturating_sub(*fall) > dampening.within) {
            self.falls.pop_front();
        }
        self.is_held = self.falls.len() >= usize::try_from(dampening.falls).unwrap_or(usize::MAX);
    }

    /// How long after the beginning of a check the next one begins.
    pub fn interval(&self, timing: &Timing) -> Duration {
        if self.is_in_doubt() { timing.retry_interval } else { timing.interval }
    }
}

#[cfg(test)]
mod tests {
    use ipvs_config::check::Dampening;

    use super::*;

    /// Plays results, a second apart (`+` and `-`); the state after each, `U` or `d`.
    #[track_caller]
    fn plays(state: &mut State, timing: &Timing, results: &str, expect: &str) {
        let mut said = String::new();
        for (second, result) in (0..).zip(results.chars()) {
            let before = state.is_up();
            let changed = state.take(result == '+', timing, Duration::from_secs(second));
            assert_eq!(changed, before != state.is_up());
            said.push(if state.is_up() { 'U' } else { 'd' });
        }
        assert_eq!(said, expect, "{results}");
    }

    fn timing(rise: u32, fall: u32) -> Timing {
        Timing { rise, fall, ..Timing::default() }
    }

    #[test]
    fn the_first_pass_is_believed_at_once() {
        plays(&mut State::presumed(false), &timing(3, 2), "+", "U");
        plays(&mut State::presumed(false), &timing(3, 2), "-+++", "dddU");
    }

    #[test]
    fn the_first_failure_of_what_has_connections_is_not() {
        plays(&mut State::presumed(true), &timing(2, 3), "--+---", "UUUUUd");
    }

    #[test]
    fn rise_and_fall_are_counted_in_a_row() {
        plays(&mut State::presumed(true), &timing(2, 2), "+-+--+-++", "UUUUddddU");
    }

    #[test]
    fn between_results_of_doubt_the_interval_is_the_shorter_one() {
        let timing = timing(2, 2);
        let mut state = State::presumed(true);
        state.take(false, &timing, Duration::ZERO);
        assert_eq!(state.interval(&timing), timing.retry_interval);
        state.take(false, &timing, Duration::ZERO);
        assert_eq!(state.interval(&timing), timing.interval, "it is down, and no doubt is left");
    }

    #[test]
    fn what_goes_down_too_often_is_held_until_it_has_passed_for_long() {
        let (within, hold) = (Duration::from_mins(1), Duration::from_secs(4));
        let dampening = Some(Dampening { falls: 2, within, hold });
        let timing = Timing { dampening, ..timing(1, 1) };
        plays(&mut State::presumed(true), &timing, "-+-++++", "dUddddd");
        // The fall within the hold begins it anew.
        plays(&mut State::presumed(true), &timing, "-+-+++-+++++", "dUdddddddddU");
        let within = Duration::from_secs(1);
        let dampening = Some(Dampening { falls: 2, within, hold });
        let timing = Timing { dampening, ..timing };
        plays(&mut State::presumed(true), &timing, "-+-+", "dUdU");
    }
}
