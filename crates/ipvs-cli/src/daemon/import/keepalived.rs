//! The virtual servers of a `keepalived.conf`.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use ipvs_config::Service;
use ipvs_config::check::Check;
use ipvs_config::health::{Health, Initial, OnFailure};
use ipvs_core::addr::{Addr, Family};
use ipvs_core::dest::{DestKey, DestSpec, ForwardingMethod};
use ipvs_core::service::{ServiceFlags, ServiceKey, ServiceSpec};

use super::blocks::{Item, Reader};
use super::checks::{CHECKERS, Defaults, checks};
use super::{Import, Place};

/// Without a number.
const PERSISTENCE: u32 = 360;
/// Without a word on it.
const SCHEDULER: &str = "wlc";
/// Addresses that one range may stand for.
const LARGEST_RANGE: u128 = 4096;
/// What a virtual server is at.
#[derive(Clone, Debug)]
enum At {
    /// Of a family, if one is named.
    Mark(u32, Option<Family>),
    Address(IpAddr, u16),
}

/// Reads the file, and those that it includes.
pub(super) fn import(path: &Path, text: &str) -> Import {
    let mut import = Import::default();
    let mut reader = Reader::new(&mut import);
    reader.file(path, text, 0);
    let items = reader.finish();
    let mut groups = HashMap::new();
    for item in items.iter().filter(|item| item.name() == "virtual_server_group") {
        let name = item.words.get(1).cloned().unwrap_or_default();
        groups.insert(name, group(&mut import, item));
    }
    for item in &items {
        match item.name() {
            "virtual_server_group" => {}
            "virtual_server" => virtual_server(&mut import, item, &groups),
            "global_defs" => global_defs(&mut import, item),
            name if name.starts_with('@') => {
                let text = format!("{}: {}", item.words.join(" "), left_out(name));
                import.leave_out(&item.place, text);
            }
            _ => import
                .leave_out(&item.place, format!("{}: no virtual server", item.words.join(" "))),
        }
    }
    import
}

/// What a global block says of IPVS.
fn global_defs(import: &mut Import, item: &Item) {
    for item in item.block.iter().flatten() {
        if item.name() == "lvs_timeouts" {
            lvs_timeouts(import, item);
        } else {
            import.leave_out(&item.place, format!("{}: not carried over", item.words.join(" ")));
        }
    }
}

fn lvs_timeouts(import: &mut Import, item: &Item) {
    for pair in item.rest().chunks(2) {
        let timeouts = &mut import.wanted.timeouts;
        let place = match pair.first() {
            Some(&"tcp") => &mut timeouts.tcp,
            Some(&"tcpfin") => &mut timeouts.tcp_fin,
            Some(&"udp") => &mut timeouts.udp,
            _ => {
                return import
                    .leave_out(&item.place, "lvs_timeouts: tcp, tcpfin or udp, and a time");
            }
        };
        match pair.get(1).and_then(|word| word.parse().ok()) {
            Some(seconds @ 1..=8_589_934) => *place = seconds,
            _ => import.leave_out(&item.place, "lvs_timeouts: no time in seconds"),
        }
    }
}

/// The members of a group.
fn group(import: &mut Import, item: &Item) -> Vec<(Place, At)> {
    let mut members = Vec::new();
    for item in item.block.iter().flatten() {
        let words: Vec<&str> = item.words.iter().map(String::as_str).collect();
        match ats(&words) {
            Ok(found) => members.extend(found.into_iter().map(|at| (item.place.clone(), at))),
            Err(why) => import.leave_out(&item.place, format!("{}: {why}", words.join(" "))),
        }
    }
    members
}

/// `fwmark N [inet|inet6]`, or an address or range of such and a port.
fn ats(words: &[&str]) -> Result<Vec<At>, String> {
    if let ["fwmark", number, family @ ..] = words {
        let family = match family {
            [] => None,
            ["inet"] => Some(Family::V4),
            ["inet6"] => Some(Family::V6),
            _ => return Err("the family is inet or inet6".into()),
        };
        return match number.parse() {
            Ok(mark @ 1..) => Ok(vec![At::Mark(mark, family)]),
            _ => Err("this is no firewall mark".into()),
        };
    }
    let (addrs, port) = match words {
        [addrs] => (addrs, 0),
        [addrs, port] => (addrs, port.parse().map_err(|_bad| "this is no port".to_owned())?),
        _ => return Err("this is no address with a port".into()),
    };
    Ok(range(addrs)?.into_iter().map(|addr| At::Address(addr, port)).collect())
}

/// One address, `ADDRESS/LEN`, `FIRST-LAST` or `FIRST-LAST PART OF THE LAST`.
fn range(text: &str) -> Result<Vec<IpAddr>, String> {
    let bad = |_| format!("`{text}` is no address");
    let number = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => u128::from(u32::from(ip)),
        IpAddr::V6(ip) => ip.into(),
    };
    let (first, last) = if let Some((first, last)) = text.split_once('-') {
        let first: IpAddr = first.parse().map_err(bad)?;
        let last = match (last.parse::<IpAddr>(), first) {
            (Ok(last), _) if last.is_ipv4() == first.is_ipv4() => number(last),
            (_, IpAddr::V4(ip)) => {
                let [a, b, c, _] = ip.octets();
                let part = last.parse().map_err(|_bad| format!("`{text}` is no range"))?;
                number(Ipv4Addr::new(a, b, c, part).into())
            }
            (_, IpAddr::V6(ip)) => {
                let part = u16::from_str_radix(last, 16);
                let part = part.map_err(|_bad| format!("`{text}` is no range"))?;
                (u128::from(ip) & !0xffff) | u128::from(part)
            }
        };
        (first, last)
    } else if let Some((first, len)) = text.split_once('/') {
        let first: IpAddr = first.parse().map_err(bad)?;
        let bits = if first.is_ipv4() { 32 } else { 128 };
        let len: u32 = len.parse().map_err(|_bad| format!("`{text}` is no range"))?;
        let size = bits - len.min(bits);
        if size > 12 {
            return Err(format!("more than {LARGEST_RANGE} addresses"));
        }
        let mask = (1_u128 << size) - 1;
        let at = number(first) & !mask;
        let first = if first.is_ipv4() { v4(at) } else { Ipv6Addr::from(at).into() };
        (first, at | mask)
    } else {
        let one = text.parse().map_err(bad)?;
        (one, number(one))
    };
    let start = number(first);
    if last < start || last - start >= LARGEST_RANGE {
        return Err(format!("this is no range of 1 to {LARGEST_RANGE} addresses"));
    }
    let each = |at| if first.is_ipv4() { v4(at) } else { Ipv6Addr::from(at).into() };
    Ok((start..=last).map(each).collect())
}

/// An IPv4 address by its number.
fn v4(number: u128) -> IpAddr {
    Ipv4Addr::from(u32::try_from(number).unwrap_or_default()).into()
}

/// How packets are forwarded, as far as it is said.
#[derive(Clone, Copy, Debug)]
struct Way {
    method: ForwardingMethod,
    tunnel_type: u8,
    tunnel_port: u16,
    tunnel_flags: u16,
}

const NAT: Way = Way {
    method: ForwardingMethod::Masquerade,
    tunnel_type: DestSpec::IPIP,
    tunnel_port: 0,
    tunnel_flags: 0,
};

impl Way {
    /// A destination that is reached so.
    const fn spec(self, weight: i32) -> DestSpec {
        let Self { method, tunnel_type, tunnel_port, tunnel_flags } = self;
        DestSpec {
            weight,
            upper: 0,
            lower: 0,
            tunnel_port,
            tunnel_flags,
            tunnel_type,
            method: method as u8,
            reserved: [0; 2],
        }
    }
}

/// A virtual server without its places.
#[derive(Debug)]
struct Template {
    protocol: u8,
    family: Option<Family>,
    spec: ServiceSpec,
    granularity: Option<String>,
    way: Way,
    weight: i32,
    checks: Defaults,
    health: Health,
    sorry: Option<(IpAddr, Option<u16>)>,
    sorry_way: Option<Way>,
}

fn virtual_server(import: &mut Import, item: &Item, groups: &HashMap<String, Vec<(Place, At)>>) {
    let words = item.rest();
    let places = if let ["group", name] = words[..] {
        groups.get(name).cloned().ok_or_else(|| format!("there is no group {name}"))
    } else {
        ats(&words).map(|all| all.into_iter().map(|at| (item.place.clone(), at)).collect())
    };
    let places = match places {
        Ok(places) => places,
        Err(why) => {
            let text = format!("{}: {why}", item.words.join(" "));
            return import.leave_out(&item.place, text);
        }
    };
    let mut template = Template {
        protocol: 6,
        family: None,
        spec: ServiceSpec {
            scheduler: SCHEDULER.into(),
            engine: "".into(),
            flags: 0,
            timeout: 0,
            netmask: [255; 4],
        },
        granularity: None,
        way: NAT,
        weight: 1,
        checks: Defaults::default(),
        // Unless it says `alpha`.
        health: Health { initial: Initial::Up, ..Health::default() },
        sorry: None,
        sorry_way: None,
    };
    let items = item.block.as_deref().unwrap_or_default();
    for item in items.iter().filter(|item| item.name() != "real_server") {
        if let Err(why) = option(&mut template, item) {
            import.leave_out(&item.place, format!("{}: {why}", item.words.join(" ")));
        }
    }
    let mut servers = Vec::new();
    for item in items.iter().filter(|item| item.name() == "real_server") {
        servers.extend(real_server(import, item, &template).map(|it| (item.place.clone(), it)));
    }
    for (place, at) in places {
        let family = servers.first().map(|(_, server)| server.family);
        match service(&template, &at, family) {
            Ok(service) => {
                let key = service.key;
                import.add_service(&place, service);
                let mut health = template.health.clone();
                for (place, server) in &servers {
                    // Where a port has no effect, keepalived sets the virtual server's.
                    let is_free = server.spec.forwarding() == ForwardingMethod::Masquerade
                        && !key.is_fwmark();
                    let port = server.port.filter(|_| is_free).unwrap_or(key.port);
                    let key_of_dest = DestKey::new(server.family, server.addr, port);
                    import.add_dest(place, &key, (key_of_dest, server.spec));
                    let mut checks = server.checks.clone();
                    for check in checks.iter_mut().filter(|check| check.port == Some(port)) {
                        check.port = None;
                    }
                    health.by_dest.push((key_of_dest, checks));
                }
                let sorry = template.sorry.map(|at| sorry_server(&template, &key, at));
                if let Err(why) = import.add_health(&key, health, sorry) {
                    import.leave_out(&place, why);
                }
            }
            Err(why) => import.leave_out(&place, why),
        }
    }
}

/// The sorry server of a service.
fn sorry_server(
    template: &Template,
    key: &ServiceKey,
    (ip, port): (IpAddr, Option<u16>),
) -> (DestKey, DestSpec) {
    let (family, addr) = Addr::from_ip(ip);
    let spec = template.sorry_way.unwrap_or(template.way).spec(1);
    let is_free = spec.forwarding() == ForwardingMethod::Masquerade && !key.is_fwmark();
    let port = port.filter(|_| is_free).unwrap_or(key.port);
    (DestKey::new(family, addr, port), spec)
}

/// The service at one place.
fn service(template: &Template, at: &At, servers: Option<Family>) -> Result<Service, String> {
    let key = match at {
        At::Mark(mark, family) => {
            let family = family.or(template.family).or(servers).unwrap_or(Family::V4);
            ServiceKey::fwmark(family, *mark)
        }
        At::Address(ip, port) => {
            let (family, addr) = Addr::from_ip(*ip);
            ServiceKey::address(family, template.protocol, addr, *port)
        }
    };
    let mut spec = template.spec;
    let is_v6 = key.family() == Family::V6;
    if is_v6 {
        spec.netmask = 128_u32.to_ne_bytes();
    }
    if let Some(text) = &template.granularity {
        let len = text.parse::<u32>().ok();
        spec.netmask = match (text.parse::<Ipv4Addr>(), len) {
            (Ok(mask), _) if !is_v6 => mask.octets(),
            (_, Some(len @ 1..=128)) if is_v6 => len.to_ne_bytes(),
            (_, Some(len @ 1..=32)) if !is_v6 => (u32::MAX << (32 - len)).to_be_bytes(),
            _ => return Err(format!("persistence_granularity {text}: no netmask of this family")),
        };
    }
    Ok(Service { key, spec, dests: Vec::new(), health: Health::default() })
}

/// Takes an option of a virtual server; says why it is left out.
fn option(template: &mut Template, item: &Item) -> Result<(), String> {
    let words = item.rest();
    if let Some(taken) = template.checks.take(item) {
        return taken;
    }
    if let Some(taken) = health_option(template, item) {
        return taken;
    }
    let spec = &mut template.spec;
    match (item.name(), &words[..]) {
        ("lb_algo" | "lvs_sched", [name]) => spec.scheduler = (*name).into(),
        ("lb_kind" | "lvs_method", words) => template.way = method(words)?,
        ("protocol", [name]) => {
            template.protocol = match name.to_ascii_uppercase().as_str() {
                "TCP" => 6,
                "UDP" => 17,
                "SCTP" => 132,
                _ => return Err("no protocol of IPVS, so TCP".into()),
            };
        }
        ("persistence_timeout", words) => {
            spec.timeout = match words {
                [] => PERSISTENCE,
                [seconds] => seconds.parse().map_err(|_bad| "no time in seconds")?,
                _ => return Err("one time in seconds".into()),
            };
            spec.flags |= ServiceFlags::PERSISTENT;
        }
        ("persistence_granularity", [mask]) => {
            template.granularity = Some((*mask).to_owned());
            // As keepalived does.
            spec.flags |= ServiceFlags::PERSISTENT;
            if spec.timeout == 0 {
                spec.timeout = PERSISTENCE;
            }
        }
        ("persistence_engine", [name]) => spec.engine = (*name).into(),
        ("ops", []) => spec.flags |= ServiceFlags::ONE_PACKET,
        ("flag-1" | "sh-fallback" | "mh-fallback", []) => spec.flags |= ServiceFlags::SCHED_1,
        ("flag-2" | "sh-port" | "mh-port", []) => spec.flags |= ServiceFlags::SCHED_2,
        ("flag-3", []) => spec.flags |= ServiceFlags::SCHED_3,
        ("weight", [weight]) => template.weight = number(weight)?,
        ("ip_family", ["inet"]) => template.family = Some(Family::V4),
        ("ip_family", ["inet6"]) => template.family = Some(Family::V6),
        (name, _) => return Err(left_out(name).into()),
    }
    Ok(())
}

/// The same of an option about health; `None` for another.
fn health_option(template: &mut Template, item: &Item) -> Option<Result<(), String>> {
    let words = item.rest();
    let positive = |word: &str| match word.parse() {
        Ok(number @ 1..) => Ok(number),
        _ => Err("no number from 1 on".to_owned()),
    };
    let health = &mut template.health;
    Some(match (item.name(), &words[..]) {
        ("quorum", [word]) => positive(word).map(|quorum| health.quorum = quorum),
        ("hysteresis", ["0"]) => Ok(()),
        ("hysteresis", [word]) => positive(word).map(|number| health.hysteresis = number),
        ("alpha", []) => {
            health.initial = Initial::Down;
            Ok(())
        }
        ("inhibit_on_failure", []) => {
            health.on_failure = OnFailure::Inhibit;
            Ok(())
        }
        ("sorry_server", [ip, port @ ..]) => {
            let port = port.first().map(|port| port.parse()).transpose();
            match (ip.parse(), port) {
                (Ok(ip), Ok(port)) => {
                    template.sorry = Some((ip, port));
                    Ok(())
                }
                _ => Err("this is no address with a port".into()),
            }
        }
        ("sorry_server_lvs_method", words) => method(words).map(|way| {
            template.sorry_way = Some(way);
        }),
        _ => return None,
    })
}

/// Why an option is left out.
fn left_out(name: &str) -> &'static str {
    match name {
        name if name.starts_with('@') => "only for a configuration id",
        "BFD_CHECK" | "PING_CHECK" | "FILE_CHECK" => "there is no such check here",
        "alpha" | "inhibit_on_failure" => "only of a whole virtual server",
        "sorry_server_inhibit" => "the sorry server is there while it is needed",
        "quorum_up" | "quorum_down" | "notify_up" | "notify_down" | "smtp_alert" => {
            "nothing is run or told here"
        }
        _ => "this is not known here",
    }
}

fn number(word: &str) -> Result<i32, String> {
    match word.parse() {
        Ok(number @ 0..) => Ok(number),
        _ => Err("no number from 0 to 2147483647".into()),
    }
}

fn method(words: &[&str]) -> Result<Way, String> {
    let (name, rest) = words.split_first().ok_or("NAT, DR or TUN")?;
    let mut method = match name.to_ascii_uppercase().as_str() {
        "NAT" => NAT,
        "DR" => Way { method: ForwardingMethod::DirectRoute, ..NAT },
        "TUN" => Way { method: ForwardingMethod::Tunnel, ..NAT },
        _ => return Err("no method of IPVS: NAT, DR or TUN".into()),
    };
    if rest.is_empty() {
        return Ok(method);
    }
    let bad = || "no type of tunnel".to_owned();
    if method.method != ForwardingMethod::Tunnel {
        return Err(bad());
    }
    let rest = match rest {
        ["type", "ipip", rest @ ..] => rest,
        ["type", "gre", rest @ ..] => {
            method.tunnel_type = DestSpec::GRE;
            rest
        }
        ["type", "gue", "port", port, rest @ ..] => {
            method.tunnel_type = DestSpec::GUE;
            method.tunnel_port = port.parse().map_err(|_bad| "no port of a tunnel".to_owned())?;
            rest
        }
        _ => return Err(bad()),
    };
    method.tunnel_flags = match rest {
        [] | ["nocsum"] => 0,
        ["csum"] => DestSpec::CHECKSUM,
        ["remcsum"] => DestSpec::REMOTE_CHECKSUM,
        _ => return Err(bad()),
    };
    Ok(method)
}

/// A real server, for each place of its virtual server.
#[derive(Debug)]
struct Server {
    family: Family,
    addr: Addr,
    /// The virtual server's if there is none.
    port: Option<u16>,
    spec: DestSpec,
    checks: Vec<Check>,
}

fn real_server(import: &mut Import, item: &Item, template: &Template) -> Option<Server> {
    let words = item.rest();
    let read = match &words[..] {
        [ip] => ip.parse().ok().map(|ip: IpAddr| (ip, None)),
        [ip, port] => ip.parse().ok().zip(port.parse().ok().map(Some)),
        _ => None,
    };
    let Some((ip, port)) = read else {
        let text = format!("{}: this is no address with a port", item.words.join(" "));
        import.leave_out(&item.place, text);
        return None;
    };
    let (family, addr) = Addr::from_ip(ip);
    let (mut way, mut weight) = (template.way, template.weight);
    let (mut upper, mut lower) = (0, 0);
    let mut defaults = template.checks.clone();
    let items = item.block.as_deref().unwrap_or_default();
    for item in items.iter().filter(|item| !CHECKERS.contains(&item.name())) {
        let words = item.rest();
        let threshold = |word: &str| word.parse().map_err(|_bad| "no number".to_owned());
        let taken = match (item.name(), &words[..]) {
            ("weight", [word]) => number(word).map(|number| weight = number),
            ("lb_kind" | "lvs_method", words) => method(words).map(|method| way = method),
            ("uthreshold", [word]) => threshold(word).map(|number| upper = number),
            ("lthreshold", [word]) => threshold(word).map(|number| lower = number),
            (name, _) => defaults.take(item).unwrap_or_else(|| Err(left_out(name).into())),
        };
        if let Err(why) = taken {
            import.leave_out(&item.place, format!("{}: {why}", item.words.join(" ")));
        }
    }
    let spec = DestSpec { upper, lower, ..way.spec(weight) };
    let mut all = Vec::new();
    for item in items.iter().filter(|item| CHECKERS.contains(&item.name())) {
        for check in checks(import, item, &defaults, port) {
            if all.contains(&check) {
                import.leave_out(&item.place, "this check is there already");
            } else {
                all.push(check);
            }
        }
    }
    Some(Server { family, addr, port, spec, checks: all })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn addrs(text: &str) -> Vec<String> {
        range(text).unwrap().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn ranges_are_those_of_keepalived() {
        assert_eq!(addrs("192.0.2.9-11"), ["192.0.2.9", "192.0.2.10", "192.0.2.11"]);
        assert_eq!(addrs("192.0.2.255-192.0.3.0"), ["192.0.2.255", "192.0.3.0"]);
        assert_eq!(addrs("192.0.2.9/31"), ["192.0.2.8", "192.0.2.9"]);
        assert_eq!(addrs("2001:db8::f-10"), ["2001:db8::f", "2001:db8::10"]);
        for bad in ["192.0.2.9-8", "192.0.2.0/8", "192.0.2.9-x", "here", "192.0.2.1-2001:db8::1"] {
            assert!(range(bad).is_err(), "{bad}");
        }
    }
}
