//! What runs, as a file that says it.

use std::fmt::Write as _;

use ipvs_core::addr::Family;
use ipvs_core::dest::{DestKey, DestSpec, ForwardingMethod};
use ipvs_core::mark::MarkRule;
use ipvs_core::service::{SchedulerKind, ServiceFlags, ServiceKey, ServiceSpec};
use ipvs_core::sync::SyncDaemon;

use crate::read::{Service, Wanted, every_bit, scheduler_flags};
use crate::{export_health, rule, sync, words};

/// The text of a file that asks for `wanted`, services sorted by their keys.
///
/// What a file has no word for is left out, or said wrongly: read it again and compare it with
/// what it was made of.
pub fn export(wanted: &Wanted) -> String {
    let mut text = String::new();
    timeouts(&mut text, wanted);
    settings(&mut text, wanted);
    for daemon in &wanted.sync {
        sync_daemon(&mut text, daemon);
    }
    for rule in &wanted.marks {
        mark_rule(&mut text, rule);
    }
    let mut services: Vec<&Service> = wanted.services.iter().collect();
    services.sort_by_key(|service| order(&service.key));
    for service in services {
        service_table(&mut text, service);
    }
    text
}

/// By address, protocol and port; marks behind.
fn order(key: &ServiceKey) -> impl Ord + use<> {
    (key.is_fwmark(), key.family, key.addr.octets(), key.protocol, key.port, key.fwmark)
}

/// A line; a string takes everything.
pub(crate) fn line(text: &mut String, key: &str, value: impl std::fmt::Display) {
    let _ = writeln!(text, "{key} = {value}");
}

/// A text in quotes.
pub(crate) fn quoted(value: &str) -> String {
    toml::Value::from(value).to_string()
}

/// The head of a table, with an empty line in front.
pub(crate) fn head(text: &mut String, head: &str) {
    let is_part = head.trim_start_matches('[').starts_with("service.");
    let blank = if text.is_empty() || is_part { "" } else { "\n" };
    let _ = writeln!(text, "{blank}{head}");
}

fn timeouts(text: &mut String, wanted: &Wanted) {
    let it = wanted.timeouts;
    let all = [("tcp", it.tcp), ("tcp_fin", it.tcp_fin), ("udp", it.udp)];
    if all.iter().any(|(_, seconds)| *seconds != 0) {
        head(text, "[timeouts]");
    }
    for (name, seconds) in all.into_iter().filter(|(_, seconds)| *seconds != 0) {
        line(text, name, seconds);
    }
}

fn settings(text: &mut String, wanted: &Wanted) {
    if !wanted.settings.is_empty() {
        head(text, "[sysctl]");
    }
    for (sysctl, value) in &wanted.settings {
        let value = value.to_string();
        match value.parse::<i64>() {
            Ok(number) => line(text, sysctl.name, number),
            Err(_) => line(text, sysctl.name, quoted(&value.replace('\t', " "))),
        }
    }
}

fn sync_daemon(text: &mut String, daemon: &SyncDaemon) {
    head(text, &format!("[sync.{}]", sync::shown(daemon.state)));
    line(text, "interface", quoted(daemon.interface.as_str()));
    line(text, "id", daemon.sync_id & 0xff);
    if daemon.max_len != 0 {
        line(text, "max_length", daemon.max_len);
    }
    if let Some(group) = daemon.group {
        line(text, "group", quoted(&group.to_string()));
    }
    if daemon.port != 0 {
        line(text, "port", daemon.port);
    }
    if daemon.ttl != 0 {
        line(text, "ttl", daemon.ttl);
    }
}

fn mark_rule(text: &mut String, rule: &MarkRule) {
    let family = Family::from_tag(rule.family);
    head(text, "[[mark]]");
    line(text, "mark", rule.mark);
    if rule.mask != u32::MAX {
        line(text, "mask", format_args!("{:#x}", rule.mask));
    }
    if family == Family::V6 {
        line(text, "family", quoted("ipv6"));
    }
    let sides =
        [("from", rule.source, rule.source_mask), ("to", rule.destination, rule.destination_mask)];
    for (key, addr, mask) in sides.into_iter().filter(|(.., mask)| !mask.is_unspecified()) {
        line(text, key, quoted(&rule::shown_prefix(family, addr, mask)));
    }
    match (rule.protocol, words::protocol(rule.protocol)) {
        (0, _) => {}
        (_, Some(name)) => line(text, "protocol", quoted(name)),
        (number, None) => line(text, "protocol", number),
    }
    if let Some(ports) = rule::shown_ports(rule) {
        line(text, "ports", quoted(&ports));
    }
    if !rule.interface_name().is_empty() {
        line(text, "interface", quoted(rule.interface_name()));
    }
}

fn service_table(text: &mut String, service: &Service) {
    let (key, spec) = (&service.key, &service.spec);
    head(text, "[[service]]");
    if key.is_fwmark() {
        line(text, "fwmark", key.fwmark);
        if key.family() == Family::V6 {
            line(text, "family", quoted("ipv6"));
        }
    } else {
        line(text, "address", quoted(&key.addr.to_ip(key.family()).to_string()));
        let protocol = key.protocol.to_string();
        line(text, "protocol", quoted(words::protocol(key.protocol).unwrap_or(&protocol)));
        line(text, "port", key.port);
    }
    line(text, "scheduler", quoted(spec.scheduler.as_str()));
    flags(text, spec);
    if spec.flags & ServiceFlags::ONE_PACKET != 0 {
        line(text, "one_packet", true);
    }
    if spec.flags & ServiceFlags::PERSISTENT != 0 {
        persistence(text, key.family(), spec);
    }
    let health = &service.health;
    export_health::service_tables(text, key, health);
    for (dest, spec) in &service.dests {
        dest_table(text, "[[service.destination]]", key, dest, spec);
        export_health::dest_tables(text, health, dest);
    }
}

fn flags(text: &mut String, spec: &ServiceSpec) {
    let Some(kind) = SchedulerKind::by_name(&spec.scheduler) else { return };
    let set = scheduler_flags(kind).iter().filter(|(_, flag)| spec.flags & flag != 0);
    let names: Vec<_> = set.map(|(name, _)| quoted(name)).collect();
    if !names.is_empty() {
        line(text, "flags", format_args!("[{}]", names.join(", ")));
    }
}

fn persistence(text: &mut String, family: Family, spec: &ServiceSpec) {
    let mut keys = vec![format!("timeout = {}", spec.timeout)];
    if spec.netmask != every_bit(family) {
        let bits = u32::from_be_bytes(spec.netmask);
        keys.push(match family {
            Family::V6 => format!("netmask = {}", u32::from_ne_bytes(spec.netmask)),
            Family::V4 if bits != 0 && bits.leading_ones() == bits.count_ones() => {
                format!("netmask = {}", bits.count_ones())
            }
            Family::V4 => {
                let [a, b, c, d] = spec.netmask;
                format!("netmask = \"{a}.{b}.{c}.{d}\"")
            }
        });
    }
    if !spec.engine.is_empty() {
        keys.push(format!("engine = {}", quoted(spec.engine.as_str())));
    }
    line(text, "persistence", format_args!("{{ {} }}", keys.join(", ")));
}

/// A destination, or a sorry server.
pub(crate) fn dest_table(
    text: &mut String,
    table: &str,
    service: &ServiceKey,
    dest: &DestKey,
    spec: &DestSpec,
) {
    head(text, table);
    line(text, "address", quoted(&dest.addr.to_ip(dest.family()).to_string()));
    if dest.port != service.port {
        line(text, "port", dest.port);
    }
    let method = match spec.forwarding() {
        ForwardingMethod::Masquerade => "masquerade",
        ForwardingMethod::Tunnel => "tunnel",
        _ => "route",
    };
    line(text, "method", quoted(method));
    line(text, "weight", spec.weight);
    if spec.upper != 0 {
        line(text, "upper_threshold", spec.upper);
    }
    if spec.lower != 0 {
        line(text, "lower_threshold", spec.lower);
    }
    if spec.forwarding() == ForwardingMethod::Tunnel {
        tunnel(text, spec);
    }
}

fn tunnel(text: &mut String, spec: &DestSpec) {
    let checksum = match spec.tunnel_flags {
        DestSpec::CHECKSUM => Some("full"),
        DestSpec::REMOTE_CHECKSUM => Some("remote"),
        _ => None,
    };
    let (kind, port) = match spec.tunnel_type {
        DestSpec::GUE => ("gue", Some(spec.tunnel_port)),
        DestSpec::GRE => ("gre", None),
        _ => ("ipip", None),
    };
    if kind == "ipip" && checksum.is_none() {
        return;
    }
    let mut keys = vec![format!("type = \"{kind}\"")];
    keys.extend(port.map(|port| format!("port = {port}")));
    keys.extend(checksum.map(|checksum| format!("checksum = \"{checksum}\"")));
    line(text, "tunnel", format_args!("{{ {} }}", keys.join(", ")));
}
