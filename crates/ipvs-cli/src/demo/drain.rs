//! A server is taken out of service under load: its weight becomes 0, its
//! connections end as their clients please, and it gets no new ones.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use ipvs_core::addr::Addr;
use ipvs_core::service::ServiceKey;
use ipvs_core::snapshot::DestStatus;
use ipvs_netlink::Client;
use ipvs_netlink::client;
use serde_json::{Value, json};

use super::director::Director;
use super::layout::{Method, Service, Site, Transport};
use super::load::{Clients, Habit};
use super::screen::Screen;

/// The server that is drained.
const DRAINED: usize = 0;
/// Clients with sessions of many requests.
const SESSIONS: u32 = 24;
/// Between two requests of a session.
const PAUSE: Duration = Duration::from_millis(20);
/// Connections that are idle are not waited for longer than this.
const PATIENCE: Duration = Duration::from_secs(20);
/// No answer within this time is a failure.
const TIMEOUT: Duration = Duration::from_secs(3);
/// How often the director is asked.
const GLANCE: Duration = Duration::from_millis(50);

/// What came of it.
#[derive(Debug)]
pub(super) struct Drained {
    active_before: u32,
    active_after: u32,
    new_connections: u64,
    time: Duration,
    answered: u64,
    failed: u64,
    /// What went wrong, in words.
    pub(super) complaints: Vec<String>,
}

impl Drained {
    pub(super) fn json(&self) -> Value {
        json!({
            "active_before": self.active_before,
            "active_after": self.active_after,
            "new_connections_while_draining": self.new_connections,
            "drained_after_ms": u64::try_from(self.time.as_millis()).unwrap_or(u64::MAX),
            "answered": self.answered,
            "failed": self.failed,
            "complaints": self.complaints,
        })
    }
}

/// Drains one server, and puts it back.
pub(super) fn run(
    site: &Site,
    director: &Director,
    length: Duration,
    screen: &mut Screen,
) -> anyhow::Result<Drained> {
    screen.heading("A server is drained: weight 0 under load");
    let service = site.service(Method::Nat, Transport::Tcp, true).context("no such service")?;
    let mut clients = Clients::default();
    let most = u32::try_from(length.as_millis() / PAUSE.as_millis()).unwrap_or(u32::MAX);
    for number in 1..=SESSIONS {
        // Of different lengths, so that they do not end all at once.
        let requests = (most.saturating_mul(number) / SESSIONS).max(1);
        clients.add(
            site.lab.client(),
            service,
            Habit::Sessions { requests, pause: PAUSE },
            TIMEOUT,
        )?;
    }
    clients.add(site.lab.client(), service, Habit::Anew, TIMEOUT)?;
    let mut client = director.client()?;
    let start = Instant::now();
    while start.elapsed() < length {
        thread::sleep(GLANCE);
        let dests = dests(&mut client, service)?;
        screen.progress(|| live(service, &dests, &clients));
    }

    let before = drained(&dests(&mut client, service)?, service)?;
    let edit = service.reweigh(DRAINED, 0).context("no such server")?;
    director.ipvsadm(&edit, "")?;
    screen.line(&format!("$ ipvsadm {edit}"));
    let begin = Instant::now();
    // A packet that was being scheduled meanwhile has been, by the time of an answer.
    let at_edit = drained(&dests(&mut client, service)?, service)?;
    let mut last = at_edit;
    while last.active > 0 && begin.elapsed() < length + PATIENCE {
        thread::sleep(GLANCE);
        let dests = dests(&mut client, service)?;
        last = drained(&dests, service)?;
        screen.progress(|| live(service, &dests, &clients));
    }
    let time = begin.elapsed();
    screen.line("$ ipvsadm -Ln -t 192.0.2.100:80");
    screen.indented(&director.ipvsadm("-Ln -t 192.0.2.100:80", "")?);
    let (answered, failed) = clients.tally().of_part(0);
    let record = clients.finish()?;
    let last = drained(&dests(&mut client, service)?, service)?;
    director.ipvsadm(&service.reweigh(DRAINED, 3).context("no such server")?, "")?;

    // Ended connections stay in the table for longer than this takes, and the
    // statistics are not as fresh.
    let in_table = |dest: &DestStatus| u64::from(dest.active) + u64::from(dest.inactive);
    let new_connections = in_table(&last).saturating_sub(in_table(&at_edit));
    let mut complaints = record.failures;
    if before.active == 0 {
        complaints.push("drain: no connection was active to begin with".to_owned());
    }
    if last.active > 0 {
        complaints.push(format!("drain: {} connections are still active", last.active));
    }
    if new_connections > 0 {
        complaints.push(format!("drain: {new_connections} new connections at weight 0"));
    }
    let name = service.servers.get(DRAINED).map_or("", |(name, _)| name);
    screen.line(&format!(
        "{name} had {} active connections; {:.1} s later {}, and {new_connections} new ones. \
         {answered} requests were answered meanwhile, {failed} failed.",
        before.active,
        time.as_secs_f64(),
        last.active,
    ));
    Ok(Drained {
        active_before: before.active,
        active_after: last.active,
        new_connections,
        time,
        answered,
        failed,
        complaints,
    })
}

/// The service's destinations as the director shows them.
fn dests<T: client::Transport>(
    client: &mut Client<T>,
    service: &Service,
) -> anyhow::Result<Vec<DestStatus>> {
    let (family, addr) = Addr::from_ip(service.vip.ip());
    let key = ServiceKey::address(family, 6, addr, service.vip.port());
    Ok(client.dests(&key)?)
}

fn status_of<'a>(
    dests: &'a [DestStatus],
    service: &Service,
    index: usize,
) -> Option<&'a DestStatus> {
    let (_, real) = service.servers.get(index)?;
    dests.iter().find(|dest| {
        dest.key.addr.to_ip(dest.key.family()) == real.ip() && dest.key.port == real.port()
    })
}

fn drained(dests: &[DestStatus], service: &Service) -> anyhow::Result<DestStatus> {
    status_of(dests, service, DRAINED).copied().context("the drained server is not listed")
}

fn live(service: &Service, dests: &[DestStatus], clients: &Clients) -> String {
    let servers = service.servers.iter().enumerate().filter_map(|(index, (name, _))| {
        let dest = status_of(dests, service, index)?;
        Some(format!("{name} (weight {}): {:>3} active", dest.spec.weight, dest.active))
    });
    let (answered, failed) = clients.tally().of_part(0);
    format!("{}   {answered} answered, {failed} failed", servers.collect::<Vec<_>>().join("  "))
}
