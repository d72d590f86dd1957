//! The director of a rig, set up for its mode.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{self, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use ipvs_bench_programs::headers::TCP;
use ipvs_core::addr::{Addr, Family};
use ipvs_core::command::Command;
use ipvs_core::dest::DestKey;
use ipvs_core::name::Name;
use ipvs_core::service::{ServiceKey, ServiceSpec};
use ipvs_core::snapshot::Control as _;
use ipvs_core::stats::Counters;
use ipvs_lab::{Namespace, Route};
use ipvs_plane::bpf::{AttachMode, BpfPlane, Options};
use ipvs_plane::store::Limits;

use crate::mode::{Hook, Method, Mode};
use crate::packet::{Addresses, DEST_PORT, DESTS, PORT};
use crate::programs::Programs;
use crate::rig::{Rig, inside};

/// Where this process has a BPF file system of its own.
pub(crate) const BPF_FS: &str = "/sys/fs/bpf";
/// The kernel's limit for tracked connections, over all namespaces.
const CONNTRACK_MAX: &str = "/proc/sys/net/netfilter/nf_conntrack_max";

/// A director at work.
pub(crate) enum Director {
    /// One of the floors.
    Floor,
    /// The kernel's routes.
    Routes,
    /// The kernel's connection tracking, in this namespace.
    Conntrack(Namespace),
    /// Our plane.
    Plane(Box<Plane>),
}

/// Our plane with its one service.
pub(crate) struct Plane {
    control: BpfPlane,
    pins: PathBuf,
    service: ServiceKey,
    namespace: Namespace,
}

/// What a director says about the packets it had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    /// Packets from clients, where it counts them.
    pub(crate) packets: Option<u64>,
    /// Connections that it has ever had.
    pub(crate) conns: Option<u64>,
}

impl Director {
    /// Sets up the director of `rig` for at most `flows` connections.
    pub(crate) fn set_up(
        mode: Mode,
        rig: &Rig,
        programs: &mut Programs,
        flows: u32,
    ) -> Result<Self> {
        let namespace = &rig.director;
        match mode {
            Mode::Floor => {
                let floor = rig.floor()?;
                inside(namespace, || programs.attach_floor(&rig.outside, &floor))?;
                Ok(Self::Floor)
            }
            Mode::TcFloor => {
                let floor = rig.floor()?;
                inside(namespace, || programs.attach_tc_floor(&rig.outside, &floor))?;
                Ok(Self::Floor)
            }
            Mode::IpForward => {
                let addresses = &rig.addresses;
                let vip = Addresses::host(addresses.vip);
                namespace.add_route(Route::via(vip, addresses.dest(0)))?;
                Ok(Self::Routes)
            }
            Mode::NftDnat => {
                nft(rig, flows)?;
                Ok(Self::Conntrack(namespace.clone()))
            }
            Mode::Ipvs(hook, method) => {
                let plane = inside(namespace, || Plane::start(rig, hook, method, flows))?;
                Ok(Self::Plane(Box::new(plane)))
            }
        }
    }

    /// What it says now.
    pub(crate) fn report(&mut self) -> Result<Report> {
        match self {
            Self::Floor | Self::Routes => Ok(Report::default()),
            Self::Conntrack(namespace) => {
                let count = namespace.read_sysctl("net/netfilter/nf_conntrack_count")?;
                Ok(Report { packets: None, conns: Some(count.parse()?) })
            }
            Self::Plane(plane) => Ok(plane.report()),
        }
    }

    /// Where the program of our plane for this hook is pinned.
    pub(crate) fn program(&self, hook: Hook) -> Option<PathBuf> {
        let Self::Plane(plane) = self else { return None };
        Some(plane.pins.join(hook.program()))
    }

    /// How many connections are established, where it tells them apart.
    pub(crate) fn established(&mut self) -> Option<u64> {
        let Self::Plane(plane) = self else { return None };
        let mut count = 0;
        plane.control.connections(&mut |conn| count += u64::from(conn.state == "ESTABLISHED"));
        Some(count)
    }
}

impl Plane {
    /// Starts the plane in the namespace of this thread.
    fn start(rig: &Rig, hook: Hook, method: Method, flows: u32) -> Result<Self> {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let pins = PathBuf::from(format!("{BPF_FS}/ipvs-bench-{}-{number}", process::id()));
        let mode = match hook {
            Hook::Xdp => AttachMode::Xdp,
            Hook::Tc => AttachMode::Tc,
        };
        let interfaces = [&rig.outside, &rig.inside].map(|link| (link.name().to_owned(), mode));
        let limits = Limits {
            services: 64,
            dests: 64,
            members: 256,
            blocks: 16,
            cached: 16,
            conns: flows.next_power_of_two(),
        };
        let options = Options { pins: pins.clone(), interfaces: interfaces.to_vec(), limits };
        let plane = BpfPlane::start(&options).map_err(|error| anyhow!(error))?;
        let (family, vip) = Addr::from_ip(rig.addresses.vip);
        let service = ServiceKey::address(family, TCP, vip, PORT);
        let mut started = Self { control: plane, pins, service, namespace: rig.director.clone() };
        started.configure(&rig.addresses, method)?;
        Ok(started)
    }

    fn configure(&mut self, addresses: &Addresses, method: Method) -> Result<()> {
        let spec = ServiceSpec {
            scheduler: Name::truncated(b"rr"),
            engine: Name::truncated(b""),
            flags: 0,
            timeout: 0,
            // Of an IPv6 service it is the length of the prefix.
            netmask: if self.service.family() == Family::V6 {
                128_u32.to_ne_bytes()
            } else {
                [0xff; 4]
            },
        };
        let mut commands = vec![Command::AddService(self.service, spec)];
        let (port, spec) = (method.port(), method.spec());
        for number in 0..DESTS {
            let (family, addr) = Addr::from_ip(addresses.dest(number));
            commands.push(Command::AddDest(self.service, DestKey::new(family, addr, port), spec));
        }
        Ok(self.control.apply(&commands)?)
    }

    /// What it has counted by now; listings show sums that are made every two seconds.
    fn report(&mut self) -> Report {
        let mut all = Counters::default();
        self.control.cpu_counters(&mut |counted| all = all.plus(counted));
        Report { packets: Some(all.in_packets), conns: Some(all.conns) }
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        // The file system goes with the process, and the programs with it.
        drop(inside(&self.namespace, || Ok(BpfPlane::detach_at(&self.pins)?)));
    }
}

/// Whether there is an nft to be run.
pub(crate) fn has_nft() -> bool {
    process::Command::new("nft").arg("--version").stdout(Stdio::null()).status().is_ok()
}

/// Why the kernel cannot track so many connections, if it cannot.
pub(crate) fn too_few_tracked(flows: u32) -> Result<Option<String>> {
    let max: u64 = std::fs::read_to_string(CONNTRACK_MAX)
        .with_context(|| format!("cannot read {CONNTRACK_MAX}"))?
        .trim()
        .parse()?;
    let needed = u64::from(flows) + u64::from(flows) / 10;
    // A limit of the whole machine: whose it is has to raise it.
    Ok((max <= needed).then(|| {
        format!("net.netfilter.nf_conntrack_max is {max}: too few for {flows} flows; raise it")
    }))
}

/// Makes the director's kernel translate, by the hash of the client as rules
/// of Kubernetes and the like do.
fn nft(rig: &Rig, flows: u32) -> Result<()> {
    if let Some(reason) = too_few_tracked(flows)? {
        bail!(reason);
    }
    // A network card looks at checksums; these have none, and the kernel's own
    // look at them would be held against it.
    rig.director.sysctl("net/netfilter/nf_conntrack_checksum", "0")?;
    let mut command = rig.director.command("nft")?;
    command.args(["-f", "-"]).stdin(Stdio::piped());
    let mut nft = command.spawn().context("cannot start nft (package nftables)")?;
    let mut input = nft.stdin.take().context("nft takes no rules")?;
    input.write_all(ruleset(&rig.addresses).as_bytes())?;
    drop(input);
    let status = nft.wait()?;
    ensure!(status.success(), "nft refuses the rules: {status}");
    Ok(())
}

fn ruleset(addresses: &Addresses) -> String {
    let (table, vip) = (if addresses.vip.is_ipv4() { "ip" } else { "ip6" }, addresses.vip);
    let dests: Vec<String> = (0..DESTS)
        .map(|number| format!("{number} : {} . {DEST_PORT}", addresses.dest(number)))
        .collect();
    let dests = dests.join(", ");
    format!(
        "table {table} bench {{\n\
         \tchain prerouting {{\n\
         \t\ttype nat hook prerouting priority dstnat; policy accept;\n\
         \t\t{table} daddr {vip} tcp dport {PORT} dnat to jhash {table} saddr . tcp sport mod {DESTS} map {{ {dests} }}\n\
         \t}}\n\
         }}\n"
    )
}
