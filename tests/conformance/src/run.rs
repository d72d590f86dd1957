//! Several cases at once, told in their order.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use crate::case::Recorded;
use crate::plane::{Plane, run_case};
use crate::report::Outcome;

/// Replays the cases, as many at a time as there are CPUs, each on a fresh
/// director; calls `each` in the order of the cases.
pub fn run_all(cases: &[Recorded], plane: Plane, mut each: impl FnMut(&Recorded, Outcome)) {
    let jobs = match plane {
        // Faster than a thread is started.
        Plane::Core => 1,
        Plane::User | Plane::Bpf | Plane::Xdp | Plane::Netfilter => {
            thread::available_parallelism().map_or(1, NonZeroUsize::get)
        }
    };
    let next = AtomicUsize::new(0);
    let (sender, outcomes) = mpsc::channel();
    thread::scope(|scope| {
        for job in 0..jobs {
            let (sender, next) = (sender.clone(), &next);
            scope.spawn(move || {
                take_cpu(job);
                loop {
                    let place = next.fetch_add(1, Ordering::Relaxed);
                    let Some(recorded) = cases.get(place) else { break };
                    if sender.send((place, run_case(recorded, plane))).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        let mut early = BTreeMap::new();
        let mut waiting = cases.iter().enumerate().peekable();
        for (place, outcome) in outcomes {
            early.insert(place, outcome);
            while let Some((place, recorded)) = waiting.peek().copied()
                && let Some(outcome) = early.remove(&place)
            {
                each(recorded, outcome);
                waiting.next();
            }
        }
    });
}

/// Keeps the calling thread on the CPU of this number, so that two replays do
/// not stay on the same one. A thread that may not choose is only slower.
fn take_cpu(number: usize) {
    let this = Pid::from_raw(0);
    let Ok(allowed) = sched_getaffinity(this) else { return };
    let mut usable = (0..CpuSet::count()).filter(|cpu| allowed.is_set(*cpu).unwrap_or(false));
    let mut only = CpuSet::new();
    if let Some(cpu) = usable.nth(number)
        && only.set(cpu).is_ok()
    {
        let _ = sched_setaffinity(this, &only);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn outcomes_come_in_the_order_of_the_cases() {
        let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases");
        let cases: Vec<Recorded> = ["udp-nat-basic", "tcp-nat-life", "icmp-echo"]
            .iter()
            .map(|name| Recorded::load(&cases.join(name)).unwrap())
            .collect();
        let mut told = Vec::new();
        run_all(&cases, Plane::Core, |recorded, outcome| {
            assert_eq!(outcome, Outcome::Passed);
            told.push(recorded.case.name.clone());
        });
        assert_eq!(told, ["udp-nat-basic", "tcp-nat-life", "icmp-echo"]);
    }
}
