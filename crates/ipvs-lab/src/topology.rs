//! The classical laboratory of a director: a client, a director, and real servers that can be
//! reached by every forwarding method.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::{
    Decapsulator, HttpServer, Link, MacAddr, Namespace, Route, UdpEcho,
    error::{Error, Result},
    link::{End, bridge, veth},
};

/// The virtual IPv4 address of every lab.
pub const VIP4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 100);
/// The virtual IPv6 address of every lab.
pub const VIP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xc, 0, 0, 0, 0, 0x100);

/// Number of the director's host part on both segments.
const DIRECTOR: u8 = 1;
/// Number of the client's host part on the client segment.
const CLIENT: u8 = 2;
/// Number of the router's host part on both segments.
const ROUTER: u8 = 254;
/// Host part of the first real server.
const FIRST_SERVER: u8 = 11;
/// As many as fit between the first server and the router.
const MAX_SERVERS: usize = (ROUTER - FIRST_SERVER) as usize;

/// The table by which a real server answers for a virtual address.
const VIP_TABLE: u32 = 100;

/// How long a new interface may take to get its carrier.
pub(crate) const CARRIER_TIMEOUT: Duration = Duration::from_secs(5);

/// One of the two Ethernet segments of the lab.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segment {
    /// 192.0.2.0/24 and `2001:db8:c::/64`, with the client and the virtual addresses.
    Client,
    /// 10.1.0.0/24 and `2001:db8:5::/64`, with the real servers.
    Server,
}

impl Segment {
    /// The IPv4 and the IPv6 address of a host, each with the segment's prefix length.
    fn addresses(self, host: u8) -> [IpNet; 2] {
        let (v4, v6) = match self {
            Self::Client => (Ipv4Addr::new(192, 0, 2, host), 0xc),
            Self::Server => (Ipv4Addr::new(10, 1, 0, host), 5),
        };
        let v6 = Ipv6Addr::new(0x2001, 0xdb8, v6, 0, 0, 0, 0, host.into());
        [IpNet::V4(Ipv4Net::new_assert(v4, 24)), IpNet::V6(Ipv6Net::new_assert(v6, 64))]
    }

    const fn mac(self, host: u8) -> MacAddr {
        match self {
            Self::Client => MacAddr::local(0xc, host),
            Self::Server => MacAddr::local(5, host),
        }
    }

    const fn bridge_name(self) -> &'static str {
        match self {
            Self::Client => "client-side",
            Self::Server => "server-side",
        }
    }
}

/// What a [`Topology`] is to look like.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How many real servers there are.
    pub servers: usize,
    /// MTU of the client segment.
    pub client_mtu: u32,
    /// MTU of the server segment. More than the client's leaves room for a tunnel's header.
    pub server_mtu: u32,
    /// Whether the director's kernel owns the virtual addresses (and so answers ARP and
    /// neighbour discovery for them).
    pub director_owns_vips: bool,
}

impl Default for Plan {
    /// Three real servers, 1500 octets everywhere, virtual addresses owned by the director.
    fn default() -> Self {
        Self { servers: 3, client_mtu: 1500, server_mtu: 1500, director_owns_vips: true }
    }
}

impl Plan {
    /// The default plan with this many real servers.
    #[must_use]
    pub fn with_servers(servers: usize) -> Self {
        Self { servers, ..Self::default() }
    }

    /// Builds the lab. What was built is removed if a step fails.
    pub fn build(&self) -> Result<Topology> {
        Topology::build(self)
    }
}

/// The lab of a director.
///
/// ```text
///   client ─────┐ 192.0.2.0/24        10.1.0.0/24 ┌───── rs1   HTTP, UDP echo,
///   192.0.2.2   │ 2001:db8:c::/64 2001:db8:5::/64 │      10.1.0.11      decapsulator
///               ├────────── director ─────────────┤
///               │  .1, VIP              .1        ├───── rs2
///               │                                 │      10.1.0.12
///               └────────── router ───────────────┤
///                  .254                 .254      └───── …
/// ```
///
/// * Requests go from the client to the VIP, an address of the director.
/// * A real server's default route is the director: the way back for masquerading.
/// * Every real server has the VIP on `lo` and neither answers nor asks ARP with it. What it sends
///   from the VIP goes by the router: the way back for direct routing and tunnels. It cannot be
///   the director, which takes packets from its own address for forged.
/// * Both segments are bridges in a namespace of their own, so the real servers share one
///   Ethernet, and so do client, director and router.
#[derive(Debug)]
pub struct Topology {
    client: Namespace,
    director: Namespace,
    router: Namespace,
    switch: Namespace,
    servers: Vec<ServerHost>,
    client_link: Link,
    director_links: [Link; 2],
    router_links: [Link; 2],
    owned_by_director: bool,
}

/// The namespace of a real server.
#[derive(Clone, Debug)]
pub struct ServerHost {
    namespace: Namespace,
    link: Link,
    addresses: [IpNet; 2],
}

impl Topology {
    /// The director's interface on the client segment.
    pub const DIRECTOR_CLIENT_SIDE: &str = "client0";
    /// The director's interface on the server segment.
    pub const DIRECTOR_SERVER_SIDE: &str = "server0";

    fn build(plan: &Plan) -> Result<Self> {
        if plan.servers > MAX_SERVERS {
            return Err(Error::Misuse("there is no room for so many real servers"));
        }
        let switch = Switch::new(plan)?;

        let client = Namespace::for_lab("client")?;
        let client_link = switch.plug(Segment::Client, &client, "eth0", CLIENT)?;

        let director = Namespace::for_lab("director")?;
        director.forward_packets()?;
        let director_links = [
            switch.plug(Segment::Client, &director, Self::DIRECTOR_CLIENT_SIDE, DIRECTOR)?,
            switch.plug(Segment::Server, &director, Self::DIRECTOR_SERVER_SIDE, DIRECTOR)?,
        ];

        let router = Namespace::for_lab("router")?;
        router.forward_packets()?;
        let router_links = [
            switch.plug(Segment::Client, &router, "client0", ROUTER)?,
            switch.plug(Segment::Server, &router, "server0", ROUTER)?,
        ];

        for (servers, director) in
            Segment::Server.addresses(0).into_iter().zip(Segment::Client.addresses(DIRECTOR))
        {
            client.add_route(Route::via(servers.trunc(), director.addr()))?;
        }
        let servers = (0..plan.servers)
            .map(|index| ServerHost::build(&switch, index))
            .collect::<Result<Vec<_>>>()?;

        let built = Self {
            client,
            director,
            router,
            switch: switch.namespace,
            servers,
            client_link,
            director_links,
            router_links,
            owned_by_director: plan.director_owns_vips,
        };
        built.links().try_for_each(|link| link.wait_until_running(CARRIER_TIMEOUT))?;
        built.add_vip(VIP4.into())?;
        built.add_vip(VIP6.into())?;
        Ok(built)
    }

    /// The interfaces of all hosts.
    pub fn links(&self) -> impl Iterator<Item = &Link> {
        let ends = [&self.client_link].into_iter().chain(&self.director_links);
        ends.chain(&self.router_links).chain(self.servers.iter().map(|server| &server.link))
    }

    /// Turns off offloads on all hosts, so that every frame is as it would be on a wire: checksums
    /// filled, none larger than the MTU. XDP programs and packet sockets without virtio-net
    /// headers need it.
    pub fn disable_offloads(&self) -> Result<()> {
        self.links().try_for_each(Link::disable_offloads)
    }

    /// Makes `vip` a virtual address: one of the director (if the plan says so), and one of every
    /// real server's `lo`. The lab starts with [`VIP4`] and [`VIP6`]; another should be on the
    /// client segment too.
    pub fn add_vip(&self, vip: IpAddr) -> Result<()> {
        if self.owned_by_director {
            self.director_client_side().add_address(vip.into())?;
        }
        self.servers.iter().try_for_each(|server| server.answer_for(vip))
    }

    /// The client's namespace.
    pub fn client(&self) -> &Namespace {
        &self.client
    }

    /// The director's namespace.
    pub fn director(&self) -> &Namespace {
        &self.director
    }

    /// The namespace of the router between both segments.
    pub fn router(&self) -> &Namespace {
        &self.router
    }

    /// The namespace of both bridges.
    pub fn switch(&self) -> &Namespace {
        &self.switch
    }

    /// The real servers' hosts, in the order of their addresses.
    pub fn servers(&self) -> &[ServerHost] {
        &self.servers
    }

    /// The client's interface.
    pub fn client_link(&self) -> &Link {
        &self.client_link
    }

    /// The director's interface on the client segment, with the virtual addresses.
    pub fn director_client_side(&self) -> &Link {
        &self.director_links[0]
    }

    /// The director's interface on the server segment.
    pub fn director_server_side(&self) -> &Link {
        &self.director_links[1]
    }

    /// The client's address of the same family as `like`.
    pub fn client_address(&self, like: IpAddr) -> IpAddr {
        of_family(&Segment::Client.addresses(CLIENT), like)
    }

    /// The director's own address on a segment, of the same family as `like`.
    pub fn director_address(&self, segment: Segment, like: IpAddr) -> IpAddr {
        of_family(&segment.addresses(DIRECTOR), like)
    }

    /// Starts web server, UDP echo and decapsulator on every real server.
    pub fn serve(&self, port: u16) -> Result<Vec<RealServer>> {
        self.servers.iter().map(|host| host.serve(port)).collect()
    }
}

impl ServerHost {
    fn build(switch: &Switch, index: usize) -> Result<Self> {
        let host = u8::try_from(index)
            .ok()
            .and_then(|index| FIRST_SERVER.checked_add(index))
            .ok_or(Error::Misuse("there is no room for so many real servers"))?;
        let namespace = Namespace::for_lab(&format!("rs{}", index + 1))?;
        namespace.sysctl("net/ipv4/conf/all/arp_ignore", "1")?;
        namespace.sysctl("net/ipv4/conf/all/arp_announce", "2")?;
        let link = switch.plug(Segment::Server, &namespace, "eth0", host)?;
        for director in Segment::Server.addresses(DIRECTOR) {
            namespace.add_route(Route::default_via(director.addr()))?;
        }
        for router in Segment::Server.addresses(ROUTER) {
            namespace.add_route(Route::default_via(router.addr()).table(VIP_TABLE))?;
        }
        Ok(Self { namespace, link, addresses: Segment::Server.addresses(host) })
    }

    fn answer_for(&self, vip: IpAddr) -> Result<()> {
        self.namespace.link("lo")?.add_address(vip.into())?;
        self.namespace.add_source_rule(vip.into(), VIP_TABLE)
    }

    /// The real server's name: `rs1` and so on.
    pub fn name(&self) -> &str {
        self.namespace.name()
    }

    /// The real server's namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The real server's interface.
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// The real server's own address of the same family as `like`.
    pub fn address(&self, like: IpAddr) -> IpAddr {
        of_family(&self.addresses, like)
    }

    /// The real server's own IPv4 address.
    pub fn v4(&self) -> IpAddr {
        self.address(VIP4.into())
    }

    /// The real server's own IPv6 address.
    pub fn v6(&self) -> IpAddr {
        self.address(VIP6.into())
    }

    /// Starts web server and UDP echo on `port`, and the decapsulator.
    pub fn serve(&self, port: u16) -> Result<RealServer> {
        Ok(RealServer {
            http: HttpServer::start(&self.namespace, self.name(), port)?,
            udp: UdpEcho::start(&self.namespace, self.name(), port)?,
            decapsulator: Decapsulator::start(&self.link)?,
            host: self.clone(),
        })
    }
}

/// What runs on a real server; it stops when dropped.
#[derive(Debug)]
pub struct RealServer {
    /// Where it runs.
    pub host: ServerHost,
    /// The web server.
    pub http: HttpServer,
    /// The UDP echo.
    pub udp: UdpEcho,
    /// What unpacks tunnelled packets.
    pub decapsulator: Decapsulator,
}

fn of_family(addresses: &[IpNet; 2], like: IpAddr) -> IpAddr {
    let [v4, v6] = addresses;
    if like.is_ipv4() { v4.addr() } else { v6.addr() }
}

/// Both segments, each a bridge.
struct Switch {
    namespace: Namespace,
    bridges: [Link; 2],
    mtus: [u32; 2],
}

impl Switch {
    fn new(plan: &Plan) -> Result<Self> {
        let namespace = Namespace::for_lab("switch")?;
        // A switch is no host: it has no business on the segments.
        namespace.sysctl("net/ipv6/conf/all/disable_ipv6", "1")?;
        namespace.sysctl("net/ipv6/conf/default/disable_ipv6", "1")?;
        let mtus = [plan.client_mtu, plan.server_mtu];
        let bridges = [
            bridge(&namespace, Segment::Client.bridge_name(), Some(plan.client_mtu))?,
            bridge(&namespace, Segment::Server.bridge_name(), Some(plan.server_mtu))?,
        ];
        Ok(Self { namespace, bridges, mtus })
    }

    /// Gives a host an interface on a segment, with its addresses there.
    fn plug(&self, segment: Segment, host: &Namespace, name: &str, number: u8) -> Result<Link> {
        let ([client, server], [client_mtu, server_mtu]) = (&self.bridges, self.mtus);
        let (bridge, mtu) = match segment {
            Segment::Client => (client, client_mtu),
            Segment::Server => (server, server_mtu),
        };
        let side = if segment == Segment::Client { 'c' } else { 's' };
        let port_name = format!("{side}-{}", host.name());
        let (link, port) = veth(
            End::new(host, name).mac(segment.mac(number)),
            End::new(&self.namespace, &port_name),
            Some(mtu),
        )?;
        port.join(bridge)?;
        for address in segment.addresses(number) {
            link.add_address(address)?;
        }
        Ok(link)
    }
}
