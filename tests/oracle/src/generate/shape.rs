//! What a scenario of a topic is made of, as plain numbers, and how it is made
//! from them.

use std::net::SocketAddr;
use std::time::Duration;

use ipvs_conformance::subject::Trouble;

use super::Scene;
use super::flow::Flow;
use crate::rng::Rng;

use super::service::{
    Method, Protocol, Server, Service, client_address, server_address, virtual_address,
};

/// What a scenario is made of. Numbers are percentages where nothing else is said.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// Protocols of services.
    pub(crate) protocols: &'static [Protocol],
    /// Forwarding methods of destinations.
    pub(crate) methods: &'static [Method],
    /// Schedulers, with their flags.
    pub(crate) schedulers: &'static [&'static str],
    /// Further options of services.
    pub(crate) options: &'static [&'static str],
    /// Settings, each with values that it may get before the first step.
    pub(crate) settings: &'static [(&'static str, &'static [&'static str])],
    /// Services for any port.
    pub(crate) any_port: usize,
    /// Destinations with thresholds.
    pub(crate) thresholds: usize,
    /// Destinations without weight.
    pub(crate) quiescent: usize,
    /// Packets out of turn.
    pub(crate) odd: usize,
    /// New connections among packets.
    pub(crate) fresh: usize,
    /// Of new connections, those from ports that were used before.
    pub(crate) again: usize,
    /// Whether what begins a connection may come where there is one, which then
    /// makes way: the kernel counts it for a tick more than we do.
    pub(crate) reuses: bool,
    /// Edits among packets.
    pub(crate) edits: usize,
    /// Edits that may be made.
    pub(crate) kinds: &'static [Edit],
    /// Listings among packets.
    pub(crate) listings: usize,
    /// Packets with few hops left.
    pub(crate) tired: usize,
    /// What the servers' link may take, in octets.
    pub(crate) mtus: &'static [usize],
    /// Number of clients.
    pub(crate) clients: usize,
    /// Pauses among packets, where time goes by.
    pub(crate) waits: usize,
    /// How long they may be, in seconds.
    pub(crate) pauses: &'static [u64],
    /// Seconds after which lblc and lblcr forget, if they are looked at.
    pub(crate) forgets: Option<u64>,
    /// Least and greatest number of packets.
    pub(crate) packets: (usize, usize),
}

/// A change while packets come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Edit {
    /// A destination gets another weight, or other thresholds.
    Weight,
    /// A destination is taken away.
    DeleteServer,
    /// A destination comes, new or one that was there before.
    AddServer,
    /// A service gets another scheduler.
    Scheduler,
    /// A service is deleted.
    DeleteService,
    /// A service that was deleted comes again.
    AddService,
    /// The counters are set to zero.
    Zero,
    /// A setting gets another value.
    Setting,
    /// The timeouts that `ipvsadm --set` changes get other values.
    Timeouts,
}

impl Shape {
    /// What most topics start from.
    pub(crate) const PLAIN: Self = Self {
        protocols: &[Protocol::Tcp],
        methods: &[Method::Nat],
        schedulers: &["rr", "wrr", "lc", "wlc"],
        options: &[""],
        settings: &[],
        any_port: 0,
        thresholds: 0,
        quiescent: 5,
        odd: 10,
        fresh: 25,
        again: 0,
        reuses: false,
        edits: 0,
        kinds: &[],
        listings: 1,
        tired: 0,
        mtus: &[1500],
        clients: 20,
        waits: 2,
        pauses: &[3, 15, 65, 130, 400, 1000],
        forgets: None,
        packets: (60, 400),
    };

    /// Makes a scenario.
    pub(crate) fn play(&self, scene: &mut Scene) -> Result<(), Trouble> {
        scene.reuses = self.reuses;
        scene.tired = self.tired;
        scene.forgets(self.forgets.map(Duration::from_secs));
        if let Some(mtu) = scene.rng.one_of(self.mtus)
            && *mtu != 1500
        {
            scene.setup(format!("ip link set s0 mtu {mtu}"))?;
        }
        for (name, values) in self.settings {
            if let Some(value) = scene.rng.one_of(values) {
                scene.setup(format!("sysctl -w net.ipv4.vs.{name}={value}"))?;
            }
        }
        for number in 0..scene.rng.between(1, 3) {
            let service = self.service(scene, number);
            for line in self.lines(scene, &service) {
                scene.setup(line)?;
            }
            scene.services.push(service);
        }
        for _ in 0..scene.rng.between(self.packets.0, self.packets.1) * scene.longer {
            self.event(scene)?;
        }
        for listing in ["--thresholds", "--persistent-conn"] {
            scene.command(format!("ipvsadm -Ln {listing}"))?;
        }
        scene.finish()
    }

    fn event(&self, scene: &mut Scene) -> Result<(), Trouble> {
        if scene.rng.chance(self.edits)
            && let Some(edit) = scene.rng.one_of(self.kinds)
        {
            return self.edit(scene, *edit);
        }
        if scene.timed && scene.rng.chance(self.waits) {
            let seconds = scene.rng.one_of(self.pauses).copied().unwrap_or(1);
            return scene.wait(Duration::from_secs(seconds));
        }
        if scene.rng.chance(self.listings) {
            let line = scene.rng.pick(["ipvsadm -Ln", "ipvsadm -Lnc", "ipvsadm -Ln --thresholds"]);
            if line == "ipvsadm -Lnc" && !scene.shows_times() {
                return Ok(());
            }
            return scene.command(line.to_owned()).map(|_| ());
        }
        let place = scene.rng.below(scene.flows.len());
        if scene.flows.is_empty() || scene.rng.chance(self.fresh) {
            return self.begin(scene);
        }
        let mut flow = scene.flows.swap_remove(place);
        flow.step(scene, self.odd)?;
        if !flow.is_over() || scene.rng.chance(80) {
            scene.flows.push(flow);
        }
        Ok(())
    }

    /// A client begins a connection.
    fn begin(&self, scene: &mut Scene) -> Result<(), Trouble> {
        let Some(service) =
            scene.rng.one_of(&scene.services).or_else(|| scene.gone.first()).cloned()
        else {
            return Ok(());
        };
        let client = client_address(service.address.is_ipv6(), &mut scene.rng, self.clients);
        let used = scene.rng.chance(self.again);
        let port = if used {
            1024 + u16::try_from(scene.rng.below(usize::from(scene.ports) + 1)).unwrap_or(0)
        } else {
            scene.ports += 1;
            1024 + scene.ports
        };
        let mut to = service.address;
        if to.port() == 0 {
            to.set_port(scene.rng.pick([80, 443, 5000, 8081]));
        }
        let mut flow = Flow {
            protocol: service.protocol,
            client: SocketAddr::new(client, port),
            service: to,
            seen: None,
            stage: 0,
            used,
        };
        flow.step(scene, self.odd / 2)?;
        scene.flows.push(flow);
        Ok(())
    }

    fn service(&self, scene: &mut Scene, number: usize) -> Service {
        let rng = &mut scene.rng;
        let protocol = rng.one_of(self.protocols).copied().unwrap_or(Protocol::Tcp);
        let v6 = rng.chance(40);
        let address = virtual_address(v6, number);
        let port = if rng.chance(self.any_port) { 0 } else { rng.pick([80, 443, 8080, 53]) };
        let mut servers: Vec<Server> = Vec::new();
        for _ in 0..rng.between(1, 5) {
            let server = self.server(rng, v6, port);
            if servers.iter().all(|it| it.address != server.address) {
                servers.push(server);
            }
        }
        let options = rng.one_of(self.options).copied().unwrap_or("");
        let options =
            if v6 { options.replace("-M 255.255.255.0", "-M 64") } else { options.into() };
        let address = SocketAddr::new(address, port);
        Service { protocol, address, servers, gone: Vec::new(), options }
    }

    fn server(&self, rng: &mut Rng, v6: bool, port: u16) -> Server {
        let method = rng.one_of(self.methods).copied().unwrap_or(Method::Nat);
        let v6 = v6 ^ (matches!(method, Method::Mixed(_)) && rng.chance(40));
        let ip = server_address(v6, rng.below(16));
        let port = if method.maps_ports() && port != 0 { rng.pick([port, 8080, 81]) } else { port };
        Server { address: SocketAddr::new(ip, port), method, limits: self.limits(rng) }
    }

    /// The commands that make a service.
    fn lines(&self, scene: &mut Scene, service: &Service) -> Vec<String> {
        let scheduler = scene.rng.one_of(self.schedulers).copied().unwrap_or("rr");
        let persistent = if service.address.port() == 0 && !service.options.contains("-p") {
            " -p 300"
        } else {
            ""
        };
        let mut lines = vec![format!(
            "ipvsadm -A {} -s {scheduler}{persistent} {}",
            service.name(),
            service.options
        )];
        for server in &service.servers {
            lines.push(self.add(scene, service, server));
        }
        lines
    }

    fn add(&self, scene: &mut Scene, service: &Service, server: &Server) -> String {
        let (name, values) = (service.name(), self.values(&mut scene.rng, server));
        format!("ipvsadm -a {name} -r {values}")
    }

    /// A destination's address, method, weight and thresholds.
    fn values(&self, rng: &mut Rng, server: &Server) -> String {
        let weight = if rng.chance(self.quiescent) { 0 } else { rng.pick([1, 1, 2, 3, 5, 10]) };
        let (address, method) = (server.address, server.method.options());
        let limits = match server.limits {
            (0, _) => String::new(),
            (upper, 0) => format!(" -x {upper}"),
            (upper, lower) => format!(" -x {upper} -y {lower}"),
        };
        format!("{address} {method} -w {weight}{limits}")
    }

    fn limits(&self, rng: &mut Rng) -> (usize, usize) {
        if !rng.chance(self.thresholds) {
            return (0, 0);
        }
        let upper = rng.between(1, 6);
        (upper, if rng.chance(60) { rng.between(0, upper) } else { 0 })
    }

    fn edit(&self, scene: &mut Scene, edit: Edit) -> Result<(), Trouble> {
        if edit == Edit::AddService {
            return self.revive(scene);
        }
        if scene.services.is_empty() {
            return Ok(());
        }
        let place = scene.rng.below(scene.services.len());
        let mut service = scene.services.swap_remove(place);
        let name = service.name();
        let which = scene.rng.below(service.servers.len());
        let line = match edit {
            Edit::Weight => service.servers.get_mut(which).map(|server| {
                // The kernel's rule for edited thresholds changed between 6.1.176, which
                // runs in real time, and 6.1.192, whose rule is ours.
                if scene.timed {
                    server.limits = self.limits(&mut scene.rng);
                }
                format!("ipvsadm -e {name} -r {}", self.values(&mut scene.rng, server))
            }),
            Edit::DeleteServer if !service.servers.is_empty() => {
                let server = service.servers.remove(which);
                scene.deleted(server.address);
                service.gone.push(server);
                Some(format!("ipvsadm -d {name} -r {}", server.address))
            }
            Edit::AddServer => {
                let v6 = service.address.is_ipv6();
                let old: Option<Server> =
                    scene.rng.chance(60).then(|| service.gone.pop()).flatten();
                let server =
                    old.unwrap_or_else(|| self.server(&mut scene.rng, v6, service.address.port()));
                // The kernel would keep the route of the old method: see PARITY.md.
                let known = service.gone.iter().find(|it| it.address == server.address);
                let server = known.copied().unwrap_or(server);
                if !scene.may_add(server.address) {
                    scene.services.push(service);
                    return Ok(());
                }
                let line = self.add(scene, &service, &server);
                // One that is there already is refused.
                if service.servers.iter().all(|it| it.address != server.address) {
                    service.servers.push(server);
                }
                Some(line)
            }
            Edit::Scheduler => {
                let scheduler = scene.rng.one_of(self.schedulers).copied().unwrap_or("rr");
                let persistent = if service.address.port() == 0 { " -p 300" } else { "" };
                Some(format!("ipvsadm -E {name} -s {scheduler}{persistent} {}", service.options))
            }
            Edit::DeleteService => {
                service.servers.iter().for_each(|server| scene.deleted(server.address));
                scene.gone.push(service);
                scene.command(format!("ipvsadm -D {name}"))?;
                return scene.pause();
            }
            // Where time is real, nobody knows what the kernel has summed up.
            Edit::Zero if !scene.timed => None,
            Edit::Zero if scene.rng.chance(50) => Some("ipvsadm -Z".to_owned()),
            Edit::Zero => Some(format!("ipvsadm -Z {name}")),
            Edit::Setting => scene.rng.one_of(self.settings).and_then(|(name, values)| {
                let value = scene.rng.one_of(values)?;
                Some(format!("sysctl -w net.ipv4.vs.{name}={value}"))
            }),
            Edit::Timeouts => {
                let tcp = scene.rng.pick([0, 10, 60, 900, 7200]);
                let fin = scene.rng.pick([0, 5, 30, 120]);
                let udp = scene.rng.pick([0, 10, 60, 300]);
                Some(format!("ipvsadm --set {tcp} {fin} {udp}"))
            }
            Edit::DeleteServer | Edit::AddService => None,
        };
        scene.services.push(service);
        match line {
            Some(line) => {
                scene.command(line)?;
                if edit == Edit::DeleteServer {
                    return scene.pause();
                }
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// A service that was deleted comes again, with the destinations it had.
    fn revive(&self, scene: &mut Scene) -> Result<(), Trouble> {
        let may_add = |it: &Service| it.servers.iter().all(|server| scene.may_add(server.address));
        if !scene.gone.last().is_some_and(may_add) {
            return Ok(());
        }
        if let Some(service) = scene.gone.pop() {
            for line in self.lines(scene, &service) {
                scene.command(line)?;
            }
            scene.services.push(service);
        }
        Ok(())
    }
}
