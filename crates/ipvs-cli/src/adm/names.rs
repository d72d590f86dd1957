//! Names of hosts and of services at ports.

use std::cell::OnceCell;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, ToSocketAddrs};

/// Where names come from.
pub trait Names {
    /// The first IPv4 address of a host.
    fn host_addr(&self, name: &str) -> Option<Ipv4Addr>;
    /// The name of the host with an address.
    fn host_name(&self, ip: IpAddr) -> Option<String>;
    /// The port of a service of an IANA protocol.
    fn service_port(&self, name: &str, protocol: u8) -> Option<u16>;
    /// The name of the service at a port of an IANA protocol.
    fn service_name(&self, port: u16, protocol: u8) -> Option<String>;
}

/// No names at all.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoNames;

impl Names for NoNames {
    fn host_addr(&self, _: &str) -> Option<Ipv4Addr> {
        None
    }

    fn host_name(&self, _: IpAddr) -> Option<String> {
        None
    }

    fn service_port(&self, _: &str, _: u8) -> Option<u16> {
        None
    }

    fn service_name(&self, _: u16, _: u8) -> Option<String> {
        None
    }
}

/// The names that this host knows: its resolver's and `/etc/services`.
#[derive(Debug, Default)]
pub struct SystemNames {
    services: OnceCell<Services>,
}

impl SystemNames {
    fn services(&self) -> &Services {
        self.services.get_or_init(|| {
            Services::parse(&fs::read_to_string("/etc/services").unwrap_or_default())
        })
    }
}

impl Names for SystemNames {
    fn host_addr(&self, name: &str) -> Option<Ipv4Addr> {
        if name.is_empty() {
            return None;
        }
        (name, 0).to_socket_addrs().ok()?.find_map(|addr| match addr.ip() {
            IpAddr::V4(ip) => Some(ip),
            IpAddr::V6(_) => None,
        })
    }

    fn host_name(&self, ip: IpAddr) -> Option<String> {
        // An address without a name comes back as a number.
        dns_lookup::lookup_addr(&ip).ok().filter(|name| name.parse::<IpAddr>().is_err())
    }

    fn service_port(&self, name: &str, protocol: u8) -> Option<u16> {
        self.services().port(name, protocol)
    }

    fn service_name(&self, port: u16, protocol: u8) -> Option<String> {
        self.services().name(port, protocol)
    }
}

/// The contents of a file like `/etc/services`.
///
/// The C library would do for TCP and UDP, but its portable calls know no SCTP.
#[derive(Clone, Debug, Default)]
pub struct Services {
    /// Names (the official one first), port and protocol.
    entries: Vec<(Vec<String>, u16, String)>,
}

impl Services {
    /// Reads lines of `name port/protocol alias…`.
    pub fn parse(text: &str) -> Self {
        let entry = |line: &str| {
            let mut words = line.split('#').next()?.split_ascii_whitespace();
            let name = words.next()?.to_owned();
            let (port, protocol) = words.next()?.split_once('/')?;
            let names = std::iter::once(name).chain(words.map(str::to_owned)).collect();
            Some((names, port.parse().ok()?, protocol.to_owned()))
        };
        Self { entries: text.lines().filter_map(entry).collect() }
    }

    /// The port of a service.
    pub fn port(&self, name: &str, protocol: u8) -> Option<u16> {
        let protocol = protocol_name(protocol)?;
        let entry = self
            .entries
            .iter()
            .find(|(names, _, of)| of == protocol && names.iter().any(|known| known == name));
        entry.map(|(_, port, _)| *port)
    }

    /// The official name of the service at a port.
    pub fn name(&self, port: u16, protocol: u8) -> Option<String> {
        let protocol = protocol_name(protocol)?;
        let entry = self.entries.iter().find(|(_, at, of)| *at == port && of == protocol);
        entry.and_then(|(names, ..)| names.first().cloned())
    }
}

/// What a protocol is called in `/etc/services`.
const fn protocol_name(protocol: u8) -> Option<&'static str> {
    match protocol {
        6 => Some("tcp"),
        17 => Some("udp"),
        132 => Some("sctp"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_found_by_name_alias_and_port() {
        let services = Services::parse(
            "# comment\nhttp 80/tcp www # the web\ndomain\t53/udp\n\nbad\nworse x/tcp\n",
        );
        assert_eq!(services.port("http", 6), Some(80));
        assert_eq!(services.port("www", 6), Some(80));
        assert_eq!(services.port("HTTP", 6), None);
        assert_eq!(services.port("http", 17), None);
        assert_eq!(services.name(80, 6).as_deref(), Some("http"));
        assert_eq!(services.name(53, 6), None);
        assert_eq!(services.name(53, 0), None);
    }
}
