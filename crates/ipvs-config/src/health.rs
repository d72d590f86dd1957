//! What the health of destinations makes of a configuration: who of those that are configured
//! gets connections, with which weight.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use ipvs_core::dest::{DestKey, DestSpec};
use ipvs_core::service::ServiceKey;

use crate::check::Check;
use crate::read::{Service, Wanted};
use crate::words;

/// How the destinations of a service are checked, and what follows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Of each destination,
    pub checks: Vec<Check>,
    /// but for those with checks of their own, or with none.
    pub by_dest: Vec<(DestKey, Vec<Check>)>,
    /// What becomes of a destination that is down.
    pub on_failure: OnFailure,
    /// How a destination begins that was not there before.
    pub initial: Initial,
    /// The least weight that destinations which are up have together; 0 is as 1.
    pub quorum: u32,
    /// How much the weight has to be above or below the quorum to gain or lose it.
    pub hysteresis: u32,
    /// How long a destination that comes up takes to get its whole weight; zero for no time.
    pub slow_start: Duration,
    /// Who gets all connections while there is no quorum.
    pub sorry_server: Option<(DestKey, DestSpec)>,
}

/// What becomes of a destination that is down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFailure {
    /// It is taken off the list.
    #[default]
    Remove,
    /// It stays, with weight 0.
    Inhibit,
}

/// How a destination begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Initial {
    /// Without connections, until it has passed its checks.
    #[default]
    Down,
    /// With connections, until it has failed them.
    Up,
}

impl Health {
    /// The checks of a destination.
    pub fn checks_of(&self, dest: &DestKey) -> &[Check] {
        let own = self.by_dest.iter().find(|(key, _)| key == dest);
        own.map_or(&self.checks, |(_, checks)| checks)
    }

    /// Whether nothing is checked and nothing follows.
    pub fn is_none(&self) -> bool {
        self.checks.is_empty() && self.by_dest.iter().all(|(_, checks)| checks.is_empty())
    }
}

/// How a destination that is checked stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Whether it is up.
    pub up: bool,
    /// Which weight it asks for itself.
    pub weight: Weight,
}

/// The weight of a destination that is up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Weight {
    /// As it is configured.
    #[default]
    Configured,
    /// So many percent of that.
    Percent(u32),
    /// This, whatever is configured.
    Exactly(u32),
}

impl Weight {
    /// What it makes of a configured weight.
    pub fn of(self, configured: i32) -> i32 {
        match self {
            Self::Configured => configured,
            Self::Percent(percent) => {
                // What asks for some connections gets some.
                let weight = (i64::from(configured) * i64::from(percent) + 99) / 100;
                i32::try_from(weight).unwrap_or(i32::MAX)
            }
            Self::Exactly(weight) => i32::try_from(weight).unwrap_or(i32::MAX),
        }
    }
}

/// How all destinations stand that are checked, and which services have their quorum.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standings {
    /// Of destinations.
    pub dests: HashMap<(ServiceKey, DestKey), Standing>,
    /// Of services.
    pub quorums: HashMap<ServiceKey, bool>,
    /// Destinations that are drained: one that fails keeps its place, since it is to be drained
    /// still when it passes again.
    pub drained: HashSet<(ServiceKey, DestKey)>,
    /// Destinations that have come up lately, with how many percent of their weight they have
    /// so far.
    pub warming: HashMap<(ServiceKey, DestKey), u32>,
}

impl Standings {
    /// Those of one service.
    #[must_use]
    pub fn of(&self, service: &Service) -> Self {
        let keys = service.dests.iter().map(|(dest, _)| (service.key, *dest));
        let dests = keys.filter_map(|key| Some((key, *self.dests.get(&key)?)));
        let quorum = self.quorums.get(&service.key).map(|has| (service.key, *has));
        let drained = self.drained.iter().filter(|(key, _)| *key == service.key).copied();
        let warming = self.warming.iter().filter(|((key, _), _)| *key == service.key);
        Self {
            dests: dests.collect(),
            quorums: quorum.into_iter().collect(),
            drained: drained.collect(),
            warming: warming.map(|(key, percent)| (*key, *percent)).collect(),
        }
    }
}

/// What is checked, and how it stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Services with checks, as they are configured.
    pub services: HashMap<ServiceKey, Service>,
    /// How they stand.
    pub standings: Standings,
}

/// What runs of a service, as its health has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effective {
    /// The destinations that get connections, or stand by with weight 0.
    pub dests: Vec<(DestKey, DestSpec)>,
    /// Whether there is a quorum.
    pub quorum: bool,
}

/// Whether a destination is believed to be up before it was checked, by the weight that it is
/// configured with and the one with which it runs.
pub fn is_presumed_up(health: &Health, configured: i32, runs_with: Option<i32>) -> bool {
    match runs_with {
        // Who gets connections goes on getting them, and none are what is wanted of some.
        Some(weight) if weight > 0 || configured <= 0 => true,
        // So it is kept while it is down.
        Some(_) if health.on_failure == OnFailure::Inhibit => false,
        _ => health.initial == Initial::Up,
    }
}

/// What shall run of a service. `runs_with` is the weight with which a destination runs now.
pub fn effective(
    service: &Service,
    standings: &Standings,
    runs_with: &dyn Fn(&DestKey) -> Option<i32>,
) -> Effective {
    let health = &service.health;
    if health.is_none() {
        return Effective { dests: service.dests.clone(), quorum: true };
    }
    let standing = |dest: &DestKey, spec: &DestSpec| {
        if health.checks_of(dest).is_empty() {
            return Standing { up: true, weight: Weight::Configured };
        }
        let known = standings.dests.get(&(service.key, *dest)).copied();
        known.unwrap_or_else(|| Standing {
            up: is_presumed_up(health, spec.weight, runs_with(dest)),
            weight: Weight::Configured,
        })
    };
    let standing: Vec<_> = service.dests.iter().map(|(dest, spec)| standing(dest, spec)).collect();
    let all = || service.dests.iter().zip(&standing);
    let weight: u64 = all()
        .filter(|(_, standing)| standing.up)
        .map(|((_, spec), standing)| u64::try_from(standing.weight.of(spec.weight)).unwrap_or(0))
        .sum();
    let (quorum, hysteresis) = (u64::from(health.quorum.max(1)), u64::from(health.hysteresis));
    let has_quorum = match standings.quorums.get(&service.key) {
        Some(true) => weight >= quorum.saturating_sub(hysteresis).max(1),
        Some(false) => weight >= quorum.saturating_add(hysteresis),
        None => weight >= quorum,
    };
    let sorry = health.sorry_server.filter(|_| !has_quorum);
    let mut dests: Vec<_> = sorry.into_iter().collect();
    for ((key, spec), standing) in all() {
        if standing.up && sorry.is_none() {
            let warmth = standings.warming.get(&(service.key, *key));
            let warmth = warmth.map_or(Weight::Configured, |percent| Weight::Percent(*percent));
            let weight = warmth.of(standing.weight.of(spec.weight));
            dests.push((*key, DestSpec { weight, ..*spec }));
        } else if health.on_failure == OnFailure::Inhibit
            || standings.drained.contains(&(service.key, *key))
        {
            dests.push((*key, DestSpec { weight: 0, ..*spec }));
        }
    }
    Effective { dests, quorum: has_quorum }
}

impl Checked {
    /// Those of `services` that are checked, of which nothing is known yet.
    pub fn of(services: &[Service]) -> Self {
        let checked = services.iter().filter(|service| !service.health.is_none());
        let services = checked.map(|service| (service.key, sorted(service.clone()))).collect();
        Self { services, standings: Standings::default() }
    }

    /// The file that says what is checked.
    pub fn file(&self) -> String {
        let services = self.services.values().cloned().collect();
        crate::export(&Wanted { services, ..Wanted::default() })
    }

    /// The service of this key, if it is checked.
    pub fn service(&self, key: &ServiceKey) -> Option<&Service> {
        self.services.get(key)
    }

    /// What is configured of a service whose destinations run as `dests`: what its health has
    /// made of it is undone, and what others have edited stays.
    pub(crate) fn undone(&self, key: &ServiceKey, dests: &mut Vec<(DestKey, DestSpec)>) -> Health {
        let Some(service) = self.service(key) else { return Health::default() };
        let present = dests.clone();
        let runs_with = |dest: &DestKey| {
            present.iter().find(|(other, _)| other == dest).map(|(_, spec)| spec.weight)
        };
        let expected = effective(service, &self.standings, &runs_with).dests;
        let of = |list: &[(DestKey, DestSpec)], dest: &DestKey| {
            list.iter().find(|(other, _)| other == dest).map(|(_, spec)| *spec)
        };
        dests.retain_mut(|(dest, spec)| {
            let is_expected = of(&expected, dest).is_some_and(|it| it.weight == spec.weight);
            match of(&service.dests, dest) {
                Some(configured) if is_expected => spec.weight = configured.weight,
                Some(_) => {}
                // The sorry server has a table of its own.
                None => return !is_expected,
            }
            true
        });
        for (dest, spec) in &service.dests {
            if of(&expected, dest).is_none() && of(dests, dest).is_none() {
                dests.push((*dest, *spec));
            }
        }
        let mut health = service.health.clone();
        health.by_dest.retain(|(dest, _)| of(dests, dest).is_some());
        health
    }
}

/// The same in an order of its own, since that of a file does not count.
fn sorted(mut service: Service) -> Service {
    service.dests.sort_by_cached_key(|(dest, _)| words::dest(dest));
    service.health.by_dest.sort_by_cached_key(|(dest, _)| words::dest(dest));
    service
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three destinations of weight 2 with these keys of the service's health.
    fn service(policy: &str) -> Service {
        let dest =
            |host| format!("[[service.destination]]\naddress = \"10.0.0.{host}\"\nweight = 2\n");
        let text = format!(
            "[[service]]\naddress = \"192.0.2.1\"\nprotocol = \"tcp\"\nport = 80\n\
             [service.sorry_server]\naddress = \"10.0.0.9\"\n[[service.check]]\ntype = \"tcp\"\n\
             [service.health]\n{policy}\n{}{}{}",
            dest(1),
            dest(2),
            dest(3)
        );
        crate::read("f", &text).unwrap().services.remove(0)
    }

    /// What runs, as `HOST:WEIGHT`, while the destinations stand so: `+`, `-` or a percentage in
    /// tens.
    #[track_caller]
    fn check(service: &Service, quorum: Option<bool>, standings: &str, expect: &str) {
        check_drained(service, quorum, standings, None, expect);
    }

    /// The same, while the destination at this place is drained.
    #[track_caller]
    fn check_drained(
        service: &Service,
        quorum: Option<bool>,
        standings: &str,
        drained: Option<usize>,
        expect: &str,
    ) {
        let standing = |sign: char| match sign.to_digit(10) {
            Some(tens) => Standing { up: true, weight: Weight::Percent(tens * 10) },
            None => Standing { up: sign == '+', weight: Weight::Configured },
        };
        let each = service.dests.iter().zip(standings.chars());
        let dests = each.map(|((dest, _), sign)| ((service.key, *dest), standing(sign))).collect();
        let quorums = quorum.into_iter().map(|has| (service.key, has)).collect();
        let drained = drained.and_then(|place| service.dests.get(place));
        let drained = drained.map(|(dest, _)| (service.key, *dest)).into_iter().collect();
        let Effective { dests, quorum } = effective(
            service,
            &Standings { dests, quorums, drained, ..Standings::default() },
            &|_| None,
        );
        let mut said: Vec<_> = dests
            .iter()
            .map(|(dest, spec)| format!("{}:{}", dest.addr.octets()[3], spec.weight))
            .collect();
        said.sort();
        let said = format!("{}{}", if quorum { "" } else { "!" }, said.join(" "));
        assert_eq!(said, expect, "{standings}");
    }

    #[test]
    fn who_comes_up_slowly_has_a_part_of_its_weight_and_counts_wholly_for_the_quorum() {
        let service = service("quorum = 5\nslow_start = \"1m\"");
        assert_eq!(service.health.slow_start, Duration::from_mins(1));
        let mut standings = Standings::default();
        for (dest, _) in &service.dests {
            let up = Standing { up: true, weight: Weight::Configured };
            standings.dests.insert((service.key, *dest), up);
        }
        let mut weights = |percent| {
            let first = service.dests.first().map(|(dest, _)| (service.key, *dest)).unwrap();
            standings.warming.insert(first, percent);
            let shall = effective(&service, &standings, &|_| None);
            assert!(shall.quorum, "{shall:?}");
            shall.dests.iter().map(|(_, spec)| spec.weight).collect::<Vec<_>>()
        };
        assert_eq!([weights(1), weights(51), weights(100)], [[1, 2, 2], [2, 2, 2], [2, 2, 2]]);
    }

    #[test]
    fn who_is_down_while_it_is_drained_keeps_its_place() {
        check_drained(&service(""), None, "+-+", Some(1), "1:2 2:0 3:2");
        check_drained(&service(""), None, "+++", Some(1), "1:2 2:2 3:2");
    }

    #[test]
    fn who_is_down_is_removed_or_has_no_weight() {
        check(&service(""), None, "+-+", "1:2 3:2");
        check(&service("on_failure = \"inhibit\""), None, "+-+", "1:2 2:0 3:2");
    }

    #[test]
    fn without_a_quorum_the_sorry_server_has_all() {
        check(&service(""), None, "---", "!9:1");
        check(&service("quorum = 4"), None, "+--", "!9:1");
        check(&service("quorum = 4\non_failure = \"inhibit\""), None, "+--", "!1:0 2:0 3:0 9:1");
    }

    #[test]
    fn a_quorum_is_lost_and_gained_beyond_its_hysteresis() {
        let service = service("quorum = 4\nhysteresis = 2");
        check(&service, Some(true), "+--", "1:2");
        check(&service, Some(true), "---", "!9:1");
        check(&service, Some(false), "++-", "!9:1");
        check(&service, Some(false), "+++", "1:2 2:2 3:2");
    }

    #[test]
    fn a_weight_may_be_asked_for() {
        check(&service(""), None, "501", "1:1 2:0 3:1");
        check(&service("quorum = 3"), None, "501", "!9:1");
    }

    #[test]
    fn who_runs_when_checks_begin_goes_on_running() {
        let service = service("on_failure = \"inhibit\"");
        let none = Standings::default();
        let weights = |weight| move |_: &DestKey| weight;
        let all = |runs_with: Option<i32>| {
            effective(&service, &none, &weights(runs_with)).dests.iter().map(|it| it.1.weight).max()
        };
        assert_eq!((all(Some(1)), all(Some(0)), all(None)), (Some(2), Some(1), Some(1)));
    }
}
