//! What a file says of checks, and of what follows from them.

use std::ops::Range;
use std::time::Duration;

use ipvs_core::addr::Family;
use ipvs_core::dest::{DestKey, DestSpec};
use ipvs_core::service::ServiceKey;
use toml::Spanned;

use crate::check::{Check, Dampening, Timing};
use crate::error::Mistake;
use crate::file;
use crate::health::{Health, Initial, OnFailure};
use crate::read::{Read, choice, dest, ip, wrong};
use crate::read_kind;

/// The longest time in a check.
const LONGEST: Duration = Duration::from_hours(24);
/// The most results in a row that are waited for, and falls that are remembered.
const MOST: u32 = 1000;

/// The health of a service with these destinations.
pub(crate) fn health(
    key: &ServiceKey,
    service: &file::Service,
    dests: &[(DestKey, DestSpec)],
) -> Read<Health> {
    let mut health = Health { checks: checks(&service.check)?, ..Health::default() };
    for (given, (key, _)) in service.destination.iter().zip(dests) {
        if let Some(own) = &given.get_ref().check {
            health.by_dest.push((*key, checks(own)?));
        }
    }
    for (given, (key, _)) in service.destination.iter().zip(dests) {
        let checks = health.checks_of(key);
        if key.port == 0 && checks.iter().any(|check| check.port.is_none()) {
            return wrong(given, "the destination has no port, so its checks need one");
        }
        let is_v4 = key.family() == Family::V4;
        let at_v4 = |check: &Check| check.address.map_or(is_v4, |address| address.is_ipv4());
        if checks.iter().any(|it| it.source.is_some_and(|source| source.is_ipv4() != at_v4(it))) {
            return wrong(given, "a check of this has a source of another family");
        }
    }
    if let Some(given) = &service.sorry_server {
        if given.get_ref().check.is_some() {
            return wrong(given, "a sorry server is not checked");
        }
        let sorry = dest(key, given)?;
        if dests.iter().any(|(other, _)| *other == sorry.0) {
            return wrong(given, "the sorry server is a destination already");
        }
        health.sorry_server = Some(sorry);
    }
    if let Some(given) = &service.health {
        policy(&mut health, given.get_ref())?;
    }
    if health.is_none() {
        if let Some(given) = &service.sorry_server {
            return wrong(given, "a sorry server needs checks: without any it is never needed");
        }
        if let Some(given) = &service.health {
            return wrong(given, "this needs checks, of which the service has none");
        }
        // Nothing at all is one thing.
        return Ok(Health::default());
    }
    Ok(health)
}

fn policy(health: &mut Health, given: &file::Health) -> Read<()> {
    if let Some(name) = &given.on_failure {
        let names = [("remove", OnFailure::Remove), ("inhibit", OnFailure::Inhibit)];
        health.on_failure = choice("consequence", name, &names)?;
    }
    if let Some(name) = &given.initial {
        let names = [("down", Initial::Down), ("up", Initial::Up)];
        health.initial = choice("beginning", name, &names)?;
    }
    if let Some(quorum) = &given.quorum {
        health.quorum = *quorum.get_ref();
        if health.quorum == 0 {
            return wrong(quorum, "a quorum is a weight of at least 1");
        }
    }
    if let Some(hysteresis) = &given.hysteresis {
        health.hysteresis = *hysteresis.get_ref();
        if health.hysteresis >= health.quorum.max(1) {
            return wrong(hysteresis, "the hysteresis is not below the quorum");
        }
    }
    if let Some(given) = &given.slow_start {
        health.slow_start = time(given, Duration::from_secs(1))?;
    }
    Ok(())
}

fn checks(given: &[Spanned<file::Check>]) -> Read<Vec<Check>> {
    let mut checks = Vec::new();
    for given in given {
        let next = check(given)?;
        if checks.contains(&next) {
            return wrong(given, "this check is there already");
        }
        checks.push(next);
    }
    Ok(checks)
}

/// Where a key is given, by its name, and the types of checks that have it.
type Key = (&'static str, Option<Range<usize>>, &'static [&'static str]);

/// Types of checks.
const TYPES: [&str; 10] =
    ["tcp", "http", "https", "tls", "dns", "udp", "smtp", "grpc", "agent", "exec"];

const HTTP: &[&str] = &["http", "https"];
const TLS: &[&str] = &["https", "tls", "grpc"];
const UDP: &[&str] = &["udp"];
const DNS: &[&str] = &["dns"];
const EXEC: &[&str] = &["exec"];

fn special_keys(it: &file::Check) -> [Key; 26] {
    let text = |given: &Option<Spanned<String>>| given.as_ref().map(Spanned::span);
    let flag = |given: &Option<Spanned<bool>>| given.as_ref().map(Spanned::span);
    [
        ("method", text(&it.method), HTTP),
        ("path", text(&it.path), HTTP),
        ("host", text(&it.host), HTTP),
        ("status", it.status.as_ref().map(Spanned::span), HTTP),
        ("body", text(&it.body), HTTP),
        ("sni", text(&it.sni), TLS),
        ("verify", flag(&it.verify), TLS),
        ("ca_file", text(&it.ca_file), TLS),
        ("days", it.days.as_ref().map(Spanned::span), &["tls"]),
        ("name", text(&it.name), DNS),
        ("record", text(&it.record), DNS),
        ("rcode", text(&it.rcode), DNS),
        ("answer", text(&it.answer), DNS),
        ("payload", text(&it.payload), UDP),
        ("payload_hex", text(&it.payload_hex), UDP),
        ("require_reply", flag(&it.require_reply), UDP),
        ("reply", text(&it.reply), UDP),
        ("reply_hex", text(&it.reply_hex), UDP),
        ("helo", text(&it.helo), &["smtp"]),
        ("service", text(&it.service), &["grpc"]),
        ("tls", flag(&it.tls), &["grpc"]),
        ("send", text(&it.send), &["agent"]),
        ("command", it.command.as_ref().map(Spanned::span), EXEC),
        ("user", text(&it.user), EXEC),
        ("group", text(&it.group), EXEC),
        ("dynamic", flag(&it.dynamic), EXEC),
    ]
}

fn check(given: &Spanned<file::Check>) -> Read<Check> {
    let it = given.get_ref();
    let name = choice("type of check", &it.r#type, &TYPES.map(|name| (name, name)))?;
    for (key, span, types) in special_keys(it) {
        if let Some(span) = span.filter(|_| !types.contains(&name)) {
            return Err(Mistake::new(span, format!("a check of type `{name}` has no `{key}`")));
        }
    }
    if let Some(port) = it.port.as_ref().filter(|port| *port.get_ref() == 0) {
        return wrong(port, "a port is not 0");
    }
    let ip_of = |given: &Option<Spanned<String>>| {
        given.as_ref().map(|given| ip(given).map(|(family, addr)| addr.to_ip(family))).transpose()
    };
    Ok(Check {
        kind: read_kind::kind(name, given)?,
        address: ip_of(&it.address)?,
        port: it.port.as_ref().map(|port| *port.get_ref()),
        source: ip_of(&it.source)?,
        mark: it.mark.as_ref().map_or(0, |mark| *mark.get_ref()),
        timing: timing(it)?,
    })
}

fn timing(it: &file::Check) -> Read<Timing> {
    let default = Timing::default();
    let time_or = |given: &Option<Spanned<String>>, least: u64, default| match given {
        None => Ok(default),
        Some(given) => time(given, Duration::from_millis(least)),
    };
    let count = |given: &Option<Spanned<u32>>, default| match given {
        None => Ok(default),
        Some(given) if (1..=MOST).contains(given.get_ref()) => Ok(*given.get_ref()),
        Some(given) => wrong(given, format!("this is from 1 to {MOST}")),
    };
    let interval = time_or(&it.interval, 100, default.interval)?;
    let jitter = match &it.jitter {
        Some(given) if *given.get_ref() > 50 => {
            return wrong(given, "the jitter is from 0 to 50 percent of the interval");
        }
        Some(given) => *given.get_ref(),
        None => default.jitter,
    };
    let dampening = match it.dampening.as_ref().map(Spanned::get_ref) {
        None => None,
        Some(file::Dampening { falls, within, hold }) => Some(Dampening {
            falls: count(&Some(falls.clone()), 1)?,
            within: time(within, Duration::from_secs(1))?,
            hold: time(hold, Duration::from_secs(1))?,
        }),
    };
    Ok(Timing {
        interval,
        retry_interval: time_or(&it.retry_interval, 100, default.retry_interval.min(interval))?,
        timeout: time_or(&it.timeout, 10, default.timeout)?,
        delay: time_or(&it.delay, 0, default.delay)?,
        jitter,
        rise: count(&it.rise, default.rise)?,
        fall: count(&it.fall, default.fall)?,
        dampening,
    })
}

/// A time with its unit.
fn time(given: &Spanned<String>, least: Duration) -> Read<Duration> {
    let text = given.get_ref();
    let units = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)];
    let number = |(unit, millis): (&str, u64)| {
        text.strip_suffix(unit)?.parse::<u64>().ok()?.checked_mul(millis)
    };
    match units.into_iter().find_map(number).map(Duration::from_millis) {
        Some(time) if (least..=LONGEST).contains(&time) => Ok(time),
        Some(_) => wrong(given, format!("this is from {}ms to 24h", least.as_millis())),
        None => wrong(given, format!("`{text}` is no time with its unit, as 500ms, 5s, 1m or 1h")),
    }
}
