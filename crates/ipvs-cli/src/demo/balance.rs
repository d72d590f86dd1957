//! Requests to every service, by every method, and how they were shared out.

use std::thread;
use std::time::{Duration, Instant};

use super::layout::{Method, SERVERS, Service, Site, Transport, WEIGHTS};
use super::load::{Clients, Habit, Tally};
use super::report;
use super::screen::Screen;

/// HTTP clients at a time; one more sends datagrams.
const HTTP_CLIENTS: usize = 3;
/// No answer within this time is a failure.
const TIMEOUT: Duration = Duration::from_secs(3);
/// How often the screen is looked after.
const GLANCE: Duration = Duration::from_millis(50);
/// From so many requests on the shares are judged.
const ENOUGH: u64 = 200;
/// How far a share may be off, in hundredths of all requests.
const TOLERANCE: f64 = 3.0;

/// What came of the requests to one service.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) name: String,
    pub(super) scheduler: &'static str,
    /// Answers by server.
    pub(super) answered: [u64; SERVERS],
    pub(super) failed: u64,
    pub(super) p50: Duration,
    pub(super) p99: Duration,
    /// What is wrong, in words.
    pub(super) complaints: Vec<String>,
}

impl Row {
    /// Answers of all servers.
    pub(super) fn requests(&self) -> u64 {
        self.answered.iter().sum()
    }

    /// Hundredths of the answers that came from each server.
    pub(super) fn shares(&self) -> [f64; SERVERS] {
        shares(&self.answered)
    }
}

/// Loads one method and family after the other.
pub(super) fn run(site: &Site, length: Duration, screen: &mut Screen) -> anyhow::Result<Vec<Row>> {
    screen.heading(
        "HTTP requests, each over a new connection, and UDP datagrams, each from a new port",
    );
    let mut rows = Vec::new();
    for services in site.combinations() {
        rows.extend(combination(site, services, length, screen)?);
    }
    report::table(&rows, screen);
    Ok(rows)
}

fn combination(
    site: &Site,
    services: &[Service],
    length: Duration,
    screen: &mut Screen,
) -> anyhow::Result<Vec<Row>> {
    let unpacked = site.unpacked();
    let mut running = Vec::new();
    for service in services {
        let mut clients = Clients::default();
        let number = if service.transport == Transport::Tcp { HTTP_CLIENTS } else { 1 };
        for _ in 0..number {
            clients.add(site.lab.client(), service, Habit::Anew, TIMEOUT)?;
        }
        running.push((service, clients));
    }
    let start = Instant::now();
    while start.elapsed() < length {
        thread::sleep(GLANCE);
        screen.progress(|| {
            let parts: Vec<String> =
                running.iter().map(|(service, clients)| live(service, clients.tally())).collect();
            parts.join("  ")
        });
    }
    let mut rows = Vec::new();
    for (service, clients) in running {
        let (answered, failed) = (clients.tally().answered(), clients.tally().failed());
        rows.push((service, answered, failed, clients.finish()?));
    }
    let unpacked = site.unpacked().saturating_sub(unpacked);
    let rows = rows.into_iter().map(|(service, answered, failed, mut record)| {
        record.latencies.sort_unstable();
        let mut complaints = record.failures;
        complaints.extend(uneven(service, &answered));
        complaints.extend(wrong_way(service, unpacked));
        Row {
            name: service.to_string(),
            scheduler: service.transport.scheduler(),
            answered,
            failed,
            p50: report::percentile(&record.latencies, 50),
            p99: report::percentile(&record.latencies, 99),
            complaints,
        }
    });
    Ok(rows.collect())
}

/// The state of one service while it is under load.
fn live(service: &Service, tally: &Tally) -> String {
    let answered = tally.answered();
    let names = service.servers.iter().map(|(name, _)| name.as_str());
    let counts: Vec<String> =
        names.zip(answered).map(|(name, count)| format!("{name} {count:>5}")).collect();
    format!("{service}: {} ({} failed)", counts.join(" "), tally.failed())
}

fn shares(answered: &[u64; SERVERS]) -> [f64; SERVERS] {
    let all: u64 = answered.iter().sum();
    answered.map(|count| report::percent(count, all))
}

/// A complaint if the servers' shares do not follow their weights.
fn uneven(service: &Service, answered: &[u64; SERVERS]) -> Option<String> {
    let all: u64 = answered.iter().sum();
    let expected = shares(&WEIGHTS.map(u64::from));
    let off =
        shares(answered).iter().zip(expected).any(|(is, wanted)| (is - wanted).abs() > TOLERANCE);
    (all >= ENOUGH && off).then(|| format!("{service}: {answered:?} does not follow the weights"))
}

/// A complaint if packets were unpacked that were not tunnelled, or none that were.
fn wrong_way(service: &Service, unpacked: u64) -> Option<String> {
    match (service.method, unpacked) {
        (Method::Tunnel, 0) => Some(format!("{service}: nothing came by a tunnel")),
        (Method::Tunnel, _) | (_, 0) => None,
        _ => Some(format!("{service}: {unpacked} packets came by a tunnel")),
    }
}
