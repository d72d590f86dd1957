//! The health of destinations, in `ipvs status`.

use std::io::{self, Write};
use std::time::Duration;

use ipvs_config::words;
use ipvs_core::dest::DestKey;
use ipvs_core::service::ServiceKey;
use ipvs_core::snapshot::AsksFor;
use ipvs_netlink::health::{Check, Health, Standing};
use serde_json::{Value, json};

/// Services that are checked, by name, each with its quorum and its destinations.
fn services(health: &Health) -> Vec<(String, ServiceKey, bool, Vec<&Standing>)> {
    let mut services: Vec<_> = health
        .quorums
        .iter()
        .map(|(key, has)| {
            let standings = health.standings.iter().filter(|it| it.service == *key);
            let mut dests: Vec<_> = standings.collect();
            dests.sort_by_cached_key(|it| words::dest(&it.dest));
            (words::service(key), *key, *has, dests)
        })
        .collect();
    services.sort_by(|(a, ..), (b, ..)| a.cmp(b));
    services
}

fn checks<'h>(health: &'h Health, of: &'h Standing) -> impl Iterator<Item = &'h Check> {
    health.checks.iter().filter(|it| it.service == of.service && it.dest == of.dest)
}

/// How many percent of its weight a destination has that has come up lately.
fn warmth(health: &Health, of: &Standing) -> Option<u32> {
    let ours = |it: &&(ServiceKey, DestKey, u32)| (it.0, it.1) == (of.service, of.dest);
    health.warming.iter().find(ours).map(|it| it.2)
}

/// Writes a line for each service, destination and check.
pub(super) fn as_text(out: &mut dyn Write, health: &Health) -> io::Result<()> {
    let services = services(health);
    if !services.is_empty() {
        writeln!(out, "health:")?;
    }
    for (name, _, has_quorum, dests) in services {
        let up = dests.iter().filter(|it| it.up).count();
        let quorum = if has_quorum { "" } else { ", no quorum" };
        writeln!(out, "  {name}: {up} of {} checked destinations are up{quorum}", dests.len())?;
        for it in dests {
            let state = if it.up { "up" } else { "down" };
            let asks = match it.asks {
                None => String::new(),
                Some(AsksFor::Percent(percent)) => format!(", asks for {percent} % of its weight"),
                Some(AsksFor::Weight(weight)) => format!(", asks for weight {weight}"),
            };
            let warmth = match warmth(health, it) {
                Some(percent) => format!(", starts with {percent} % of its weight"),
                None => String::new(),
            };
            writeln!(out, "    {:<24} {state}{asks}{warmth}", words::dest(&it.dest))?;
            for check in checks(health, it) {
                writeln!(out, "      {}", line(check))?;
            }
        }
    }
    Ok(())
}

/// `http /health: down for 12 s; 2 s ago: refused: nobody listens (0.3 ms); 7 of 9 passed`.
fn line(it: &Check) -> String {
    if it.outcome.is_empty() {
        return format!("{}: not checked yet", it.check);
    }
    let since = it.since.map(|millis| format!(" for {}", age(millis))).unwrap_or_default();
    let took = Duration::from_micros(it.took);
    format!(
        "{}: {}{since}; {} ago: {} ({took:.1?}); {} of {} passed",
        it.check,
        it.state,
        age(it.age),
        it.outcome,
        it.passes,
        it.passes + it.failures
    )
}

fn age(millis: u64) -> String {
    match millis / 1000 {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3600),
    }
}

/// The same as a list of services.
pub(super) fn as_json(health: &Health) -> Value {
    let service = |(name, _, has_quorum, dests): (String, ServiceKey, bool, Vec<&Standing>)| {
        let dests: Vec<_> = dests.into_iter().map(|it| dest(health, it)).collect();
        json!({ "service": name, "quorum": has_quorum, "destinations": dests })
    };
    services(health).into_iter().map(service).collect()
}

fn dest(health: &Health, it: &Standing) -> Value {
    let check = |it: &Check| {
        json!({
            "check": it.check,
            "state": it.state,
            "since_ms": it.since,
            "last": if it.outcome.is_empty() { Value::Null } else { it.outcome.as_str().into() },
            "last_age_ms": it.age,
            "latency_us": it.took,
            "passes": it.passes,
            "failures": it.failures,
        })
    };
    let (percent, weight) = match it.asks {
        None => (None, None),
        Some(AsksFor::Percent(percent)) => (Some(percent), None),
        Some(AsksFor::Weight(weight)) => (None, Some(weight)),
    };
    json!({
        "destination": words::dest(&it.dest),
        "up": it.up,
        "asks_for_percent": percent,
        "asks_for_weight": weight,
        "warmth_percent": warmth(health, it),
        "checks": checks(health, it).map(check).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use ipvs_core::addr::{Addr, Family};

    use super::*;

    fn health() -> Health {
        let service = ServiceKey::address(Family::V4, 6, Addr::v4([192, 0, 2, 10]), 80);
        let dest = DestKey::new(Family::V4, Addr::v4([10, 1, 0, 11]), 8080);
        let check = Check {
            service,
            dest,
            check: "http /health".to_owned(),
            state: "down".to_owned(),
            since: Some(12_345),
            outcome: "refused: nobody listens".to_owned(),
            age: 2_100,
            took: 345,
            passes: 7,
            failures: 2,
        };
        Health {
            quorums: vec![(service, false)],
            standings: vec![Standing { service, dest, up: false, asks: None }],
            checks: vec![check],
            ..Health::default()
        }
    }

    #[test]
    fn a_destination_that_is_down_stands_there_with_the_reason() {
        let mut out = Vec::new();
        as_text(&mut out, &health()).unwrap();
        let expect = "health:\n  tcp 192.0.2.10:80: 0 of 1 checked destinations are up, no quorum\n    \
            10.1.0.11:8080           down\n      http /health: down for 12 s; 2 s ago: \
            refused: nobody listens (345.0µs); 7 of 9 passed\n";
        assert_eq!(String::from_utf8(out).unwrap(), expect);
    }

    #[test]
    fn as_json_it_is_by_service_destination_and_check() {
        let service = &as_json(&health())[0];
        assert_eq!(service["quorum"], false);
        let check = &service["destinations"][0]["checks"][0];
        assert_eq!(
            (&check["last"], &check["latency_us"]),
            (&json!("refused: nobody listens"), &json!(345))
        );
    }
}
