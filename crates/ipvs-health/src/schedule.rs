//! When checks are made: each by a task of its own.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use ipvs_config::health::Weight;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};

use crate::check::Failure;
use crate::record::{Record, Table};
use crate::target::{Target, TargetKey};
use crate::thread::Turn;

/// Checks at a time. More would take more descriptors than a process has; those who wait lose
/// nothing of their own time.
const MOST: usize = 4096;

/// Whoever makes a check once.
pub(crate) trait Checker: 'static {
    /// Makes it.
    fn check(&self, target: &Target) -> impl Future<Output = Result<Weight, Failure>>;
}

/// What a check that has changed sides has to say.
pub(crate) trait Listener: 'static {
    /// A check was made for the first time, has changed sides, or the weight that it asks for.
    fn turned(&self, turn: Turn);
}

/// All checks, on one thread.
pub(crate) struct Schedule<C, L> {
    shared: Arc<Shared<C, L>>,
    tasks: HashMap<TargetKey, (Target, JoinHandle<()>)>,
}

struct Shared<C, L> {
    checker: C,
    listener: L,
    table: Table,
    places: Semaphore,
    started: Instant,
}

impl<C: Checker, L: Listener> Schedule<C, L> {
    pub(crate) fn new(checker: C, listener: L, table: Table) -> Self {
        let (places, started) = (Semaphore::new(MOST), Instant::now());
        let shared = Arc::new(Shared { checker, listener, table, places, started });
        Self { shared, tasks: HashMap::new() }
    }

    /// Goes on with lists of what is to be checked, until there are no more.
    pub(crate) async fn run(mut self, mut lists: mpsc::UnboundedReceiver<Vec<Target>>) {
        while let Some(list) = lists.recv().await {
            self.set(list);
        }
        self.set(Vec::new());
    }

    /// Checks these from now on; of what has not changed nothing is forgotten.
    fn set(&mut self, list: Vec<Target>) {
        let wanted: HashMap<_, _> = list.into_iter().map(|target| (target.key, target)).collect();
        let table = self.shared.table.clone();
        self.tasks.retain(|key, (target, task)| {
            let stays = wanted.get(key).is_some_and(|wanted| wanted.check == target.check);
            if !stays {
                task.abort();
                table.lock().remove(key);
            }
            stays
        });
        for (key, target) in wanted {
            if !self.tasks.contains_key(&key) {
                table.lock().insert(key, Record::new(target.presumed_up));
                let task = watch(Arc::clone(&self.shared), target.clone());
                self.tasks.insert(key, (target, tokio::task::spawn_local(task)));
            }
        }
    }
}

/// Checks one target for ever.
async fn watch<C: Checker, L: Listener>(shared: Arc<Shared<C, L>>, target: Target) {
    let timing = &target.check.timing;
    sleep(timing.delay).await;
    let mut next = Instant::now();
    loop {
        sleep_until(next).await;
        let Ok(place) = shared.places.acquire().await else { return };
        let begun = Instant::now();
        let outcome = shared.checker.check(&target).await;
        drop(place);
        let (now, took) = (shared.started.elapsed(), begun.elapsed());
        let turn = {
            let mut table = shared.table.lock();
            let Some(record) = table.get_mut(&target.key) else { return };
            let is_first = !record.state.was_checked();
            let changed = record.state.take(outcome.is_ok(), timing, now);
            let before = record.weight;
            record.note(outcome, took, changed);
            let interval = jittered(record.state.interval(timing), timing.jitter);
            // What takes longer than its interval is not made up for.
            next = (begun + interval).max(Instant::now());
            let (key, up, weight) = (target.key, record.state.is_up(), record.weight);
            (changed || is_first || weight != before).then_some(Turn { key, up, weight })
        };
        if let Some(turn) = turn {
            shared.listener.turned(turn);
        }
    }
}

/// So many percent shorter or longer at most.
fn jittered(interval: Duration, percent: u32) -> Duration {
    let share = f64::from(percent) / 100.0;
    interval.mul_f64(1.0 - share + 2.0 * share * fastrand::f64())
}

#[cfg(test)]
mod tests;
