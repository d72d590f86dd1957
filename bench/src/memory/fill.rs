//! Fills a plane with connections, by real packets.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use ipvs_lab::Route;
use tempfile::TempDir;

use super::Case;
use super::charged::Charge;
use crate::daemon::Daemon;
use crate::director::BPF_FS;
use crate::machine::{CpuTime, on_one_cpu};
use crate::packet::{Addresses, DEST_PORT, DESTS, Order, PORT, Phase, frame_len, plan};
use crate::programs::Programs;
use crate::rig::{Entry, Rig, inside};

/// As long as a connection that nobody answers lives: after that, those of the first packets
/// would be gone.
const PATIENCE: Duration = Duration::from_secs(55);

/// How destinations get their packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    /// Masquerading.
    Nat,
    /// Direct routing.
    Dr,
    /// An IP-in-IP tunnel.
    Ipip,
}

impl Method {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Nat => "nat",
            Self::Dr => "dr",
            Self::Ipip => "ipip",
        }
    }

    /// As ipvsadm has it, and the port of destinations.
    const fn option(self) -> (&'static str, u16) {
        match self {
            Self::Nat => ("-m", DEST_PORT),
            Self::Dr => ("-g", PORT),
            Self::Ipip => ("-i", PORT),
        }
    }
}

/// A daemon on a rig, and what fills it.
pub(crate) struct Filled {
    /// What is filled.
    pub(crate) daemon: Daemon,
    programs: Programs,
    rig: Rig,
    charge: Option<Charge>,
    _folder: TempDir,
}

impl Filled {
    /// Starts with an empty table of that size.
    pub(crate) fn begin(case: Case, connections: u32) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("ipvs-bench-").tempdir()?;
        let addresses = Addresses::of(case.family);
        let (entry, mode) =
            if case.plane == "bpf" { (Entry::Xdp, ":xdp") } else { (Entry::Stack, "") };
        let rig = Rig::new(addresses, entry)?;
        if case.plane == "user" {
            // It takes what clients on one of its links would ask for.
            let vip = Addresses::host(addresses.vip);
            rig.director.add_route(Route::on(vip, &rig.outside))?;
        }
        let mut programs = Programs::load(case.family, CpuTime::default())?;
        // Whatever arrives is let go: it is the connections that count.
        inside(&rig.servers, || programs.attach_sink(&rig.server_link))?;
        inside(&rig.clients, || programs.attach_client(&rig.client_link))?;
        let charge = Charge::new(&format!("ipvs-bench-{}", std::process::id()));
        let interfaces = [&rig.outside, &rig.inside].map(|link| format!("{}{mode}", link.name()));
        let [outside, inside] = interfaces.each_ref().map(String::as_str);
        let connections = connections.to_string();
        let daemon = Daemon::start_in(
            charge.as_ref().map(Charge::folder),
            &rig.director,
            case.plane,
            &["-i", outside, "-i", inside, "--connections", &connections],
            &Path::new(BPF_FS).join("memory"),
            folder.path(),
        )?;
        daemon.configure(&rules(&addresses, case.method))?;
        Ok(Self { daemon, programs, rig, charge, _folder: folder })
    }

    pub(crate) const fn charge(&self) -> Option<&Charge> {
        self.charge.as_ref()
    }

    /// Opens that many connections; returns why the table may not be believed to hold them.
    pub(crate) fn fill(&mut self, connections: u32) -> Result<Option<String>> {
        let Self { daemon, programs, rig, .. } = self;
        let plan = plan(&rig.addresses, rig.macs()?, Phase::Open, connections, Order::Sequence);
        let length = frame_len(rig.addresses.family);
        let deadline = Instant::now() + PATIENCE;
        loop {
            on_one_cpu(|| {
                let send = || programs.send(&rig.client_link, &plan, length, connections);
                inside(&rig.clients, send).map(drop)
            })?;
            // A plane in user space may lose packets, as they come faster than it works: then
            // they are sent again. It has taken what it takes when it answers.
            let there = daemon.connections()?;
            if there == u64::from(connections) {
                return Ok(None);
            }
            if daemon.pins().is_some() || Instant::now() > deadline {
                return Ok(Some(format!("{there} of {connections} connections are there")));
            }
        }
    }

    /// Ends it; nothing is left.
    pub(crate) fn end(self) -> Result<()> {
        self.daemon.stop()
    }
}

fn rules(addresses: &Addresses, method: Method) -> String {
    let (option, port) = method.option();
    let at = |address: std::net::IpAddr, port| std::net::SocketAddr::new(address, port);
    let service = at(addresses.vip, PORT);
    let dests = (0..DESTS).map(|number| {
        format!("-a -t {service} -r {} {option} -w 1\n", at(addresses.dest(number), port))
    });
    std::iter::once(format!("-A -t {service} -s rr\n")).chain(dests).collect()
}
