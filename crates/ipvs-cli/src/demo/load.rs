//! Clients: threads that ask a virtual service again and again, and what they got.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::Context as _;
use ipvs_lab::{HttpClient, Namespace, udp_exchange};

use super::layout::{SERVERS, Service, Transport};

/// Stretches of a load whose requests are counted apart.
pub(super) const PARTS: usize = 3;
/// A failing client waits before it tries again.
const AFTER_FAILURE: Duration = Duration::from_millis(20);
/// Failures that are kept in words.
const MOST_WORDS: usize = 5;

/// How a client asks.
#[derive(Clone, Copy, Debug)]
pub(super) enum Habit {
    /// As fast as it can, by a new connection or from a new port each time.
    Anew,
    /// This many requests over one connection, then the next.
    Sessions {
        /// Requests over one connection.
        requests: u32,
        /// Between two requests.
        pause: Duration,
    },
}

/// Counts that are there while the clients run.
#[derive(Debug, Default)]
pub(super) struct Tally {
    part: AtomicUsize,
    answered: [[AtomicU64; SERVERS]; PARTS],
    failed: [AtomicU64; PARTS],
}

impl Tally {
    /// Begins the next stretch.
    pub(super) fn begin_part(&self, part: usize) {
        self.part.store(part, Ordering::Relaxed);
    }

    /// Answers so far, by server.
    pub(super) fn answered(&self) -> [u64; SERVERS] {
        let mut sums = [0; SERVERS];
        for part in &self.answered {
            for (sum, count) in sums.iter_mut().zip(part) {
                *sum += count.load(Ordering::Relaxed);
            }
        }
        sums
    }

    /// Failures so far.
    pub(super) fn failed(&self) -> u64 {
        self.failed.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// Answers and failures of one stretch.
    pub(super) fn of_part(&self, part: usize) -> (u64, u64) {
        let answered = self.answered.get(part).into_iter().flatten();
        let failed = self.failed.get(part).map_or(0, |count| count.load(Ordering::Relaxed));
        (answered.map(|count| count.load(Ordering::Relaxed)).sum(), failed)
    }

    /// Counts a request in the stretch in which it began and ended; in the
    /// middle one if these are two, for there lies what came between.
    fn count(&self, began: usize, outcome: Result<usize, ()>) {
        let part = if began == self.part.load(Ordering::Relaxed) { began } else { PARTS / 2 };
        let counter = match outcome {
            Ok(server) => self.answered.get(part).and_then(|servers| servers.get(server)),
            Err(()) => self.failed.get(part),
        };
        if let Some(counter) = counter {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What clients remember when they end.
#[derive(Debug, Default)]
pub(super) struct Record {
    /// Of each answered request.
    pub(super) latencies: Vec<Duration>,
    /// Some of the failures, in words.
    pub(super) failures: Vec<String>,
}

impl Record {
    fn failed(&mut self, words: String) {
        if self.failures.len() < MOST_WORDS {
            self.failures.push(words);
        }
    }
}

/// Clients that are running.
#[derive(Debug, Default)]
pub(super) struct Clients {
    tally: Arc<Tally>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Record>>,
}

impl Clients {
    /// Starts one more, in the client's namespace.
    pub(super) fn add(
        &mut self,
        namespace: &Namespace,
        service: &Service,
        habit: Habit,
        timeout: Duration,
    ) -> anyhow::Result<()> {
        let (tally, stop) = (Arc::clone(&self.tally), Arc::clone(&self.stop));
        let mut client = Client { service: service.clone(), timeout, http: HttpClient::new() };
        let thread = namespace.spawn(move || client.run(habit, &tally, &stop))?;
        self.threads.push(thread);
        Ok(())
    }

    pub(super) fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Lets every client finish its request, and returns what they remember.
    pub(super) fn finish(mut self) -> anyhow::Result<Record> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Record::default();
        for thread in self.threads.drain(..) {
            let record = thread.join().ok().context("a client panicked")?;
            all.latencies.extend(record.latencies);
            record.failures.into_iter().for_each(|words| all.failed(words));
        }
        Ok(all)
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        // On the way out of an error: they end by themselves soon.
        self.stop.store(true, Ordering::Relaxed);
    }
}

struct Client {
    service: Service,
    timeout: Duration,
    http: HttpClient,
}

impl Client {
    fn run(&mut self, habit: Habit, tally: &Tally, stop: &AtomicBool) -> Record {
        let (requests, pause) = match habit {
            Habit::Anew => (1, Duration::ZERO),
            Habit::Sessions { requests, pause } => {
                self.http = HttpClient::new().keep_alive();
                (requests, pause)
            }
        };
        let mut record = Record::default();
        for number in 1_u32.. {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let part = tally.part.load(Ordering::Relaxed);
            match self.request(number) {
                Ok((server, latency)) => {
                    tally.count(part, Ok(server));
                    record.latencies.push(latency);
                    thread::sleep(pause);
                }
                Err(words) => {
                    tally.count(part, Err(()));
                    record.failed(format!("{}: {words}", self.service));
                    self.http.close();
                    thread::sleep(AFTER_FAILURE);
                }
            }
            if number.is_multiple_of(requests) {
                self.http.close();
            }
        }
        record
    }

    /// Asks once; returns who answered and how long it took.
    fn request(&mut self, number: u32) -> Result<(usize, Duration), String> {
        let (vip, timeout) = (self.service.vip, self.timeout);
        match self.service.transport {
            Transport::Tcp => {
                let answer = self.http.get(vip, timeout).map_err(|error| error.to_string())?;
                if answer.status != 200 {
                    return Err(format!("status {}", answer.status));
                }
                let port = answer.local.port();
                let server = self.service.check(&answer.server, answer.seen, port)?;
                Ok((server, answer.latency))
            }
            Transport::Udp => {
                let payload = number.to_string();
                let answer = udp_exchange(vip, payload.as_bytes(), timeout)
                    .map_err(|error| error.to_string())?;
                let port = answer.local.port();
                let server = self.service.check(&answer.server, Some(answer.seen), port)?;
                Ok((server, answer.latency))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_part_and_server() {
        let tally = Tally::default();
        tally.count(0, Ok(0));
        tally.count(0, Ok(2));
        tally.begin_part(2);
        tally.count(2, Ok(2));
        assert_eq!(tally.answered(), [1, 0, 2]);
        assert_eq!((tally.of_part(0), tally.of_part(2), tally.failed()), ((2, 0), (1, 0), 0));
    }

    #[test]
    fn a_request_that_lasts_from_one_part_into_another_counts_between() {
        let tally = Tally::default();
        tally.begin_part(1);
        tally.count(0, Err(()));
        tally.begin_part(2);
        tally.count(1, Err(()));
        assert_eq!([0, 1, 2].map(|part| tally.of_part(part).1), [0, 2, 0]);
    }
}
