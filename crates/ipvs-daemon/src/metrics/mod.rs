//! Metrics for Prometheus, by HTTP.
//!
//! Who asks is dealt with by a thread of its own. The daemon's one thread is only asked
//! for a [`Snapshot`], one at a time, when it is about to wait for something to do; what
//! is written of it, and how slowly a client reads that, is none of its business.

mod exposition;
mod server;

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, SystemTime};

use ipvs_core::dest::DestKey;
use ipvs_core::service::ServiceKey;
use ipvs_core::snapshot::Control as _;
use ipvs_core::sysctl::Value;
use ipvs_core::verdict::Reason;
use ipvs_health::TargetKey;
use ipvs_health::check::Failure;
use ipvs_plane::measure::{Ground, Measures};
use rustix::event::{EventfdFlags, eventfd};
use rustix::time::{ClockId, clock_gettime};

use crate::director::Director;
use crate::health::Health;
use server::{Ask, Bounds};

/// What metrics are made of.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    measures: Measures,
    ground: Ground,
    packets: Vec<(Reason, u64)>,
    settings: Vec<(&'static str, i64)>,
    health: HealthSnapshot,
    process: Process,
}

/// The health of destinations.
#[derive(Debug, Default)]
struct HealthSnapshot {
    quorums: Vec<(ServiceKey, bool)>,
    up: Vec<(ServiceKey, DestKey, bool)>,
    checks: Vec<CheckSnapshot>,
}

/// A check, in words, and what it has found.
#[derive(Debug)]
struct CheckSnapshot {
    key: TargetKey,
    check: String,
    up: bool,
    /// By the labels of results.
    results: [u64; Failure::LABELS.len()],
    spent: Duration,
    last: Option<Duration>,
}

impl HealthSnapshot {
    fn of(health: &Health) -> Self {
        let standings = &health.checked().standings;
        let up = standings.dests.iter().map(|((key, dest), it)| (*key, *dest, it.up)).collect();
        let quorums = standings.quorums.iter().map(|(key, has)| (*key, *has)).collect();
        let mut checks = Vec::new();
        health.each_check(&mut |key, words, up, record| {
            checks.push(CheckSnapshot {
                key,
                check: words.to_owned(),
                up,
                results: record.map(|it| it.results).unwrap_or_default(),
                spent: record.map(|it| it.spent).unwrap_or_default(),
                last: record.and_then(|it| it.last.as_ref()).map(|last| last.took),
            });
        });
        Self { quorums, up, checks }
    }
}

/// This process.
#[derive(Clone, Copy, Debug, Default)]
struct Process {
    /// Seconds since the Unix epoch.
    started: f64,
    cpu_seconds: f64,
    /// Octets.
    resident: u64,
}

impl Process {
    fn since(started: SystemTime) -> Self {
        let started = started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let used = clock_gettime(ClockId::ProcessCPUTime);
        let used = Duration::try_from(used).unwrap_or_default();
        // Its second word, in pages.
        let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
        let pages = statm.split_whitespace().nth(1).and_then(|word| word.parse().ok());
        let resident = pages.unwrap_or(0_u64).saturating_mul(rustix::param::page_size() as u64);
        Self { started: started.as_secs_f64(), cpu_seconds: used.as_secs_f64(), resident }
    }
}

/// Those who ask for metrics, as the daemon sees them.
#[derive(Debug)]
pub(crate) struct Metrics {
    wake: Arc<OwnedFd>,
    asks: Receiver<Ask>,
    started: SystemTime,
}

impl Metrics {
    /// Begins to answer at an address; returns the one it is, which may have been left
    /// to the kernel.
    pub(crate) fn listen(address: SocketAddr) -> io::Result<(Self, SocketAddr)> {
        Self::listen_within(address, Bounds::default())
    }

    fn listen_within(address: SocketAddr, bounds: Bounds) -> io::Result<(Self, SocketAddr)> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let wake = Arc::new(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?);
        let (sender, asks) = channel();
        let woken = Arc::clone(&wake);
        thread::Builder::new().name("metrics".to_owned()).spawn(move || {
            if let Err(error) = server::run(listener, sender, woken, bounds) {
                tracing::error!(%error, "no more metrics are served");
            }
        })?;
        Ok((Self { wake, asks, started: SystemTime::now() }, address))
    }

    /// Answers those who have asked and still wait.
    pub(crate) fn answer(&self, director: &mut Director) {
        self.answer_with(|| snapshot(director, Process::since(self.started)));
    }

    fn answer_with(&self, mut snapshot: impl FnMut() -> Snapshot) {
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.wake, &mut count);
        for ask in self.asks.try_iter().filter(|ask| !ask.is_closed()) {
            // It may have gone away meanwhile.
            drop(ask.send(snapshot()));
        }
    }
}

impl AsFd for Metrics {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

fn snapshot(director: &mut Director, process: Process) -> Snapshot {
    let plane = director.plane();
    let (measures, ground, packets) = (plane.measure(), plane.ground(), plane.reasons());
    let mut settings = Vec::new();
    director.sysctls(&mut |name, value| {
        if let Value::One(number) = value {
            settings.extend(i64::try_from(number).ok().map(|number| (name, number)));
        }
    });
    let health = HealthSnapshot::of(director.checks());
    Snapshot { measures, ground, packets, settings, health, process }
}
