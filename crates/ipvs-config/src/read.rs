//! What a file means: keys and configurations as the director takes them.

use std::net::{IpAddr, Ipv4Addr};

use ipvs_core::addr::{Addr, Family};
use ipvs_core::command::TimeoutEdit;
use ipvs_core::dest::{DestKey, DestSpec, ForwardingMethod};
use ipvs_core::engine;
use ipvs_core::mark::{MAX_RULES, MarkRule, prefix_mask};
use ipvs_core::service::{SchedulerKind, ServiceFlags, ServiceKey, ServiceSpec};
use ipvs_core::settings::Settings;
use ipvs_core::sync::SyncDaemon;
use ipvs_core::sysctl::{self, Sysctl, Value};
use toml::Spanned;

use crate::error::{ConfigError, Mistake, meant};
use crate::health::Health;
use crate::{file, mark, read_health, sync};

pub(crate) type Read<T> = Result<T, Mistake>;

/// The longest timeout that the director takes, in seconds.
const LONGEST: u32 = i32::MAX as u32 / 250;

/// A service that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its key.
    pub key: ServiceKey,
    /// Its configuration.
    pub spec: ServiceSpec,
    /// Its destinations, in the order of the file.
    pub dests: Vec<(DestKey, DestSpec)>,
    /// How they are checked.
    pub health: Health,
}

/// The state that a file asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// All services that there shall be, in the order of the file.
    pub services: Vec<Service>,
    /// Timeouts, 0 for one that may be anything.
    pub timeouts: TimeoutEdit,
    /// All mark rules that there shall be, in order.
    pub marks: Vec<MarkRule>,
    /// All sync daemons that there shall be, the master first; 0 and `None` for what the
    /// director may choose.
    pub sync: Vec<SyncDaemon>,
    /// Settings of `net.ipv4.vs`, each once; others may be anything.
    pub settings: Vec<(&'static Sysctl, Value)>,
}

/// Reads the text of `file`.
pub fn read(file: &str, text: &str) -> Result<Wanted, ConfigError> {
    let parsed: Read<file::File> = toml::from_str(text).map_err(Mistake::from);
    parsed.and_then(|parsed| wanted(&parsed)).map_err(|mistake| mistake.within(file, text))
}

fn wanted(file: &file::File) -> Read<Wanted> {
    let timeout = |given: &Option<Spanned<u32>>| match given {
        None => Ok(0),
        Some(given) if (1..=LONGEST).contains(given.get_ref()) => Ok(*given.get_ref()),
        Some(given) => wrong(given, format!("a timeout is from 1 to {LONGEST} seconds")),
    };
    let timeouts = TimeoutEdit {
        tcp: timeout(&file.timeouts.tcp)?,
        tcp_fin: timeout(&file.timeouts.tcp_fin)?,
        udp: timeout(&file.timeouts.udp)?,
    };
    let mut settings: Vec<(&Sysctl, Value)> = Vec::new();
    for (name, value) in &file.sysctl {
        let next = setting(name, value)?;
        // By its plain name and behind `net.ipv4.vs.`.
        if settings.iter().any(|(other, _)| *other == next.0) {
            return wrong(name, format!("`{}` is set already", next.0.name));
        }
        settings.push(next);
    }
    let mut services: Vec<Service> = Vec::new();
    for given in &file.service {
        let next = service(given)?;
        if services.iter().any(|other| other.key == next.key) {
            return wrong(given, "this service is there already");
        }
        services.push(next);
    }
    let mut marks = Vec::new();
    for given in &file.mark {
        let next = mark::rule(given)?;
        if marks.contains(&next) {
            return wrong(given, "this mark rule is there already");
        }
        marks.push(next);
    }
    if let Some(beyond) = file.mark.get(MAX_RULES as usize) {
        return wrong(beyond, format!("there is room for {MAX_RULES} mark rules"));
    }
    let sync = sync::daemons(&file.sync)?;
    if !sync.is_empty() {
        // The messages have no way to tell of one.
        let mixed = |key: &ServiceKey, (dest, _): &(DestKey, DestSpec)| dest.family != key.family;
        for (given, service) in file.service.iter().zip(&services) {
            if let Some(at) = service.dests.iter().position(|dest| mixed(&service.key, dest))
                && let Some(dest) = given.get_ref().destination.get(at)
            {
                return wrong(dest, "with a sync daemon no destination is of the other family");
            }
        }
    }
    Ok(Wanted { services, timeouts, marks, sync, settings })
}

/// A setting, with its value as the director shows it.
fn setting(
    name: &Spanned<String>,
    value: &Spanned<file::Setting>,
) -> Read<(&'static Sysctl, Value)> {
    let Some(known) = sysctl::find(name.get_ref()) else {
        let names = sysctl::ALL.iter().map(|it| it.name);
        let word = name.get_ref();
        return wrong(name, format!("unknown setting `{word}`{}", meant(word, names)));
    };
    let text = match value.get_ref() {
        file::Setting::Number(number) => number.to_string(),
        file::Setting::Text(text) => text.clone(),
    };
    let mut settings = Settings::DEFAULT;
    if known.set(&mut settings, &text).is_err() {
        return wrong(value, format!("`{}` cannot be `{text}`", known.name));
    }
    Ok((known, known.get(&settings)))
}

fn service(given: &Spanned<file::Service>) -> Read<Service> {
    let it = given.get_ref();
    let key = service_key(given)?;
    let names: Vec<_> = SchedulerKind::ALL.iter().map(|kind| (kind.name(), *kind)).collect();
    let kind = match &it.scheduler {
        None => SchedulerKind::WeightedLeastConnection,
        Some(name) => choice("scheduler", name, &names)?,
    };
    let mut flags = 0;
    for flag in &it.flags {
        flags |= choice("flag of this scheduler", flag, scheduler_flags(kind))?;
    }
    if it.one_packet {
        if !matches!(key.protocol, 0 | 17) {
            return wrong(given, "one_packet is for UDP");
        }
        flags |= ServiceFlags::ONE_PACKET;
    }
    let (mut timeout, mut engine, mut netmask) = (0, "".into(), every_bit(key.family()));
    if let Some(persistence) = &it.persistence {
        let it = persistence.get_ref();
        flags |= ServiceFlags::PERSISTENT;
        timeout = it.timeout.as_ref().map_or(300, |given| *given.get_ref());
        if let Some(given) = it.timeout.as_ref().filter(|given| *given.get_ref() == 0) {
            return wrong(given, "a persistence timeout is at least 1 second");
        }
        if let Some(given) = &it.netmask {
            netmask = mask(key.family(), given)?;
        }
        if let Some(name) = &it.engine {
            engine = name.get_ref().as_str().into();
            if name.get_ref().is_empty() || engine::by_name(&engine).is_none() {
                return wrong(name, format!("unknown persistence engine `{}`", name.get_ref()));
            }
        }
    }
    let spec = ServiceSpec { scheduler: kind.name().into(), engine, flags, timeout, netmask };
    let mut dests: Vec<(DestKey, DestSpec)> = Vec::new();
    for given in &it.destination {
        let next = dest(&key, given)?;
        if dests.iter().any(|(other, _)| *other == next.0) {
            return wrong(given, "the service has this destination already");
        }
        dests.push(next);
    }
    let health = read_health::health(&key, it, &dests)?;
    Ok(Service { key, spec, dests, health })
}

fn service_key(given: &Spanned<file::Service>) -> Read<ServiceKey> {
    let it = given.get_ref();
    if let Some(mark) = &it.fwmark {
        if let Some(address) = &it.address {
            return wrong(address, "a service has an address or a fwmark, not both");
        }
        if let Some(protocol) = &it.protocol {
            return wrong(protocol, "a service by fwmark has no protocol");
        }
        if let Some(port) = &it.port {
            return wrong(port, "a service by fwmark has no port");
        }
        if *mark.get_ref() == 0 {
            return wrong(mark, "a fwmark is not 0");
        }
        let families = [("ipv4", Family::V4), ("ipv6", Family::V6)];
        let family = match &it.family {
            None => Family::V4,
            Some(name) => choice("family", name, &families)?,
        };
        return Ok(ServiceKey::fwmark(family, *mark.get_ref()));
    }
    if let Some(family) = &it.family {
        return wrong(family, "the address says the family; the key is for fwmark only");
    }
    let Some(address) = &it.address else {
        return wrong(given, "a service needs an address or a fwmark");
    };
    let Some(protocol) = &it.protocol else {
        return wrong(given, "a service by address needs a protocol");
    };
    let protocol = choice("protocol", protocol, &[("tcp", 6), ("udp", 17), ("sctp", 132)])?;
    let (family, addr) = ip(address)?;
    let port = it.port.as_ref().map_or(0, |port| *port.get_ref());
    if port == 0 && it.persistence.is_none() {
        return wrong(given, "a service for every port (0) needs persistence");
    }
    Ok(ServiceKey::address(family, protocol, addr, port))
}

pub(crate) fn dest(service: &ServiceKey, given: &Spanned<file::Dest>) -> Read<(DestKey, DestSpec)> {
    let it = given.get_ref();
    let (family, addr) = ip(&it.address)?;
    let methods = [
        ("route", ForwardingMethod::DirectRoute),
        ("masquerade", ForwardingMethod::Masquerade),
        ("tunnel", ForwardingMethod::Tunnel),
    ];
    let method = match &it.method {
        None => ForwardingMethod::DirectRoute,
        Some(name) => choice("method", name, &methods)?,
    };
    if family != service.family() && method != ForwardingMethod::Tunnel {
        return wrong(&it.address, "a destination of the other family needs method `tunnel`");
    }
    let port = it.port.as_ref().map_or(service.port, |port| *port.get_ref());
    if let Some(given) = &it.port
        && method != ForwardingMethod::Masquerade
        // With every port, or by a mark, it is a name for the destination and no more.
        && service.port != 0
        && port != service.port
    {
        return wrong(given, "only method `masquerade` changes the port");
    }
    let mut spec = DestSpec {
        weight: 1,
        upper: it.upper_threshold,
        lower: it.lower_threshold.as_ref().map_or(0, |lower| *lower.get_ref()),
        tunnel_port: 0,
        tunnel_flags: 0,
        tunnel_type: DestSpec::IPIP,
        method: method as u8,
        reserved: [0; 2],
    };
    if let Some(weight) = &it.weight {
        let Ok(number) = i32::try_from(*weight.get_ref()) else {
            return wrong(weight, "a weight is at most 2147483647");
        };
        spec.weight = number;
    }
    if let Some(lower) = &it.lower_threshold
        && spec.lower > spec.upper
    {
        return wrong(lower, "lower_threshold is above upper_threshold");
    }
    if let Some(given) = &it.tunnel {
        if method != ForwardingMethod::Tunnel {
            return wrong(given, "a tunnel needs method `tunnel`");
        }
        tunnel(&mut spec, given)?;
    }
    Ok((DestKey::new(family, addr, port), spec))
}

fn tunnel(spec: &mut DestSpec, given: &Spanned<file::Tunnel>) -> Read<()> {
    let it = given.get_ref();
    let types = [("ipip", DestSpec::IPIP), ("gue", DestSpec::GUE), ("gre", DestSpec::GRE)];
    spec.tunnel_type = choice("tunnel type", &it.r#type, &types)?;
    let is_gue = spec.tunnel_type == DestSpec::GUE;
    match &it.port {
        Some(port) if !is_gue => return wrong(port, "only a gue tunnel has a port"),
        Some(port) if *port.get_ref() == 0 => return wrong(port, "a gue tunnel's port is not 0"),
        Some(port) => spec.tunnel_port = *port.get_ref(),
        None if is_gue => return wrong(given, "a gue tunnel needs a port"),
        None => {}
    }
    if let Some(name) = &it.checksum {
        let sums =
            [("none", 0), ("full", DestSpec::CHECKSUM), ("remote", DestSpec::REMOTE_CHECKSUM)];
        let flags = choice("checksum", name, &sums)?;
        let allowed = match spec.tunnel_type {
            DestSpec::GUE => true,
            DestSpec::GRE => flags != DestSpec::REMOTE_CHECKSUM,
            _ => flags == 0,
        };
        if !allowed {
            return wrong(name, "this type of tunnel has no such checksum");
        }
        spec.tunnel_flags = flags;
    }
    Ok(())
}

/// The flags that a scheduler knows, by ipvsadm's names.
pub(crate) fn scheduler_flags(kind: SchedulerKind) -> &'static [(&'static str, u32)] {
    match kind {
        SchedulerKind::SourceHashing => {
            &[("sh-fallback", ServiceFlags::SCHED_1), ("sh-port", ServiceFlags::SCHED_2)]
        }
        SchedulerKind::MaglevHashing => {
            &[("mh-fallback", ServiceFlags::SCHED_1), ("mh-port", ServiceFlags::SCHED_2)]
        }
        _ => &[],
    }
}

/// The netmask of single clients.
pub(crate) const fn every_bit(family: Family) -> [u8; 4] {
    match family {
        Family::V4 => [255; 4],
        Family::V6 => 128_u32.to_ne_bytes(),
    }
}

/// The netmask of persistence: a prefix's length, or the mask itself.
fn mask(family: Family, given: &Spanned<file::NumberOrText>) -> Read<[u8; 4]> {
    let longest = longest(family);
    let len = match given.get_ref() {
        file::NumberOrText::Number(number) => u8::try_from(*number).ok(),
        file::NumberOrText::Text(text) if family == Family::V4 => {
            return match text.parse::<Ipv4Addr>() {
                Ok(mask) => Ok(mask.octets()),
                Err(_) => wrong(given, format!("`{text}` is no netmask of IPv4")),
            };
        }
        file::NumberOrText::Text(_) => None,
    };
    match len.filter(|len| (1..=longest).contains(len)) {
        Some(len) if family == Family::V4 => Ok(prefix_mask(Family::V4, len).v4_octets()),
        Some(len) => Ok(u32::from(len).to_ne_bytes()),
        None => wrong(given, format!("a netmask is a prefix of 1 to {longest} bits")),
    }
}

/// Bits of an address.
const fn longest(family: Family) -> u8 {
    match family {
        Family::V4 => 32,
        Family::V6 => 128,
    }
}

/// The address of a host.
pub(crate) fn ip(given: &Spanned<String>) -> Read<(Family, Addr)> {
    let text = given.get_ref();
    match text.parse::<IpAddr>() {
        Ok(ip) if ip.is_unspecified() || ip.is_multicast() => {
            wrong(given, format!("`{text}` is no address of one host"))
        }
        Ok(ip) => Ok(Addr::from_ip(ip)),
        Err(_) => wrong(given, format!("`{text}` is no IPv4 or IPv6 address")),
    }
}

/// What the name stands for.
pub(crate) fn choice<T: Copy>(what: &str, given: &Spanned<String>, names: &[(&str, T)]) -> Read<T> {
    let word = given.get_ref();
    let found = names.iter().find(|(name, _)| name == word).map(|(_, value)| *value);
    found.ok_or_else(|| {
        let hint = meant(word, names.iter().map(|(name, _)| *name));
        Mistake::new(given.span(), format!("unknown {what} `{word}`{hint}"))
    })
}

pub(crate) fn wrong<T, U>(at: &Spanned<U>, message: impl Into<String>) -> Read<T> {
    Err(Mistake::new(at.span(), message))
}
