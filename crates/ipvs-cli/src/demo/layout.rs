//! Who is where in the demo: the lab, its virtual services, and what a real
//! server must see of a request to each.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipvs_lab::{Decapsulator, HttpServer, Plan, Seen, ServerHost, Topology, UdpEcho, VIP4, VIP6};

/// Weights of the three real servers.
pub(super) const WEIGHTS: [u32; SERVERS] = [3, 2, 1];
/// How many real servers there are.
pub(super) const SERVERS: usize = 3;

/// Ports of the virtual services, and of the real servers but for masquerading.
const HTTP_PORT: u16 = 80;
const ECHO_PORT: u16 = 7;
/// Ports of the real servers for masquerading, which may change the port too.
const MASQUERADED_HTTP_PORT: u16 = 8080;
const MASQUERADED_ECHO_PORT: u16 = 7007;

/// How packets get to a real server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    Nat,
    DirectRouting,
    Tunnel,
}

impl Method {
    const ALL: [Self; 3] = [Self::Nat, Self::DirectRouting, Self::Tunnel];

    /// The option of ipvsadm.
    const fn option(self) -> &'static str {
        match self {
            Self::Nat => "-m",
            Self::DirectRouting => "-g",
            Self::Tunnel => "-i",
        }
    }

    /// Last part of the method's virtual addresses: 100, 101 or 102, in
    /// decimal for IPv4 and in hexadecimal for IPv6.
    const fn number(self) -> u8 {
        match self {
            Self::Nat => 0,
            Self::DirectRouting => 1,
            Self::Tunnel => 2,
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Nat => "NAT",
            Self::DirectRouting => "DR",
            Self::Tunnel => "tunnel",
        })
    }
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    /// HTTP, a new connection for each request.
    Tcp,
    /// An echo, a new port for each datagram.
    Udp,
}

impl Transport {
    /// The option of ipvsadm.
    const fn option(self) -> &'static str {
        match self {
            Self::Tcp => "-t",
            Self::Udp => "-u",
        }
    }

    pub(super) const fn scheduler(self) -> &'static str {
        match self {
            Self::Tcp => "wrr",
            Self::Udp => "wlc",
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        })
    }
}

/// A virtual service and its three destinations.
#[derive(Clone, Debug)]
pub(super) struct Service {
    pub(super) method: Method,
    pub(super) transport: Transport,
    pub(super) vip: SocketAddr,
    /// Name and address of each real server.
    pub(super) servers: Vec<(String, SocketAddr)>,
    /// The client's address.
    pub(super) client: IpAddr,
}

impl Service {
    /// The lines of ipvsadm that make it.
    pub(super) fn commands(&self) -> Vec<String> {
        let (transport, vip) = (self.transport.option(), self.vip);
        let mut lines = vec![format!("-A {transport} {vip} -s {}", self.transport.scheduler())];
        lines.extend((0..self.servers.len()).filter_map(|index| self.member("-a", index, None)));
        lines
    }

    /// The line of ipvsadm that gives a server a weight.
    pub(super) fn reweigh(&self, index: usize, weight: u32) -> Option<String> {
        self.member("-e", index, Some(weight))
    }

    fn member(&self, verb: &str, index: usize, weight: Option<u32>) -> Option<String> {
        let (_, real) = self.servers.get(index)?;
        let weight = weight.or_else(|| WEIGHTS.get(index).copied())?;
        let (transport, vip, method) = (self.transport.option(), self.vip, self.method.option());
        Some(format!("{verb} {transport} {vip} -r {real} {method} -w {weight}"))
    }

    /// The position of the server that answered, if it is one of this
    /// service's and saw what it must: the client as it is, and its own address
    /// when it is masqueraded, else the virtual one.
    pub(super) fn check(
        &self,
        server: &str,
        seen: Option<Seen>,
        local_port: u16,
    ) -> Result<usize, String> {
        let index = self.servers.iter().position(|(name, _)| name == server);
        let Some((index, (_, real))) = index.and_then(|at| Some((at, self.servers.get(at)?)))
        else {
            return Err(format!("answered by {server:?}, which is no real server"));
        };
        let at = if self.method == Method::Nat { *real } else { self.vip };
        let expected = Seen { client: SocketAddr::new(self.client, local_port), at };
        match seen {
            Some(seen) if seen == expected => Ok(index),
            Some(seen) => Err(format!("{server} saw {seen}, not {expected}")),
            None => Err(format!("{server} does not say what it saw")),
        }
    }
}

/// NAT, IPv4, TCP: as words in a line.
impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = if self.vip.is_ipv4() { "IPv4" } else { "IPv6" };
        write!(f, "{:<6} {family} {}", self.method, self.transport)
    }
}

/// What runs on one real server.
#[derive(Debug)]
struct Running {
    _http: [HttpServer; 2],
    _udp: [UdpEcho; 2],
    decapsulator: Decapsulator,
}

/// The lab with everything that runs in it, but for the director's daemon.
#[derive(Debug)]
pub(super) struct Site {
    // First, so that servers end before their namespaces.
    servers: Vec<Running>,
    pub(super) services: Vec<Service>,
    pub(super) lab: Topology,
}

impl Site {
    /// Builds it; the plane in user space answers for the virtual addresses
    /// itself, before the other the director's kernel does.
    pub(super) fn build(director_owns_vips: bool) -> ipvs_lab::Result<Self> {
        // Room for a tunnel's header between director and real servers.
        let plan =
            Plan { servers: SERVERS, server_mtu: 1600, director_owns_vips, ..Plan::default() };
        let lab = plan.build()?;
        for method in [Method::DirectRouting, Method::Tunnel] {
            vips(method).into_iter().try_for_each(|vip| lab.add_vip(vip))?;
        }
        let servers = lab.servers().iter().map(serve).collect::<Result<_, _>>()?;
        let services = services(&lab);
        Ok(Self { servers, services, lab })
    }

    /// Packets that the real servers have unpacked so far.
    pub(super) fn unpacked(&self) -> u64 {
        self.servers.iter().map(|server| server.decapsulator.stats().unpacked).sum()
    }

    /// The services of one method and family at a time.
    pub(super) fn combinations(&self) -> impl Iterator<Item = &[Service]> {
        self.services.chunk_by(|a, b| a.vip.ip() == b.vip.ip())
    }

    /// The service of this kind.
    pub(super) fn service(
        &self,
        method: Method,
        transport: Transport,
        v4: bool,
    ) -> Option<&Service> {
        self.services.iter().find(|service| {
            service.method == method
                && service.transport == transport
                && service.vip.is_ipv4() == v4
        })
    }
}

/// The two virtual addresses of a method.
fn vips(method: Method) -> [IpAddr; 2] {
    let [a, b, c, last] = VIP4.octets();
    let v4 = Ipv4Addr::new(a, b, c, last.saturating_add(method.number()));
    let v6 = Ipv6Addr::from_bits(VIP6.to_bits().saturating_add(method.number().into()));
    [v4.into(), v6.into()]
}

fn serve(host: &ServerHost) -> ipvs_lab::Result<Running> {
    let http = |port| HttpServer::start(host.namespace(), host.name(), port);
    let udp = |port| UdpEcho::start(host.namespace(), host.name(), port);
    Ok(Running {
        _http: [http(HTTP_PORT)?, http(MASQUERADED_HTTP_PORT)?],
        _udp: [udp(ECHO_PORT)?, udp(MASQUERADED_ECHO_PORT)?],
        decapsulator: Decapsulator::start(host.link())?,
    })
}

fn services(lab: &Topology) -> Vec<Service> {
    let mut services = Vec::new();
    for method in Method::ALL {
        for vip in vips(method) {
            for transport in [Transport::Tcp, Transport::Udp] {
                let (port, real_port) = match (transport, method) {
                    (Transport::Tcp, Method::Nat) => (HTTP_PORT, MASQUERADED_HTTP_PORT),
                    (Transport::Tcp, _) => (HTTP_PORT, HTTP_PORT),
                    (Transport::Udp, Method::Nat) => (ECHO_PORT, MASQUERADED_ECHO_PORT),
                    (Transport::Udp, _) => (ECHO_PORT, ECHO_PORT),
                };
                let real = |host: &ServerHost| {
                    (host.name().to_owned(), SocketAddr::new(host.address(vip), real_port))
                };
                services.push(Service {
                    method,
                    transport,
                    vip: SocketAddr::new(vip, port),
                    servers: lab.servers().iter().map(real).collect(),
                    client: lab.client_address(vip),
                });
            }
        }
    }
    services
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(method: Method) -> Service {
        Service {
            method,
            transport: Transport::Tcp,
            vip: "192.0.2.100:80".parse().unwrap(),
            servers: vec![
                ("rs1".to_owned(), "10.1.0.11:8080".parse().unwrap()),
                ("rs2".to_owned(), "10.1.0.12:8080".parse().unwrap()),
            ],
            client: "192.0.2.2".parse().unwrap(),
        }
    }

    #[test]
    fn a_service_is_made_by_lines_of_ipvsadm() {
        let expect = [
            "-A -t 192.0.2.100:80 -s wrr",
            "-a -t 192.0.2.100:80 -r 10.1.0.11:8080 -m -w 3",
            "-a -t 192.0.2.100:80 -r 10.1.0.12:8080 -m -w 2",
        ];
        assert_eq!(service(Method::Nat).commands(), expect);
    }

    #[test]
    fn an_answer_counts_when_the_server_saw_what_the_method_lets_it_see() {
        let seen = |text: &str| Some(text.parse().unwrap());
        let own = seen("192.0.2.2:5000 10.1.0.12:8080");
        let virtual_one = seen("192.0.2.2:5000 192.0.2.100:80");
        let (nat, direct) = (service(Method::Nat), service(Method::DirectRouting));
        assert_eq!(nat.check("rs2", own, 5000), Ok(1));
        assert!(nat.check("rs1", own, 5000).is_err(), "the address of another server");
        assert!(nat.check("rs2", virtual_one, 5000).is_err(), "not masqueraded");
        assert!(nat.check("rs2", own, 5001).is_err(), "the client's port was changed");
        assert!(nat.check("rs3", own, 5000).is_err(), "nobody of this name");
        assert!(nat.check("rs2", None, 5000).is_err());
        assert_eq!(direct.check("rs2", virtual_one, 5000), Ok(1));
        assert!(direct.check("rs2", own, 5000).is_err(), "masqueraded");
    }

    #[test]
    fn every_method_has_virtual_addresses_of_its_own() {
        let mut all: Vec<IpAddr> = Method::ALL.into_iter().flat_map(vips).collect();
        all.dedup();
        assert_eq!(all.len(), 6);
        assert_eq!(vips(Method::Tunnel)[1], "2001:db8:c::102".parse::<IpAddr>().unwrap());
    }
}
