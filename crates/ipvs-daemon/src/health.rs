//! The health of destinations, and what follows from it.
//!
//! A thread of its own makes the checks ([`ipvs_health`]); here it is remembered what they have
//! found, and told what has to be edited. After the daemon has died the plane itself says who is
//! down: who runs with weight 0, or not at all, gets no connections before a check has passed.

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::{Instant, SystemTime};

use ipvs_config::health::{Checked, Standing, Standings, Weight, effective, is_presumed_up};
use ipvs_config::{Service, words};
use ipvs_core::command::Command;
use ipvs_core::dest::{DestKey, DestSpec};
use ipvs_core::service::ServiceKey;
use ipvs_core::snapshot::{self, AsksFor, CheckStatus};
use ipvs_health::{Checks, Record, Target, TargetKey};

/// Destinations that are named as being down; of others it is said how many.
const MOST_NAMED: usize = 10;

/// Destinations with the weights that they run with.
pub(crate) type Weights = HashMap<(ServiceKey, DestKey), i32>;

/// What is called for a check: with its words, whether it is up, and its record.
type EachCheck<'e> = dyn FnMut(TargetKey, &str, bool, Option<&Record>) + 'e;

/// What is checked, and how it stands.
#[derive(Debug, Default)]
pub(crate) struct Health {
    checked: Checked,
    /// How each check stands.
    stands: HashMap<TargetKey, Standing>,
    /// While something is checked.
    checks: Option<Checks>,
    /// Services that have to be looked at again: an edit was refused.
    unsettled: HashSet<ServiceKey>,
    /// Services whose drains were edited, or that have a destination which may have more of its
    /// weight by now: they have to be looked at, too.
    touched: HashSet<ServiceKey>,
    /// Since when destinations are up that have come up lately.
    warming: HashMap<(ServiceKey, DestKey), Instant>,
}

impl Health {
    /// What is checked, and how it stands.
    pub(crate) const fn checked(&self) -> &Checked {
        &self.checked
    }

    /// What is readable when something has been found.
    pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.checks.as_ref().map(|checks| checks.as_fd())
    }

    /// Checks these services from now on, which run already; whether that is another thing than
    /// before. What has not changed goes on as it stands.
    pub(crate) fn set(&mut self, checked: Checked, weights: &Weights) -> bool {
        if checked.services == self.checked.services {
            return false;
        }
        let mut targets = Vec::new();
        for service in checked.services.values() {
            for (dest, spec) in &service.dests {
                let known = self.checked.standings.dests.get(&(service.key, *dest));
                let runs_with = weights.get(&(service.key, *dest)).copied();
                let presumed_up = known.map_or_else(
                    || is_presumed_up(&service.health, spec.weight, runs_with),
                    |known| known.up,
                );
                for (position, check) in service.health.checks_of(dest).iter().enumerate() {
                    let key = TargetKey { service: service.key, dest: *dest, position };
                    targets.push(Target { key, check: check.clone(), presumed_up });
                }
            }
        }
        let unchanged = |target: &Target| {
            let before = self.checked.service(&target.key.service);
            let before = before.map(|service| service.health.checks_of(&target.key.dest));
            before.and_then(|checks| checks.get(target.key.position)) == Some(&target.check)
        };
        let stands = targets.iter().map(|target| {
            let before = self.stands.get(&target.key).filter(|_| unchanged(target));
            let presumed = Standing { up: target.presumed_up, weight: Weight::Configured };
            (target.key, before.copied().unwrap_or(presumed))
        });
        self.stands = stands.collect();
        let Standings { quorums, warming, .. } = std::mem::take(&mut self.checked.standings);
        self.checked = checked;
        self.checked.standings.quorums = quorums;
        self.checked.standings.warming = warming;
        self.unsettled.clear();
        let Checked { services, standings } = &mut self.checked;
        standings.quorums.retain(|key, _| services.contains_key(key));
        for key in services.keys().copied().collect::<Vec<_>>() {
            self.stand(&key);
        }
        if targets.is_empty() {
            self.checks = None;
        } else {
            self.start();
        }
        if let Some(checks) = &self.checks {
            checks.set(targets);
        }
        true
    }

    fn start(&mut self) {
        if self.checks.is_none() {
            match Checks::start() {
                Ok(checks) => self.checks = Some(checks),
                Err(error) => tracing::error!(%error, "nothing can be checked"),
            }
        }
    }

    /// Takes what the checks have found; the services that it is about, and whether edits of
    /// theirs were refused before.
    pub(crate) fn turned(&mut self) -> Vec<(ServiceKey, bool)> {
        let refused = std::mem::take(&mut self.unsettled);
        let mut services = std::mem::take(&mut self.touched);
        services.extend(&refused);
        let turns = self.checks.as_ref().map(Checks::turns).unwrap_or_default();
        for turn in turns {
            if let Some(stands) = self.stands.get_mut(&turn.key) {
                *stands = Standing { up: turn.up, weight: turn.weight };
                services.insert(turn.key.service);
            }
        }
        services.into_iter().map(|key| (key, refused.contains(&key))).collect()
    }

    /// Remembers how a service and its destinations stand, by its checks.
    fn stand(&mut self, key: &ServiceKey) {
        let Checked { services, standings } = &mut self.checked;
        let Some(service) = services.get(key) else { return };
        for (dest, _) in &service.dests {
            let checks = service.health.checks_of(dest).len();
            let each = || {
                (0..checks).filter_map(|position| {
                    self.stands.get(&TargetKey { service: *key, dest: *dest, position })
                })
            };
            if checks > 0 {
                let asked = each().map(|it| it.weight).find(|it| *it != Weight::Configured);
                let weight = asked.unwrap_or_default();
                let standing = Standing { up: each().all(|it| it.up), weight };
                standings.dests.insert((*key, *dest), standing);
            }
        }
        let quorum = effective(service, standings, &|_| None).quorum;
        standings.quorums.insert(*key, quorum);
    }

    /// What has to be edited of a service whose destinations run as `present`; it counts as done,
    /// unless it was `refused` before.
    pub(crate) fn edits(
        &mut self,
        key: &ServiceKey,
        refused: bool,
        present: &[(DestKey, DestSpec)],
    ) -> Vec<Command> {
        let Some(service) = self.checked.service(key).cloned() else { return Vec::new() };
        let before = self.checked.standings.of(&service);
        let was = effective(&service, &before, &|_| None);
        self.stand(key);
        self.warm(&service, &before);
        let after = &self.checked.standings;
        let shall = effective(&service, after, &|_| None);
        self.tell_changes(&service, &before);
        let of = |list: &[(DestKey, DestSpec)], dest: &DestKey| {
            list.iter().find(|(other, _)| other == dest).map(|(_, spec)| *spec)
        };
        let (mut gone, mut edits) = (Vec::new(), Vec::new());
        let sorry = service.health.sorry_server.iter();
        for (dest, _) in service.dests.iter().chain(sorry) {
            match (of(present, dest), of(&shall.dests, dest)) {
                (Some(_), None) => gone.push(Command::DeleteDest(*key, *dest)),
                (Some(runs), Some(shall)) if runs.weight != shall.weight => {
                    // What else somebody has edited stays.
                    let spec = DestSpec { weight: shall.weight, ..runs };
                    edits.push(Command::EditDest(*key, *dest, spec));
                }
                // Unless somebody has deleted it.
                (None, Some(shall)) if refused || of(&was.dests, dest).is_none() => {
                    edits.push(Command::AddDest(*key, *dest, shall));
                }
                _ => {}
            }
        }
        gone.extend(edits);
        gone
    }

    /// Has destinations that come up begin with a small part of their weight, if the service
    /// wants that.
    fn warm(&mut self, service: &Service, before: &Standings) {
        let Standings { dests, warming, .. } = &mut self.checked.standings;
        for (dest, _) in &service.dests {
            let key = (service.key, *dest);
            let is_up = |in_these: &HashMap<_, Standing>| in_these.get(&key).map(|it| it.up);
            match (is_up(&before.dests), is_up(dests)) {
                (Some(false), Some(true)) if !service.health.slow_start.is_zero() => {
                    self.warming.insert(key, Instant::now());
                    warming.insert(key, 1);
                }
                (_, Some(true)) => {}
                _ => {
                    self.warming.remove(&key);
                    warming.remove(&key);
                }
            }
        }
    }

    /// Gives destinations that have come up lately what they have of their weight by now.
    pub(crate) fn go_on_warming(&mut self, now: Instant) {
        let Checked { services, standings } = &mut self.checked;
        self.warming.retain(|key, since| {
            let slow = services.get(&key.0).map(|service| service.health.slow_start);
            let passed = now.saturating_duration_since(*since).as_millis() * 100;
            let percent = passed.checked_div(slow.unwrap_or_default().as_millis());
            let percent = percent.and_then(|it| u32::try_from(it).ok()).unwrap_or(100);
            self.touched.insert(key.0);
            if percent >= 100 {
                standings.warming.remove(key);
                return false;
            }
            standings.warming.insert(*key, percent.max(1));
            true
        });
    }

    /// Tells the log who has gone up and down.
    fn tell_changes(&self, service: &Service, before: &Standings) {
        let (key, name) = (service.key, words::service(&service.key));
        let after = &self.checked.standings;
        for (dest, _) in &service.dests {
            let up = |standings: &Standings| {
                standings.dests.get(&(key, *dest)).map(|standing| standing.up)
            };
            let (dest_name, why) = (words::dest(dest), self.why(&key, dest));
            match (up(before), up(after)) {
                (Some(false), Some(true)) => tracing::info!("{dest_name} of {name} is up"),
                (Some(true), Some(false)) => tracing::warn!("{dest_name} of {name} is down: {why}"),
                _ => {}
            }
        }
        match (before.quorums.get(&key), after.quorums.get(&key)) {
            (Some(true), Some(false)) => tracing::warn!("{name} has lost its quorum"),
            (Some(false), Some(true)) => tracing::info!("{name} has its quorum"),
            _ => {}
        }
    }

    /// Why a destination is down.
    fn why(&self, service: &ServiceKey, dest: &DestKey) -> String {
        let checks = self.checked.service(service).map(|it| it.health.checks_of(dest));
        let table = self.checks.as_ref().map(|checks| checks.table().lock());
        let said = checks.unwrap_or_default().iter().enumerate().filter_map(|(position, check)| {
            let key = TargetKey { service: *service, dest: *dest, position };
            if self.stands.get(&key).is_none_or(|it| it.up) {
                return None;
            }
            let record = table.as_ref().and_then(|table| table.get(&key));
            Some(format!("{}: {}", check.words(), outcome(record)))
        });
        said.collect::<Vec<_>>().join("; ")
    }

    /// Takes note of the destinations that are drained.
    pub(crate) fn see_drains(&mut self, drained: HashSet<(ServiceKey, DestKey)>) {
        self.checked.standings.drained = drained;
    }

    /// Has a service looked at again: its edits were refused.
    pub(crate) fn unsettled(&mut self, key: ServiceKey) {
        self.unsettled.insert(key);
    }

    /// Has a service looked at: one of its drains began or ended. What fails its checks is
    /// kept while it is drained, and not any longer.
    pub(crate) fn drained(&mut self, key: ServiceKey) {
        self.touched.insert(key);
    }

    /// Whether services have to be looked at again.
    pub(crate) fn is_unsettled(&self) -> bool {
        !self.unsettled.is_empty() || !self.touched.is_empty()
    }

    /// Calls `each` with everything that is wrong.
    pub(crate) fn problems(&self, each: &mut dyn FnMut(&str)) {
        let standings = self.checked.standings.dests.iter().filter(|(_, standing)| !standing.up);
        let mut down: Vec<_> = standings
            .map(|(key, _)| (format!("{} of {}", words::dest(&key.1), words::service(&key.0)), key))
            .collect();
        down.sort_by(|(a, _), (b, _)| a.cmp(b));
        for (name, (service, dest)) in down.iter().take(MOST_NAMED) {
            each(&format!("{name} is down: {}", self.why(service, dest)));
        }
        if let more @ 1.. = down.len().saturating_sub(MOST_NAMED) {
            each(&format!("{more} more destinations are down"));
        }
        let mut lost: Vec<_> =
            self.checked.standings.quorums.iter().filter(|(_, has)| !**has).collect();
        lost.sort_by_key(|(key, _)| words::service(key));
        for (key, _) in lost {
            let sorry = self.checked.service(key).and_then(|service| service.health.sorry_server);
            let who = sorry.map_or_else(
                || "there is no sorry server".to_owned(),
                |(dest, _)| format!("the sorry server {} has its connections", words::dest(&dest)),
            );
            each(&format!("{} has no quorum; {who}", words::service(key)));
        }
    }

    /// Calls `each` for all that is known.
    pub(crate) fn tell(&self, each: &mut dyn FnMut(snapshot::Health<'_>)) {
        if self.checked.services.is_empty() {
            return;
        }
        each(snapshot::Health::Checks(&self.checked.file()));
        for (key, has) in &self.checked.standings.quorums {
            each(snapshot::Health::Quorum(*key, *has));
        }
        for ((service, dest), standing) in &self.checked.standings.dests {
            let asks = match standing.weight {
                Weight::Configured => None,
                Weight::Percent(percent) => Some(AsksFor::Percent(percent)),
                Weight::Exactly(weight) => Some(AsksFor::Weight(weight)),
            };
            let (service, dest) = (*service, *dest);
            each(snapshot::Health::Standing { service, dest, up: standing.up, asks });
        }
        for ((service, dest), percent) in &self.checked.standings.warming {
            let (service, dest, percent) = (*service, *dest, *percent);
            each(snapshot::Health::Warming { service, dest, percent });
        }
        let now = SystemTime::now();
        self.each_check(&mut |key, words, up, record| {
            let status = status(key, words, up, record, now);
            let outcome = outcome(record);
            let outcome = if record.is_some_and(|it| it.last.is_some()) { &outcome } else { "" };
            each(snapshot::Health::Check(CheckStatus { outcome, ..status }));
        });
    }

    /// Calls `each` for every check.
    pub(crate) fn each_check(&self, each: &mut EachCheck<'_>) {
        let table = self.checks.as_ref().map(|checks| checks.table().lock());
        let mut services: Vec<_> = self.checked.services.values().collect();
        services.sort_by_cached_key(|service| words::service(&service.key));
        for service in services {
            for (dest, _) in &service.dests {
                let mut said = Vec::new();
                for (position, check) in service.health.checks_of(dest).iter().enumerate() {
                    let key = TargetKey { service: service.key, dest: *dest, position };
                    let up = self.stands.get(&key).is_some_and(|it| it.up);
                    let mut words = check.words();
                    // What differs in the answer only is told apart by its number.
                    if said.contains(&words) {
                        words = format!("{words} #{}", position + 1);
                    }
                    each(key, &words, up, table.as_ref().and_then(|table| table.get(&key)));
                    said.push(words);
                }
            }
        }
    }
}

fn outcome(record: Option<&Record>) -> String {
    match record.and_then(|record| record.last.as_ref()).map(|last| &last.outcome) {
        None => "not checked yet".into(),
        Some(Ok(())) => "passed".into(),
        Some(Err(failure)) => failure.to_string(),
    }
}

fn status<'a>(
    key: TargetKey,
    check: &'a str,
    up: bool,
    record: Option<&Record>,
    now: SystemTime,
) -> CheckStatus<'a> {
    let millis = |at: SystemTime| {
        let passed = now.duration_since(at).unwrap_or_default().as_millis();
        u64::try_from(passed).unwrap_or(u64::MAX)
    };
    let last = record.and_then(|record| record.last.as_ref());
    let results = record.map_or([0; 7], |record| record.results);
    let passes = results.first().copied().unwrap_or(0);
    CheckStatus {
        service: key.service,
        dest: key.dest,
        check,
        state: match record {
            _ if last.is_none() => "unchecked",
            Some(record) if record.state.is_held() => "held",
            _ if up => "up",
            _ => "down",
        },
        since: record.and_then(|record| record.since).map(millis),
        outcome: "",
        age: last.map_or(0, |last| millis(last.at)),
        took: last.map_or(0, |last| u64::try_from(last.took.as_micros()).unwrap_or(u64::MAX)),
        passes,
        failures: results.iter().sum::<u64>() - passes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A service with one destination, which is down, and nobody who checks it.
    fn health(policy: &str) -> (Health, ServiceKey, DestKey) {
        let text = format!(
            "[[service]]\naddress = \"192.0.2.1\"\nprotocol = \"tcp\"\nport = 80\n\
             [[service.check]]\ntype = \"tcp\"\n[service.health]\n{policy}\n\
             [[service.destination]]\naddress = \"10.0.0.1\"\nweight = 3\n"
        );
        let checked = Checked::of(&ipvs_config::read("f", &text).unwrap().services);
        let service = checked.services.values().next().unwrap();
        let (key, dest) = (service.key, service.dests[0].0);
        let mut health = Health { checked, ..Health::default() };
        turn(&mut health, key, dest, false);
        health.stand(&key);
        (health, key, dest)
    }

    fn turn(health: &mut Health, service: ServiceKey, dest: DestKey, up: bool) {
        let key = TargetKey { service, dest, position: 0 };
        health.stands.insert(key, Standing { up, weight: Weight::Configured });
    }

    #[test]
    fn who_is_up_is_added_once_and_again_if_that_was_refused() {
        let (mut health, key, dest) = health("");
        turn(&mut health, key, dest, true);
        let [Command::AddDest(_, added, spec)] = health.edits(&key, false, &[])[..] else {
            panic!("it is not added");
        };
        assert_eq!((added, spec.weight), (dest, 3));
        assert_eq!(health.edits(&key, false, &[]), [], "somebody has deleted it");
        assert_eq!(health.edits(&key, true, &[]).len(), 1, "nobody had let it be added");
        assert_eq!(health.edits(&key, false, &[(dest, spec)]), []);
    }

    #[test]
    fn of_what_somebody_has_edited_only_the_weight_is_changed() {
        let (mut health, key, dest) = health("on_failure = \"inhibit\"");
        let spec = health.checked.services[&key].dests[0].1;
        let edited = DestSpec { weight: 0, upper: 9, ..spec };
        turn(&mut health, key, dest, true);
        let edits = health.edits(&key, false, &[(dest, edited)]);
        assert_eq!(edits, [Command::EditDest(key, dest, DestSpec { weight: 3, ..edited })]);
    }
}
