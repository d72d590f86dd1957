//! What a plane takes of the CPUs while no packet comes.

use std::path::Path;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

use crate::machine::{cpus, process_time, schedstat, take_one_cpu};

/// A pause that a loop which only reads the clock does not make by itself.
const GAP: Duration = Duration::from_nanos(700);

/// Shares of one CPU.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Idle {
    /// The daemon's threads.
    pub(crate) daemon: f64,
    /// All that interrupts whoever has a CPU: the timer by which connections end, and what
    /// the machine does anyhow.
    pub(crate) kernel: f64,
}

/// Looks for `time` at the daemon with this process id, and at interrupts of all CPUs.
///
/// The kernel charges what a timer does to whom it interrupts, and counts its own time by ticks,
/// with which the timer is in step. So on each CPU a thread reads the clock and adds up the gaps,
/// less the time in which others had the CPU by the scheduler's own count.
pub(crate) fn look(daemon: u32, time: Duration) -> Result<Idle> {
    let cpus = cpus()?;
    let start = Barrier::new(cpus.len());
    let before = process_time(daemon)?;
    let gaps = thread::scope(|scope| -> Result<Duration> {
        let start = &start;
        let watch = |cpu| scope.spawn(move || watch(cpu, time, start));
        let watches: Vec<_> = cpus.into_iter().map(watch).collect();
        let joined = watches.into_iter().map(|it| {
            it.join().map_err(|_panic| anyhow!("a thread that watches a CPU panicked"))?
        });
        joined.sum()
    })?;
    let share = |spent: Duration| spent.as_secs_f64() / time.as_secs_f64();
    Ok(Idle { daemon: share(process_time(daemon)?.saturating_sub(before)), kernel: share(gaps) })
}

/// How long `cpu` was taken from this thread by interrupts.
fn watch(cpu: usize, time: Duration, start: &Barrier) -> Result<Duration> {
    let bound = take_one_cpu(Some(cpu));
    // All wait for all, whatever happened.
    start.wait();
    bound?;
    let waited = waited()?;
    let (begin, mut gaps) = (Instant::now(), Duration::ZERO);
    let mut last = begin;
    while last.duration_since(begin) < time {
        let now = Instant::now();
        let gap = now.duration_since(last);
        if gap > GAP {
            gaps += gap;
        }
        last = now;
    }
    Ok(gaps.saturating_sub(self::waited()?.saturating_sub(waited)))
}

/// How long this thread was ready and another had its CPU.
fn waited() -> Result<Duration> {
    schedstat(Path::new("/proc/thread-self/schedstat"), 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_works_is_seen_in_the_time_of_its_process() {
        let before = process_time(std::process::id()).unwrap();
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(20) {}
        assert!(process_time(std::process::id()).unwrap() > before);
    }
}
