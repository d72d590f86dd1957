//! The thread that makes all checks, as the daemon sees it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use ipvs_config::health::Weight;
use rustix::event::{EventfdFlags, eventfd};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::LocalSet;

use crate::check::{Failure, Trust, check};
use crate::record::Table;
use crate::schedule::{Checker, Listener, Schedule};
use crate::target::{Target, TargetKey};

/// A check that was made for the first time, has changed sides, or the weight that it asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Which.
    pub key: TargetKey,
    /// Whether it is up now.
    pub up: bool,
    /// The weight that it asks for.
    pub weight: Weight,
}

/// All checks. Its descriptor is readable when there are [`turns`](Self::turns).
#[derive(Debug)]
pub struct Checks {
    lists: UnboundedSender<Vec<Target>>,
    turns: Receiver<Turn>,
    wake: Arc<OwnedFd>,
    table: Table,
}

impl Checks {
    /// Starts the thread, in the calling one's network namespace. It ends with what is returned.
    pub fn start() -> io::Result<Self> {
        raise_descriptors();
        let wake = Arc::new(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?);
        let ((lists, asked), (turned, turns)) = (unbounded_channel(), channel());
        let (table, bell) = (Table::default(), Bell { turned, wake: Arc::clone(&wake) });
        let shared = table.clone();
        thread::Builder::new().name("checks".to_owned()).spawn(move || {
            if let Err(error) = run(asked, bell, shared) {
                tracing::error!(%error, "nothing is checked any more");
            }
        })?;
        Ok(Self { lists, turns, wake, table })
    }

    /// Checks these from now on; what has not changed goes on.
    pub fn set(&self, targets: Vec<Target>) {
        if self.lists.send(targets).is_err() {
            tracing::error!("nothing is checked: the thread that does it has ended");
        }
    }

    /// What has turned since this was asked last.
    pub fn turns(&self) -> Vec<Turn> {
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.wake, &mut count);
        self.turns.try_iter().collect()
    }

    /// What is known of each check.
    pub const fn table(&self) -> &Table {
        &self.table
    }
}

impl AsFd for Checks {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

fn run(asked: UnboundedReceiver<Vec<Target>>, bell: Bell, table: Table) -> io::Result<()> {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().max_blocking_threads(1).build()?;
    let schedule = Schedule::new(Real::default(), bell, table);
    LocalSet::new().block_on(&runtime, schedule.run(asked));
    Ok(())
}

/// Checks take a descriptor each, of which a process may have few unless it asks for more.
fn raise_descriptors() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
    {
        tracing::warn!(%error, "the number of descriptors stays at {current:?}");
    }
}

/// Checks by the network.
#[derive(Default)]
struct Real(Trust);

impl Checker for Real {
    async fn check(&self, target: &Target) -> Result<Weight, Failure> {
        check(&target.check, target.at(), &self.0).await
    }
}

/// Tells the daemon's thread.
struct Bell {
    turned: Sender<Turn>,
    wake: Arc<OwnedFd>,
}

impl Listener for Bell {
    fn turned(&self, turn: Turn) {
        if self.turned.send(turn).is_ok() {
            // Full means that it wakes up anyway.
            let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
        }
    }
}
