//! Schedules with a clock that stands still unless everybody waits.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use ipvs_config::check::{Check, CheckKind, Timing};
use ipvs_core::addr::{Addr, Family};
use ipvs_core::dest::DestKey;
use ipvs_core::service::ServiceKey;
use tokio::task::LocalSet;

use super::*;

/// Answers by a script for each host: `+`, `-`, or a digit for a pass after so many seconds;
/// the last goes on. Remembers when it was asked, in seconds.
#[derive(Default)]
struct Script {
    answers: RefCell<HashMap<u8, String>>,
    asked: RefCell<Vec<(u8, f64)>>,
}

struct Player(Rc<Script>, Instant);

impl Checker for Player {
    async fn check(&self, target: &Target) -> Result<Weight, Failure> {
        let host = host(&target.key);
        self.0.asked.borrow_mut().push((host, self.1.elapsed().as_secs_f64()));
        let answer = {
            let mut answers = self.0.answers.borrow_mut();
            let script = answers.entry(host).or_insert_with(|| "+".to_owned());
            if script.len() > 1 { script.remove(0) } else { script.chars().next().unwrap() }
        };
        match answer.to_digit(10) {
            Some(seconds) => sleep(Duration::from_secs(seconds.into())).await,
            None if answer == '-' => return Err(Failure::Broken("as in the script".into())),
            None => {}
        }
        Ok(Weight::Configured)
    }
}

/// Who has turned, by the host's number.
#[derive(Clone, Default)]
struct Turns(Rc<RefCell<Vec<(u8, bool)>>>);

impl Listener for Turns {
    fn turned(&self, turn: Turn) {
        self.0.borrow_mut().push((host(&turn.key), turn.up));
    }
}

fn host(key: &TargetKey) -> u8 {
    key.dest.addr.octets()[3]
}

fn target(host: u8, timing: Timing) -> Target {
    let service = ServiceKey::address(Family::V4, 6, Addr::v4([192, 0, 2, 1]), 80);
    let dest = DestKey::new(Family::V4, Addr::v4([10, 0, 0, host]), 80);
    let kind = CheckKind::Tcp;
    let check = Check { kind, address: None, port: None, source: None, mark: 0, timing };
    Target { key: TargetKey { service, dest, position: 0 }, check, presumed_up: false }
}

/// Five seconds, one in doubt, no jitter.
fn timing() -> Timing {
    Timing { jitter: 0, rise: 2, fall: 2, ..Timing::default() }
}

/// A schedule that runs, and what it does.
struct World {
    script: Rc<Script>,
    turns: Turns,
    lists: mpsc::UnboundedSender<Vec<Target>>,
    table: Table,
}

impl World {
    fn new() -> Self {
        let (script, turns, table) = (Rc::<Script>::default(), Turns::default(), Table::default());
        let (lists, receiver) = mpsc::unbounded_channel();
        let player = Player(Rc::clone(&script), Instant::now());
        let schedule = Schedule::new(player, turns.clone(), table.clone());
        tokio::task::spawn_local(schedule.run(receiver));
        Self { script, turns, lists, table }
    }

    fn answers(&self, host: u8, script: &str) {
        self.script.answers.borrow_mut().insert(host, script.to_owned());
    }

    fn set(&self, targets: &[Target]) {
        self.lists.send(targets.to_vec()).unwrap();
    }

    /// When a host was asked, in whole seconds.
    fn asked(&self, of: u8) -> Vec<u64> {
        let asked = self.script.asked.borrow();
        let of_host = asked.iter().filter(|(host, _)| *host == of);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small times")]
        of_host.map(|(_, at)| at.round() as u64).collect()
    }

    fn turns(&self) -> Vec<(u8, bool)> {
        std::mem::take(&mut self.turns.0.borrow_mut())
    }
}

/// Runs a test whose clock jumps.
fn within_time<F: Future<Output = ()>>(test: impl FnOnce() -> F) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().unwrap();
    LocalSet::new().block_on(&runtime, async { test().await });
}

async fn pass(seconds: u64) {
    sleep(Duration::from_secs(seconds)).await;
}

#[test]
fn a_target_is_asked_at_once_and_then_at_its_interval() {
    within_time(|| async {
        let world = World::new();
        world.set(&[target(1, timing())]);
        pass(11).await;
        assert_eq!(world.asked(1), [0, 5, 10]);
        assert_eq!(world.turns(), [(1, true)], "only the first pass is news");
    });
}

#[test]
fn what_is_in_doubt_is_asked_sooner() {
    within_time(|| async {
        let world = World::new();
        world.answers(1, "+--+++");
        world.set(&[target(1, timing())]);
        pass(18).await;
        // Up; then two failures, down; then two passes, up.
        assert_eq!(world.asked(1), [0, 5, 6, 11, 12, 17]);
        assert_eq!(world.turns(), [(1, true), (1, false), (1, true)]);
    });
}

#[test]
fn a_delay_is_before_the_first_check_only() {
    within_time(|| async {
        let world = World::new();
        world.set(&[target(1, Timing { delay: Duration::from_secs(7), ..timing() })]);
        pass(13).await;
        assert_eq!(world.asked(1), [7, 12]);
    });
}

#[test]
fn what_takes_longer_than_its_interval_is_not_asked_twice_at_a_time() {
    within_time(|| async {
        let world = World::new();
        world.answers(1, "8");
        world.set(&[target(1, timing())]);
        pass(20).await;
        assert_eq!(world.asked(1), [0, 8, 16]);
    });
}

#[test]
fn a_slow_target_holds_up_no_other() {
    within_time(|| async {
        let world = World::new();
        world.answers(1, "9");
        world.set(&[target(1, timing()), target(2, timing())]);
        pass(11).await;
        assert_eq!(world.asked(2), [0, 5, 10]);
    });
}

#[test]
fn what_has_not_changed_in_a_new_list_goes_on() {
    within_time(|| async {
        let world = World::new();
        let slower = Timing { interval: Duration::from_secs(20), ..timing() };
        world.set(&[target(1, timing()), target(2, timing()), target(3, timing())]);
        pass(3).await;
        let passes = world.table.lock()[&target(1, timing()).key].results[0];
        assert_eq!(passes, 1);
        world.set(&[target(1, timing()), target(2, slower)]);
        pass(9).await;
        assert_eq!(world.asked(1), [0, 5, 10], "it keeps its time,");
        assert_eq!(world.table.lock()[&target(1, timing()).key].results[0], 3, "and its counts");
        assert_eq!(world.asked(2), [0, 3], "what is another is asked anew");
        assert_eq!(world.asked(3), [0], "and what is gone no more");
        assert_eq!(world.table.lock().len(), 2);
    });
}

#[test]
fn jitter_keeps_targets_from_walking_in_step() {
    within_time(|| async {
        let world = World::new();
        let timing = Timing { jitter: 20, ..timing() };
        let targets: Vec<_> = (1..=50).map(|host| target(host, timing.clone())).collect();
        world.set(&targets);
        pass(30).await;
        let asked = world.script.asked.borrow();
        let (mut last, mut gaps) = (HashMap::new(), Vec::new());
        for (host, at) in asked.iter() {
            if let Some(before) = last.insert(*host, *at) {
                gaps.push(at - before);
            }
        }
        let share = |of: &dyn Fn(&f64) -> bool| gaps.iter().filter(|gap| of(gap)).count();
        assert_eq!(share(&|gap| (3.99..6.01).contains(gap)), gaps.len(), "{gaps:?}");
        assert!(share(&|gap| *gap < 4.8) > 10 && share(&|gap| *gap > 5.2) > 10, "{gaps:?}");
    });
}

#[test]
fn a_thousand_targets_are_asked_a_thousand_times_a_second() {
    within_time(|| async {
        let world = World::new();
        let timing = Timing { interval: Duration::from_secs(1), ..timing() };
        let targets = (0..1000_u16).map(|number| {
            let mut target = target(1, timing.clone());
            target.key.dest.port = number;
            target
        });
        world.set(&targets.collect::<Vec<_>>());
        pass(10).await;
        let asked = world.script.asked.borrow().len();
        assert!((10_000..=11_000).contains(&asked), "{asked}");
    });
}
