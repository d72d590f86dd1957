//! Names as the machine of the transcripts had them.

use std::net::{IpAddr, Ipv4Addr};

use ipvs_cli::adm::names::{Names, Services};

/// Names from files.
#[derive(Debug)]
pub(crate) struct FileNames {
    hosts: Vec<(IpAddr, Vec<String>)>,
    services: Services,
}

impl FileNames {
    /// Reads the texts of `hosts` and `services`.
    pub(crate) fn parse(hosts: &str, services: &str) -> Self {
        let host = |line: &str| {
            let mut words = line.split_ascii_whitespace();
            let ip = words.next()?.parse().ok()?;
            Some((ip, words.map(str::to_owned).collect()))
        };
        let hosts = hosts.lines().filter_map(host).collect();
        Self { hosts, services: Services::parse(services) }
    }
}

impl Names for FileNames {
    fn host_addr(&self, name: &str) -> Option<Ipv4Addr> {
        self.hosts.iter().find_map(|(ip, names)| match ip {
            IpAddr::V4(ip) if names.iter().any(|known| known.eq_ignore_ascii_case(name)) => {
                Some(*ip)
            }
            _ => None,
        })
    }

    fn host_name(&self, ip: IpAddr) -> Option<String> {
        let (_, names) = self.hosts.iter().find(|(known, _)| *known == ip)?;
        names.first().cloned()
    }

    fn service_port(&self, name: &str, protocol: u8) -> Option<u16> {
        self.services.port(name, protocol)
    }

    fn service_name(&self, port: u16, protocol: u8) -> Option<String> {
        self.services.name(port, protocol)
    }
}
