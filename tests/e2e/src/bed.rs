//! A lab with a director's daemon in it, which ipvsadm talks to over its socket.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use ipvs_core::stats::Counters;
use ipvs_lab::{
    ChildGuard, Decapsulator, HttpServer, Offload, Plan, ServerHost, Topology, UdpEcho,
};
use ipvs_netlink::Client;
use ipvs_netlink::client::SeqpacketTransport;
use ipvs_netlink::statistics::Statistics;
use ipvs_netlink::status::Status;
use tempfile::TempDir;

/// The director's program: the test program is one too,
const PROGRAM: &str = "/proc/self/exe";
/// if this is in its environment.
pub const AS_PROGRAM: &str = "IPVS_E2E_AS_PROGRAM";
/// How long a daemon may take to end.
const GRACE: Duration = Duration::from_secs(5);

/// A data plane, and how packets get in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plane {
    /// In the kernel, by TC: what a veth interface gets by default.
    Bpf,
    /// In the kernel, by XDP, on a network as if of wires: no offloads.
    Xdp,
    /// In the kernel, behind the host's firewall.
    Netfilter,
    /// In the daemon.
    User,
}

/// Both planes, by their defaults.
pub const PLANES: [Plane; 2] = [Plane::Bpf, Plane::User];
/// And with XDP.
pub const ALL_PLANES: [Plane; 3] = [Plane::Bpf, Plane::Xdp, Plane::User];
/// In every way that packets get in.
pub const ALL_WAYS: [Plane; 4] = [Plane::Bpf, Plane::Xdp, Plane::Netfilter, Plane::User];

impl Plane {
    /// As tests are named.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bpf => "bpf",
            Self::Xdp => "xdp",
            Self::Netfilter => "netfilter",
            Self::User => "user",
        }
    }

    /// Whether it is in the kernel.
    pub const fn is_bpf(self) -> bool {
        !matches!(self, Self::User)
    }

    /// The daemon's options for it.
    fn options(self) -> Vec<String> {
        let plane = if self.is_bpf() { "bpf" } else { "user" };
        let mut options = vec!["--plane".to_owned(), plane.to_owned()];
        let mode = match self {
            Self::Xdp => Some("xdp"),
            Self::Netfilter => Some("netfilter"),
            Self::Bpf | Self::User => None,
        };
        if let Some(mode) = mode {
            let ends = [Topology::DIRECTOR_CLIENT_SIDE, Topology::DIRECTOR_SERVER_SIDE];
            options.extend(ends.map(|interface| format!("--interface={interface}:{mode}")));
        }
        options
    }
}

/// How packets get to a real server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Masquerading.
    Nat,
    /// Direct routing.
    DirectRouting,
    /// IP in IP.
    Tunnel,
}

/// All forwarding methods.
pub const METHODS: [Method; 3] = [Method::Nat, Method::DirectRouting, Method::Tunnel];

impl Method {
    /// The option of ipvsadm.
    pub const fn option(self) -> &'static str {
        match self {
            Self::Nat => "-m",
            Self::DirectRouting => "-g",
            Self::Tunnel => "-i",
        }
    }
}

/// The virtual address of a method.
pub fn vip(method: Method, v4: bool) -> IpAddr {
    let last = match method {
        Method::Nat => 0,
        Method::DirectRouting => 1,
        Method::Tunnel => 2,
    };
    if v4 {
        IpAddr::from([192, 0, 2, 100 + last])
    } else {
        IpAddr::from([0x2001, 0xdb8, 0xc, 0, 0, 0, 0, 0x100 + u16::from(last)])
    }
}

/// What [`Bed::serve`] starts on a real server.
#[derive(Debug)]
pub struct Server {
    /// Where it runs.
    pub host: ServerHost,
    _http: HttpServer,
    /// The UDP echo.
    pub udp: UdpEcho,
}

/// A lab with a daemon in the director's namespace, and real servers that
/// unpack what is tunnelled.
#[derive(Debug)]
pub struct Bed {
    daemon: Option<ChildGuard>,
    /// What unpacks tunnelled packets on the real servers.
    pub decapsulators: Vec<Decapsulator>,
    /// Its network.
    pub lab: Topology,
    /// Its data plane.
    pub plane: Plane,
    /// More options for a daemon that is started.
    pub daemon_options: Vec<String>,
    /// A place for files, removed with the bed.
    pub folder: TempDir,
}

impl Bed {
    /// Builds a lab with so many real servers, and starts a daemon.
    pub fn new(plane: Plane, servers: usize) -> Result<Self> {
        // Room for a tunnel's header.
        Self::with_server_mtu(plane, servers, 1600)
    }

    /// The same, with an MTU between director and real servers.
    pub fn with_server_mtu(plane: Plane, servers: usize, server_mtu: u32) -> Result<Self> {
        let lab = Plan {
            servers,
            server_mtu,
            // The plane in user space answers for them itself.
            director_owns_vips: plane.is_bpf(),
            ..Plan::default()
        };
        let lab = lab.build()?;
        for method in [Method::DirectRouting, Method::Tunnel] {
            lab.add_vip(vip(method, true))?;
            lab.add_vip(vip(method, false))?;
        }
        if plane == Plane::Xdp {
            lab.disable_offloads()?;
            // A veth interface takes what is redirected to it once its other end polls.
            for port in ["c-director", "s-director"] {
                lab.switch().link(port)?.set_offload(Offload::GenericReceive, true)?;
            }
        }
        let decapsulators: ipvs_lab::Result<_> =
            lab.servers().iter().map(|host| Decapsulator::start(host.link())).collect();
        let folder = tempfile::Builder::new().prefix("ipvs-e2e-").tempdir_in("/run")?;
        let daemon_options = Vec::new();
        let decapsulators = decapsulators?;
        let mut bed = Self { daemon: None, decapsulators, lab, plane, daemon_options, folder };
        bed.start_daemon()?;
        Ok(bed)
    }

    /// Where the daemon listens.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("ipvs.sock")
    }

    /// Where the eBPF plane is pinned.
    pub fn pins(&self) -> PathBuf {
        self.folder.path().join("bpf")
    }

    /// The command line of a daemon for this bed's director.
    pub fn daemon_command(&self, socket: &Path, pins: &Path) -> Result<Command> {
        let mut command = self.lab.director().command(PROGRAM)?;
        command.arg("daemon").args(self.plane.options()).args(["--connections", "65536"]);
        command.arg("--socket").arg(socket).arg("--pins").arg(pins).env(AS_PROGRAM, "1");
        Ok(command)
    }

    /// Starts the daemon and waits until it is ready.
    pub fn start_daemon(&mut self) -> Result<()> {
        let mut command = self.daemon_command(&self.socket(), &self.pins())?;
        let log = self.folder.path().join("daemon.log");
        command
            .args(&self.daemon_options)
            .args(["--ready-fd", "1"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        command.stderr(File::options().append(true).create(true).open(&log)?);
        let mut daemon = self.lab.director().spawn_child(command)?;
        let mut word = String::new();
        let stdout = daemon.child().stdout.take().context("no pipe")?;
        BufReader::new(stdout).read_line(&mut word)?;
        if word != "ready\n" {
            bail!("the daemon does not start:\n{}", fs::read_to_string(&log)?);
        }
        self.daemon = Some(daemon);
        Ok(())
    }

    /// The daemon's process.
    pub fn daemon_mut(&mut self) -> Result<&mut ChildGuard> {
        self.daemon.as_mut().context("no daemon runs")
    }

    /// Kills the daemon by SIGKILL.
    pub fn kill_daemon(&mut self) -> Result<()> {
        Ok(self.daemon.take().context("no daemon runs")?.kill()?)
    }

    /// Ends the daemon by SIGTERM.
    pub fn end_daemon(&mut self) -> Result<()> {
        let mut daemon = self.daemon.take().context("no daemon runs")?;
        ensure!(daemon.terminate(GRACE)?, "SIGTERM did not end the daemon");
        let status = daemon.child().wait()?;
        ensure!(status.success(), "the daemon ended with {status}");
        Ok(())
    }

    /// Runs a subcommand of the director's program.
    pub fn ipvs(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = Command::new(PROGRAM);
        command.args(arguments).env("IPVS_SOCKET", self.socket()).env(AS_PROGRAM, "1");
        Ok(command.stdin(Stdio::null()).output()?)
    }

    /// Runs `ipvsadm` with the words of `line` and `input` on its standard input.
    pub fn ipvsadm_reading(&self, line: &str, input: &str) -> Result<Output> {
        let mut command = Command::new(PROGRAM);
        command.arg("adm").args(line.split(' ')).env("IPVS_SOCKET", self.socket());
        command.env(AS_PROGRAM, "1").stdin(Stdio::piped());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        child.stdin.take().context("no pipe")?.write_all(input.as_bytes())?;
        Ok(child.wait_with_output()?)
    }

    /// Runs `ipvsadm` with the words of `line`, and returns what it printed.
    pub fn ipvsadm(&self, line: &str) -> Result<String> {
        let words: Vec<&str> = ["adm"].into_iter().chain(line.split(' ')).collect();
        let output = self.ipvs(&words)?;
        ensure!(
            output.status.success(),
            "ipvsadm {line}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Starts the lab's own web server and UDP echo on every real server.
    pub fn serve(&self, port: u16) -> Result<Vec<Server>> {
        let start = |host: &ServerHost| -> Result<Server> {
            let (namespace, name) = (host.namespace(), host.name());
            Ok(Server {
                host: host.clone(),
                _http: HttpServer::start(namespace, name, port)?,
                udp: UdpEcho::start(namespace, name, port)?,
            })
        };
        self.lab.servers().iter().map(start).collect()
    }

    /// Makes a service (`-t` or `-u`) at `port` of every method's virtual
    /// addresses, with all real servers at `port_of` the method.
    pub fn make_services(
        &self,
        transport: &str,
        port: u16,
        scheduler: &str,
        port_of: impl Fn(Method) -> u16,
    ) -> Result<()> {
        for method in METHODS {
            for v4 in [true, false] {
                let service = SocketAddr::new(vip(method, v4), port);
                self.ipvsadm(&format!("-A {transport} {service} -s {scheduler}"))?;
                for host in self.lab.servers() {
                    let real = SocketAddr::new(host.address(service.ip()), port_of(method));
                    let option = method.option();
                    self.ipvsadm(&format!("-a {transport} {service} -r {real} {option}"))?;
                }
            }
        }
        Ok(())
    }

    /// Asks the daemon by its socket.
    pub fn client(&self) -> Result<Client<SeqpacketTransport>> {
        Ok(Client::new(SeqpacketTransport::connect(&self.socket())?)?)
    }

    /// What the daemon says of its plane.
    pub fn status(&self) -> Result<Status> {
        Ok(self.client()?.status()?)
    }

    /// Waits until the statistics that are shown, which are made every two seconds,
    /// are those of all packets so far.
    pub fn await_statistics(&self) -> Result<()> {
        let mut client = self.client()?;
        for _ in 0..200 {
            let Statistics { total: (total, _), cpus } = client.statistics()?;
            if total == cpus.into_iter().fold(Counters::default(), Counters::plus) {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(20));
        }
        bail!("the statistics do not come to rest")
    }

    /// Waits until so many packets from clients are in the statistics that are shown.
    pub fn await_packets(&self, wanted: usize) -> Result<()> {
        let mut client = self.client()?;
        let mut seen = 0;
        for _ in 0..500 {
            seen = client.statistics()?.total.0.in_packets;
            if usize::try_from(seen)? >= wanted {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(20));
        }
        bail!("{seen} packets, and not {wanted}")
    }

    /// Packets by the label of the reason under which they were counted.
    pub fn packets(&self) -> Result<BTreeMap<String, u64>> {
        Ok(self.status()?.packets.into_iter().collect())
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        // What it has pinned would outlive its interfaces until the folder goes.
        drop(self.daemon.take());
        if self.plane.is_bpf() {
            let pins = self.pins();
            let mut detach = Command::new(PROGRAM);
            drop(detach.env(AS_PROGRAM, "1").arg("detach").arg("--pins").arg(pins).output());
        }
    }
}
