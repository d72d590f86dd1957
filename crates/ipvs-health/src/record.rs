//! What is known of each check.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use ipvs_config::health::Weight;

use crate::check::Failure;
use crate::state::State;
use crate::target::TargetKey;

/// What is known of a check.
#[derive(Clone, Debug)]
pub struct Record {
    /// How it stands.
    pub state: State,
    /// The weight that the last pass has asked for.
    pub weight: Weight,
    /// Since when it stands so; `None` if that is from before it was checked.
    pub since: Option<SystemTime>,
    /// The last result.
    pub last: Option<Last>,
    /// Results by their labels, in the order of [`Failure::LABELS`].
    pub results: [u64; Failure::LABELS.len()],
    /// The time that all of them took.
    pub spent: Duration,
}

/// A result.
#[derive(Clone, Debug)]
pub struct Last {
    /// Passed, or why not.
    pub outcome: Result<(), Failure>,
    /// When it was known.
    pub at: SystemTime,
    /// How long it took.
    pub took: Duration,
}

impl Record {
    pub(crate) const fn new(presumed_up: bool) -> Self {
        Self {
            state: State::presumed(presumed_up),
            weight: Weight::Configured,
            since: None,
            last: None,
            results: [0; Failure::LABELS.len()],
            spent: Duration::ZERO,
        }
    }

    pub(crate) fn note(&mut self, outcome: Result<Weight, Failure>, took: Duration, changed: bool) {
        let outcome = outcome.map(|weight| self.weight = weight);
        let at = SystemTime::now();
        let label = outcome.as_ref().map_or_else(Failure::label, |()| "pass");
        let counts = Failure::LABELS.iter().zip(&mut self.results);
        counts.filter(|(name, _)| **name == label).for_each(|(_, count)| *count += 1);
        self.spent += took;
        if changed || self.since.is_none() {
            self.since = Some(at);
        }
        self.last = Some(Last { outcome, at, took });
    }
}

/// The records of all checks, by whoever makes them and whoever asks.
#[derive(Clone, Debug, Default)]
pub struct Table(Arc<Mutex<HashMap<TargetKey, Record>>>);

impl Table {
    /// What is known now; to be let go of soon.
    pub fn lock(&self) -> MutexGuard<'_, HashMap<TargetKey, Record>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
