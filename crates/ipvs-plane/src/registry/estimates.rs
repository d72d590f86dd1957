//! Statistics as they are shown: sums that are made every two seconds, and rates
//! by the kernel's estimator.
//!
//! What is shown is what stood in the counters at the last look, as on a kernel:
//! up to two seconds old, and not moving while `run_estimation` is off. The
//! estimators are this process's; a new daemon begins with rates of zero.

use std::collections::HashMap;
use std::time::Duration;

use ipvs_core::dest::DestId;
use ipvs_core::estimator::{Estimator, INTERVAL_SECS};
use ipvs_core::stats::{Counters, Rates};
use ipvs_core::time::{Instant, Millis};

use super::{Entry, Registry};
use crate::store::{Owner, Store};

/// How much too early a look may be: ticks come about once a second.
const SLACK: Millis = Millis(100);
#[expect(clippy::cast_possible_truncation, reason = "two seconds")]
const INTERVAL: Millis = Millis(INTERVAL_SECS as u32 * 1000);

/// The estimators.
#[derive(Debug, Default)]
pub(super) struct Estimates {
    services: HashMap<u32, Estimator>,
    dests: HashMap<DestId, Estimator>,
    total: Estimator,
    next: Instant,
}

impl Estimates {
    /// Estimators that look for the first time an interval after `now`.
    pub(super) fn from(now: Instant) -> Self {
        Self { next: now.after(INTERVAL), ..Self::default() }
    }

    /// Forgets the estimator of a destination. That of one in the trash rests, and
    /// goes on if it comes back: seen on 6.1.
    pub(super) fn forget_dest(&mut self, id: DestId) {
        self.dests.remove(&id);
    }

    /// Forgets the estimator of a service.
    pub(super) fn forget_service(&mut self, id: u32) {
        self.services.remove(&id);
    }

    fn of(&mut self, owner: Owner) -> &mut Estimator {
        match owner {
            Owner::Service(id) => self.services.entry(id).or_default(),
            Owner::Dest(id) => self.dests.entry(id).or_default(),
            Owner::Total => &mut self.total,
        }
    }
}

impl<S: Store> Registry<S> {
    /// Looks at the counters if it is time to.
    pub(super) fn estimate(&mut self, now: Instant) {
        if now.after(SLACK) < self.estimates.next {
            return;
        }
        // The looks keep their beat, however late one is.
        let next = self.estimates.next.after(INTERVAL);
        self.estimates.next = if next < now { now.after(INTERVAL) } else { next };
        if self.settings.run_estimation != 0 {
            self.each_sum(Estimator::look);
        }
    }

    /// How long it is, on the plane's clock, until the counters are looked at next.
    pub fn until_look(&mut self) -> Duration {
        let left = self.estimates.next.nanos().saturating_sub(self.store.now().nanos());
        Duration::from_nanos(left)
    }

    /// Takes the counters as they are, without a rate: those of an earlier daemon.
    pub(super) fn begin_estimates(&mut self) {
        self.each_sum(|estimator, counters| *estimator = Estimator::at(counters));
    }

    fn each_sum(&mut self, look: fn(&mut Estimator, Counters)) {
        let mut all = self.store.account(Owner::Total).base;
        for entry in self.services.values() {
            let mut sum = self.store.account(Owner::Service(entry.id)).base;
            for id in &entry.dests {
                let counted = self.store.counter_values(*id);
                sum = sum.plus(counted);
                all = all.plus(counted);
                look(self.estimates.of(Owner::Dest(*id)), counted);
            }
            look(self.estimates.of(Owner::Service(entry.id)), sum);
        }
        look(&mut self.estimates.total, all);
    }

    /// What is shown of `owner`: counters since the zero point, and rates.
    pub(super) fn shown(&mut self, owner: Owner) -> (Counters, Rates) {
        let zero = self.store.account(owner).zero;
        let estimator = self.estimates.of(owner);
        (estimator.summed().since(zero), estimator.rates())
    }

    /// What was counted at the last look, whatever the zero point.
    pub(super) fn counted(&mut self, owner: Owner) -> Counters {
        self.estimates.of(owner).summed()
    }

    /// Makes what is shown of a service and its destinations zero.
    pub(super) fn zero_service(&mut self, entry: &Entry) -> Result<(), S::Error> {
        for id in &entry.dests {
            self.zero(Owner::Dest(*id))?;
        }
        self.zero(Owner::Service(entry.id))
    }

    /// Makes what is shown of `owner` zero: what was counted since the last look
    /// is shown at the next.
    pub(super) fn zero(&mut self, owner: Owner) -> Result<(), S::Error> {
        let mut account = self.store.account(owner);
        let estimator = self.estimates.of(owner);
        account.zero = estimator.summed();
        estimator.rest();
        self.store.put_account(owner, &account)
    }
}
