//! Checks, and what follows from them, as a file that says them.

use std::time::Duration;

use ipvs_core::dest::DestKey;
use ipvs_core::service::ServiceKey;

use crate::check::{Check, CheckKind, Dns, Exec, Expected, Http, Timing, Tls, Udp};
use crate::export::{dest_table, head, line, quoted};
use crate::health::{Health, Initial, OnFailure};

/// What stands at a service.
pub(crate) fn service_tables(text: &mut String, service: &ServiceKey, health: &Health) {
    let mut keys = Vec::new();
    if health.on_failure == OnFailure::Inhibit {
        keys.push(("on_failure", quoted("inhibit")));
    }
    if health.initial == Initial::Up {
        keys.push(("initial", quoted("up")));
    }
    for (key, number) in [("quorum", health.quorum), ("hysteresis", health.hysteresis)] {
        if number != 0 {
            keys.push((key, number.to_string()));
        }
    }
    if !health.slow_start.is_zero() {
        keys.push(("slow_start", quoted(&time(health.slow_start))));
    }
    if !keys.is_empty() {
        head(text, "[service.health]");
    }
    for (key, value) in keys {
        line(text, key, value);
    }
    for it in &health.checks {
        head(text, "[[service.check]]");
        check(text, it);
    }
    if let Some((dest, spec)) = &health.sorry_server {
        dest_table(text, "[service.sorry_server]", service, dest, spec);
    }
}

/// What stands at a destination.
pub(crate) fn dest_tables(text: &mut String, health: &Health, dest: &DestKey) {
    let Some((_, own)) = health.by_dest.iter().find(|(key, _)| key == dest) else { return };
    if own.is_empty() {
        line(text, "check", "[]");
    }
    for it in own {
        head(text, "[[service.destination.check]]");
        check(text, it);
    }
}

fn check(text: &mut String, it: &Check) {
    line(text, "type", quoted(it.kind.name()));
    if let Some(address) = it.address {
        line(text, "address", quoted(&address.to_string()));
    }
    if let Some(port) = it.port {
        line(text, "port", port);
    }
    if let Some(source) = it.source {
        line(text, "source", quoted(&source.to_string()));
    }
    if it.mark != 0 {
        line(text, "mark", it.mark);
    }
    match &it.kind {
        CheckKind::Tcp => {}
        CheckKind::Http(it) => http(text, it),
        CheckKind::Tls(it) => {
            tls(text, &it.tls);
            line(text, "days", it.days);
        }
        CheckKind::Dns(it) => dns(text, it),
        CheckKind::Udp(it) => udp(text, it),
        CheckKind::Smtp(it) => line(text, "helo", quoted(&it.helo)),
        CheckKind::Grpc(it) => {
            line(text, "service", quoted(&it.service));
            if let Some(it) = &it.tls {
                line(text, "tls", true);
                tls(text, it);
            }
        }
        CheckKind::Agent(it) => {
            if let Some(said) = &it.send {
                line(text, "send", quoted(said));
            }
        }
        CheckKind::Exec(it) => exec(text, it),
    }
    timing(text, &it.timing);
}

fn http(text: &mut String, it: &Http) {
    line(text, "method", quoted(&it.method));
    line(text, "path", quoted(&it.path));
    if let Some(host) = &it.host {
        line(text, "host", quoted(host));
    }
    let statuses = it.status.iter().map(|(from, to)| {
        if from == to { from.to_string() } else { quoted(&format!("{from}-{to}")) }
    });
    line(text, "status", format_args!("[{}]", statuses.collect::<Vec<_>>().join(", ")));
    if let Some(body) = &it.body {
        line(text, "body", quoted(body));
    }
    if let Some(it) = &it.tls {
        tls(text, it);
    }
}

fn tls(text: &mut String, it: &Tls) {
    if let Some(sni) = &it.sni {
        line(text, "sni", quoted(sni));
    }
    if !it.verify {
        line(text, "verify", false);
    }
    if let Some(path) = &it.ca_file {
        line(text, "ca_file", quoted(&path.to_string_lossy()));
    }
}

fn dns(text: &mut String, it: &Dns) {
    line(text, "name", quoted(&it.name));
    line(text, "record", quoted(&it.record));
    line(text, "rcode", quoted(&it.rcode));
    if let Some(answer) = &it.answer {
        line(text, "answer", quoted(answer));
    }
}

fn udp(text: &mut String, it: &Udp) {
    if let Ok(payload) = std::str::from_utf8(&it.payload) {
        line(text, "payload", quoted(payload));
    } else {
        let octets = it.payload.iter().map(|octet| (*octet, 0xff));
        line(text, "payload_hex", quoted(&hex(octets)));
    }
    match &it.reply {
        None => {}
        Some(Expected::Pattern(pattern)) => line(text, "reply", quoted(pattern)),
        Some(Expected::Octets(octets)) => {
            line(text, "reply_hex", quoted(&hex(octets.iter().copied())));
        }
    }
    if !it.require_reply {
        line(text, "require_reply", false);
    }
}

/// Octets as digits, `x` for those that do not count.
fn hex(octets: impl Iterator<Item = (u8, u8)>) -> String {
    let digit = |octet: u8, mask: u8, shift: u8| match mask >> shift & 0xf {
        0 => "x".to_owned(),
        _ => format!("{:x}", octet >> shift & 0xf),
    };
    let shown = octets.map(|(octet, mask)| digit(octet, mask, 4) + &digit(octet, mask, 0));
    shown.collect::<Vec<_>>().join(" ")
}

fn exec(text: &mut String, it: &Exec) {
    let words: Vec<_> = it.command.iter().map(|word| quoted(word)).collect();
    line(text, "command", format_args!("[{}]", words.join(", ")));
    line(text, "user", quoted(&it.user));
    line(text, "group", quoted(&it.group));
    if it.dynamic {
        line(text, "dynamic", true);
    }
}

fn timing(text: &mut String, it: &Timing) {
    let default = Timing::default();
    line(text, "interval", quoted(&time(it.interval)));
    line(text, "retry_interval", quoted(&time(it.retry_interval)));
    line(text, "timeout", quoted(&time(it.timeout)));
    if it.delay != default.delay {
        line(text, "delay", quoted(&time(it.delay)));
    }
    if it.jitter != default.jitter {
        line(text, "jitter", it.jitter);
    }
    line(text, "rise", it.rise);
    line(text, "fall", it.fall);
    if let Some(it) = &it.dampening {
        let (within, hold) = (quoted(&time(it.within)), quoted(&time(it.hold)));
        let falls = it.falls;
        let keys = format_args!("{{ falls = {falls}, within = {within}, hold = {hold} }}");
        line(text, "dampening", keys);
    }
}

/// A time with its unit.
fn time(time: Duration) -> String {
    match time.as_millis() {
        millis if millis % 1000 != 0 => format!("{millis}ms"),
        millis => format!("{}s", millis / 1000),
    }
}
