//! Pieces of a listing: names, numbers, flags.

use ipvs_core::addr::{Addr, Family};
use ipvs_core::dest::DestSpec;
use ipvs_core::service::{ServiceFlags, ServiceKey, ServiceSpec};

use super::super::names::Names;

/// How addresses and ports are written.
#[derive(Clone, Copy)]
pub(crate) struct Naming<'a> {
    /// As numbers (`-n`).
    pub(crate) numeric: bool,
    /// Where names come from.
    pub(crate) names: &'a dyn Names,
}

impl Naming<'_> {
    /// An address and a port of `protocol`; 0 for a protocol leaves the port a number.
    pub(crate) fn endpoint(&self, family: Family, addr: Addr, port: u16, protocol: u8) -> String {
        let ip = addr.to_ip(family);
        let (host, service) = if self.numeric {
            (None, None)
        } else {
            (self.names.host_name(ip), self.names.service_name(port, protocol))
        };
        let host = host.unwrap_or_else(|| ip.to_string());
        let service = service.unwrap_or_else(|| port.to_string());
        match family {
            Family::V4 => format!("{host}:{service}"),
            Family::V6 => format!("[{host}]:{service}"),
        }
    }

    /// A service as the first column of a listing shows it.
    pub(crate) fn service(&self, key: &ServiceKey) -> String {
        if key.is_fwmark() {
            let family = if key.family() == Family::V6 { " IPv6" } else { "" };
            return format!("FWM  {}{family}", key.fwmark.cast_signed());
        }
        let protocol = match key.protocol {
            6 => "TCP",
            17 => "UDP",
            132 => "SCTP",
            _ => "?",
        };
        let name = self.endpoint(key.family(), key.addr, key.port, key.protocol);
        cut(format!("{protocol:<4} {name}"), key.family(), 33)
    }

    /// A destination as the second column of a listing shows it.
    pub(crate) fn dest(&self, family: Family, addr: Addr, port: u16, protocol: u8) -> String {
        cut(self.endpoint(family, addr, port, protocol), family, 28)
    }
}

/// Cuts a text with an IPv4 address to its column; with IPv6 it may be longer.
fn cut(mut text: String, family: Family, width: usize) -> String {
    if family == Family::V4 && text.len() > width {
        let mut end = width;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
    }
    text
}

/// A number of nine columns, the larger ones with K, M, G or T unless `exact`.
pub(crate) fn number(value: u64, exact: bool) -> String {
    const UNITS: [(u64, u64, char); 4] = [
        (1_000_000_000, 1_000, 'K'),
        (100_000_000_000, 1_000_000, 'M'),
        (100_000_000_000_000, 1_000_000_000, 'G'),
        (u64::MAX, 1_000_000_000_000, 'T'),
    ];
    if exact {
        let width = value.to_string().len().max(8) + 1;
        return format!("{value:>width$}");
    }
    if value < 100_000_000 {
        return format!("{value:>9}");
    }
    let unit = UNITS.iter().find(|(below, ..)| value < *below).or(UNITS.last());
    unit.map_or_else(String::new, |(_, divisor, letter)| format!("{:>8}{letter}", value / divisor))
}

/// The scheduler's flags by name, or nothing without any.
pub(crate) fn sched_flags(spec: &ServiceSpec) -> Option<String> {
    let names: &[(u32, &str)] = match spec.scheduler.as_str() {
        "sh" => &[(ServiceFlags::SCHED_1, "sh-fallback"), (ServiceFlags::SCHED_2, "sh-port")],
        "mh" => &[(ServiceFlags::SCHED_1, "mh-fallback"), (ServiceFlags::SCHED_2, "mh-port")],
        _ => &[
            (ServiceFlags::SCHED_1, "flag-1"),
            (ServiceFlags::SCHED_2, "flag-2"),
            (ServiceFlags::SCHED_3, "flag-3"),
        ],
    };
    let any = ServiceFlags::SCHED_1 | ServiceFlags::SCHED_2 | ServiceFlags::SCHED_3;
    let given = names.iter().filter(|(bit, _)| spec.flags & bit != 0);
    (spec.flags & any != 0).then(|| given.map(|(_, name)| *name).collect::<Vec<_>>().join(","))
}

/// The mask of a persistent service, unless it is that of a single address.
pub(crate) fn mask(family: Family, spec: &ServiceSpec) -> Option<String> {
    let prefix = u32::from_ne_bytes(spec.netmask);
    match family {
        Family::V4 if spec.netmask == [255; 4] => None,
        Family::V4 => Some(Addr::v4(spec.netmask).to_ip(Family::V4).to_string()),
        Family::V6 if prefix == 128 => None,
        Family::V6 => Some(prefix.to_string()),
    }
}

/// A forwarding method as a column shows it.
pub(crate) const fn method(spec: &DestSpec) -> &'static str {
    match spec.method & 7 {
        0 => "Masq",
        1 => "Local",
        2 => "Tunnel",
        3 => "Route",
        _ => "(null)",
    }
}

/// The tunnel of a destination as `--tun-info` shows it.
pub(crate) fn tunnel(spec: &DestSpec) -> String {
    let flag = match spec.tunnel_flags {
        1 => "+c",
        2 => "r+c",
        _ => "-c",
    };
    match (spec.method & 7, spec.tunnel_type) {
        (2, 0) => "ipip".to_owned(),
        (2, 1) => format!("gue:{}:{flag}", spec.tunnel_port),
        (2, 2) => format!("gre:{flag}"),
        _ => "n/a".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_numbers_are_cut_not_rounded() {
        for (value, expect) in [
            (0, "        0"),
            (99_999_999, " 99999999"),
            (100_000_000, "  100000K"),
            (999_999_999, "  999999K"),
            (1_000_000_000, "    1000M"),
            (99_999_999_999, "   99999M"),
            (100_000_000_000, "     100G"),
            (99_999_999_999_999, "   99999G"),
            (100_000_000_000_000, "     100T"),
            (u64::MAX, "18446744T"),
        ] {
            assert_eq!(number(value, false), expect);
        }
    }

    #[test]
    fn exact_numbers_grow_to_the_left() {
        assert_eq!(number(7, true), "        7");
        assert_eq!(number(99_999_999, true), " 99999999");
        assert_eq!(number(123_456_789, true), " 123456789");
    }
}
