//! The daemon is killed under load, and started again.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::{Value, json};

use super::director::{Director, Kind};
use super::layout::{Method, Site, Transport};
use super::load::{Clients, Habit};
use super::screen::Screen;

/// Between two requests of a connection that is held.
const PAUSE: Duration = Duration::from_millis(20);
/// No answer within this time is a failure.
const TIMEOUT: Duration = Duration::from_secs(3);
/// The same on the plane that stops, where waiting is no use.
const SHORT_TIMEOUT: Duration = Duration::from_millis(500);
/// How often the screen is looked after.
const GLANCE: Duration = Duration::from_millis(50);

/// The stretches of the load: with the daemon, without, with the next one.
const WITH: usize = 0;
const WITHOUT: usize = 1;
const AGAIN: usize = 2;

/// What came of it.
#[derive(Debug)]
pub(super) struct Killed {
    /// Answered and failed requests of each stretch.
    parts: [(u64, u64); 3],
    before: Totals,
    after: Totals,
    adopted: bool,
    /// What went wrong, in words.
    pub(super) complaints: Vec<String>,
}

/// What a daemon knows of its plane.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Totals {
    /// The configuration, as `ipvsadm -Sn` prints it.
    rules: String,
    /// Connections that were scheduled.
    scheduled: u64,
    /// Connections in the table.
    connections: usize,
}

impl Totals {
    fn of(director: &Director) -> anyhow::Result<Self> {
        let mut client = director.client()?;
        let services = client.services()?;
        Ok(Self {
            rules: director.ipvsadm("-Sn", "")?,
            scheduled: services.iter().map(|service| service.counters.conns).sum(),
            connections: client.connections()?.len(),
        })
    }

    fn json(&self) -> Value {
        json!({
            "rules": self.rules.lines().count(),
            "scheduled": self.scheduled,
            "connections": self.connections,
        })
    }
}

impl Killed {
    pub(super) fn json(&self) -> Value {
        let part = |(answered, failed): (u64, u64)| json!({"answered": answered, "failed": failed});
        let [with, without, again] = self.parts.map(part);
        json!({
            "with_daemon": with,
            "without_daemon": without,
            "with_next_daemon": again,
            "before": self.before.json(),
            "after": self.after.json(),
            "adopted": self.adopted,
            "complaints": self.complaints,
        })
    }
}

/// Kills the daemon and starts the next one.
pub(super) fn run(
    site: &Site,
    director: &mut Director,
    length: Duration,
    screen: &mut Screen,
) -> anyhow::Result<Killed> {
    screen.heading("The daemon is killed under load");
    let stays = director.kind == Kind::Bpf;
    if !stays {
        screen.line(
            "On the user-space plane forwarding is the daemon's own work: it stops with it, and \
             connections and rules are lost. (On the eBPF plane nothing of this happens.)",
        );
    }
    let clients = load(site, stays)?;
    watch(&clients, length, "with the daemon", screen);

    let before = Totals::of(director)?;
    let id = director.daemon_id();
    clients.tally().begin_part(WITHOUT);
    director.kill_daemon()?;
    screen.line(&format!("$ kill -9 {id}"));
    let nobody = director.client().err().context("somebody still answers on the socket")?;
    screen.line(&format!("  (nobody answers on the socket: {nobody})"));
    watch(&clients, length, "without a daemon", screen);

    director.start_daemon()?;
    screen.line(&format!("$ ipvs daemon   # process {}", director.daemon_id()));
    let words = director.client()?.status()?.lines.join("\n");
    let adopted = words.contains("adopted");
    screen.indented(&words);
    if !stays {
        director.ipvsadm("-R", &before.rules)?;
        screen.line("$ ipvsadm -R < rules.saved");
    }
    let after = Totals::of(director)?;
    clients.tally().begin_part(AGAIN);
    watch(&clients, length, "with the next daemon", screen);

    let parts = [WITH, WITHOUT, AGAIN].map(|part| clients.tally().of_part(part));
    let record = clients.finish()?;
    let mut killed = Killed { parts, before, after, adopted, complaints: Vec::new() };
    killed.complaints = killed.judge(stays);
    if !killed.complaints.is_empty() {
        killed.complaints.extend(record.failures);
    }
    killed.show(stays, screen);
    Ok(killed)
}

/// New connections by three methods, datagrams, and where they are to survive
/// it, connections that are held all the time.
fn load(site: &Site, held: bool) -> anyhow::Result<Clients> {
    let timeout = if held { TIMEOUT } else { SHORT_TIMEOUT };
    let mut clients = Clients::default();
    for (method, transport, v4) in [
        (Method::Nat, Transport::Tcp, true),
        (Method::DirectRouting, Transport::Tcp, false),
        (Method::Tunnel, Transport::Tcp, true),
        (Method::Nat, Transport::Udp, false),
    ] {
        let service = site.service(method, transport, v4).context("no such service")?;
        clients.add(site.lab.client(), service, Habit::Anew, timeout)?;
        if held && transport == Transport::Tcp {
            let habit = Habit::Sessions { requests: u32::MAX, pause: PAUSE };
            clients.add(site.lab.client(), service, habit, timeout)?;
        }
    }
    Ok(clients)
}

fn watch(clients: &Clients, length: Duration, when: &str, screen: &mut Screen) {
    let start = Instant::now();
    while start.elapsed() < length {
        thread::sleep(GLANCE);
        screen.progress(|| {
            let tally = clients.tally();
            let answered: u64 = tally.answered().iter().sum();
            format!("{when}: {answered} answered, {} failed", tally.failed())
        });
    }
}

impl Killed {
    /// What is not as promised.
    fn judge(&self, stays: bool) -> Vec<String> {
        let [with, without, again] = self.parts;
        let mut complaints = Vec::new();
        let mut claim = |holds: bool, words: String| {
            if !holds {
                complaints.push(format!("kill: {words}"));
            }
        };
        claim(with.0 > 0 && with.1 == 0, format!("{} requests failed with a daemon", with.1));
        claim(again.0 > 0 && again.1 == 0, format!("{} failed with the next daemon", again.1));
        claim(self.before.rules == self.after.rules, "the rules have changed".to_owned());
        if stays {
            claim(without.0 > 0 && without.1 == 0, format!("{} failed without", without.1));
            claim(self.adopted, "the next daemon did not adopt the plane".to_owned());
            let (before, after) = (self.before.scheduled, self.after.scheduled);
            // Not one for each request: a client port that comes round again finds its
            // old connection, which is scheduled anew only when it is over.
            claim(after > before, format!("{after} connections are counted, after {before}"));
            claim(self.after.connections > 0, "no connection is left".to_owned());
        }
        complaints
    }

    fn show(&self, stays: bool, screen: &mut Screen) {
        let [with, without, again] = self.parts;
        for (when, (answered, failed)) in
            [("with the daemon", with), ("without", without), ("with the next", again)]
        {
            screen.line(&format!("{when:<16} {answered:>7} requests answered, {failed} failed"));
        }
        if stays {
            screen.line(&format!(
                "Connections scheduled, by the counters: {} before, {} after; in the table: {} and {}.",
                self.before.scheduled,
                self.after.scheduled,
                self.before.connections,
                self.after.connections,
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Killed {
        let totals = |scheduled| Totals { rules: "-A".to_owned(), scheduled, connections: 10 };
        Killed {
            parts: [(100, 0), (100, 0), (100, 0)],
            before: totals(100),
            after: totals(200),
            adopted: true,
            complaints: Vec::new(),
        }
    }

    #[test]
    fn nothing_may_fail_on_the_plane_that_stays() {
        assert_eq!(good().judge(true), Vec::<String>::new());
        let without = Killed { parts: [(100, 0), (99, 1), (100, 0)], ..good() };
        assert_eq!(without.judge(true).len(), 1);
        assert_eq!(without.judge(false), Vec::<String>::new(), "the other plane stops");
        let still = Killed { parts: [(100, 0), (0, 9), (0, 9)], ..good() };
        assert_eq!(still.judge(false).len(), 1, "the next daemon must serve");
    }

    #[test]
    fn what_the_next_daemon_finds_must_be_what_was_left() {
        let reset = Killed { after: Totals { scheduled: 10, ..good().after }, ..good() };
        assert_eq!(reset.judge(true).len(), 1);
        let empty = Totals { rules: String::new(), ..good().after };
        assert_eq!(Killed { after: empty, ..good() }.judge(true).len(), 1);
        assert_eq!(Killed { adopted: false, ..good() }.judge(true).len(), 1);
    }
}
