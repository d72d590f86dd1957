//! A client, a director and servers, with interfaces as the kernel makes them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use ipvs_lab::{ChildGuard, End, HttpClient, IpNet, Namespace, Route, veth};
use tempfile::TempDir;

use super::peers::{self, Director, Peer};

/// The virtual address.
pub(super) const VIP: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// Ports of the virtual services: HTTP and iperf3.
pub(super) const HTTP: u16 = 80;
pub(super) const IPERF: u16 = 5201;
/// Where servers answer.
pub(super) const SERVER_HTTP: u16 = 8080;
/// The servers, all on one host.
pub(super) const SERVERS: [Ipv4Addr; 2] =
    [Ipv4Addr::new(10, 2, 0, 16), Ipv4Addr::new(10, 2, 0, 17)];
const PATIENCE: Duration = Duration::from_secs(10);

/// A bed with its director.
pub(super) struct Bed {
    // Before what they work in.
    director: Director,
    _servers: [ChildGuard; 2],
    pub(super) clients: Namespace,
    _server_space: Namespace,
    _folder: TempDir,
}

impl Bed {
    /// Sets it up, and waits until a client is answered.
    pub(super) fn new(peer: Peer) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("ipvs-bench-").tempdir()?;
        let clients = Namespace::for_lab("bench-clients")?;
        let director = Namespace::for_lab("bench-director")?;
        let servers = Namespace::for_lab("bench-servers")?;
        let (client, outside) = veth(End::new(&clients, "g0"), End::new(&director, "c0"), None)?;
        let (inside, server) = veth(End::new(&director, "s0"), End::new(&servers, "k0"), None)?;
        let (client_side, server_side) = ([10, 1, 0], [10, 2, 0]);
        client.add_address(net(client_side, 1)?)?;
        outside.add_address(net(client_side, 254)?)?;
        inside.add_address(net(server_side, 254)?)?;
        for address in SERVERS {
            server.add_address(IpNet::new(address.into(), 24)?)?;
        }
        director.forward_packets()?;
        clients.add_route(Route::default_via(host(client_side, 254)))?;
        servers.add_route(Route::default_via(host(server_side, 254)))?;
        for namespace in [&clients, &director] {
            // Each request may be a connection of its own: ports must last.
            namespace.sysctl("net/ipv4/ip_local_port_range", "1024 65535")?;
            namespace.sysctl("net/ipv4/tcp_tw_reuse", "1")?;
        }
        let nginx = start_nginx(&servers, folder.path(), &web())?;
        let mut iperf = servers.command("iperf3")?;
        iperf.args(["--server", "--port", &IPERF.to_string()]);
        iperf.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let iperf = servers.spawn_child(iperf)?;
        if peer == Peer::Forward {
            servers.link("lo")?.add_address(IpNet::new(VIP.into(), 32)?)?;
        }
        let director = peers::set_up(peer, &director, &["c0", "s0"], folder.path())?;
        let bed = Self {
            director,
            _servers: [nginx, iperf],
            clients,
            _server_space: servers,
            _folder: folder,
        };
        bed.wait()?;
        Ok(bed)
    }

    pub(super) const fn peer(&self) -> Peer {
        self.director.peer
    }

    /// What a client asks for by HTTP: plain forwarding changes no port.
    pub(super) fn http(&self) -> SocketAddr {
        let port = if self.peer() == Peer::Forward { SERVER_HTTP } else { HTTP };
        SocketAddr::new(VIP.into(), port)
    }

    /// How many connections the director has had, or has, where it knows any.
    pub(super) fn connections(&self) -> Result<Option<u64>> {
        self.director.connections()
    }

    fn wait(&self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let (http, iperf) = (self.http(), SocketAddr::new(VIP.into(), IPERF));
        self.clients.run(|| {
            let second = Duration::from_secs(1);
            loop {
                let http = HttpClient::new().get(http, second);
                let iperf = TcpStream::connect_timeout(&iperf, second);
                match (http, iperf) {
                    (Ok(answer), Ok(_)) if answer.status == 200 => return Ok(()),
                    (http, iperf) if Instant::now() > deadline => {
                        bail!("nobody answers through the director: {http:?}, {iperf:?}")
                    }
                    // Programs do not say when they are ready.
                    _ => std::thread::sleep(Duration::from_millis(20)),
                }
            }
        })?
    }
}

fn net(net: [u8; 3], last: u8) -> Result<IpNet> {
    Ok(IpNet::new(host(net, last), 24)?)
}

fn host([a, b, c]: [u8; 3], last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(a, b, c, last))
}

/// Starts an nginx of one process.
pub(super) fn start_nginx(space: &Namespace, folder: &Path, config: &str) -> Result<ChildGuard> {
    let at = folder.display();
    // Two of them share a folder.
    let name = format!("nginx-{}", space.id()?);
    let path = folder.join(&name);
    let modules = Path::new("/usr/lib/nginx/modules/ngx_stream_module.so");
    let stream = if config.contains("stream {") && modules.exists() {
        format!("load_module {};\n", modules.display())
    } else {
        String::new()
    };
    let whole = format!(
        "{stream}user root root; daemon off; master_process off; pid {at}/{name}.pid;\n\
         error_log {at}/{name}.log;\n{config}"
    );
    std::fs::write(&path, whole)?;
    let mut command = space.command("nginx")?;
    command.arg("-c").arg(&path).arg("-p").arg(folder).stdin(Stdio::null());
    command.stdout(Stdio::null()).stderr(std::fs::File::create(folder.join("nginx.err"))?);
    space.spawn_child(command).context("cannot start nginx")
}

fn web() -> String {
    format!(
        "events {{ worker_connections 4096; }}\n\
         http {{\n  access_log off; keepalive_requests 1000000000;\n\
         client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;\n\
         uwsgi_temp_path uwsgi; scgi_temp_path scgi;\n\
         server {{ listen {SERVER_HTTP} backlog=8192; location / {{ return 200 \"served\\n\"; }} }}\n}}\n"
    )
}
