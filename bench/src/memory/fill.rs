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
use crate::mode::Method;
use crate::packet::{Addresses, DESTS, Order, PORT, Phase, Traffic, plan};
use crate::programs::Programs;
use crate::rig::{Entry, Rig, inside};

/// As long as a connection that nobody answers lives: after that, those of the first packets
/// would be gone.
const PATIENCE: Duration = Duration::from_secs(55);
/// How long packets may be under way after the last was sent.
const UNDER_WAY: Duration = Duration::from_millis(200);
/// Packets at once, as many as the ring of a plane in user space takes.
const SHARE: u32 = 2048;

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
        // A plane in user space may lose packets that come faster than it works.
        let at_once = if self.daemon.pins().is_some() { connections } else { SHARE };
        let deadline = Instant::now() + PATIENCE;
        for first in (0..connections).step_by(usize::try_from(at_once)?) {
            let flows = at_once.min(connections - first);
            while !on_one_cpu(|| self.send(first, flows))? {
                if Instant::now() > deadline {
                    return Ok(Some(format!("packets from the {first}th on are lost each time")));
                }
            }
        }
        let there = self.daemon.connections()?;
        Ok((there != u64::from(connections))
            .then(|| format!("{there} of {connections} connections are there")))
    }

    /// Sends a packet that opens a connection for each of these flows; returns whether all
    /// have arrived.
    fn send(&mut self, first: u32, flows: u32) -> Result<bool> {
        let Self { programs, rig, .. } = self;
        let family = rig.addresses.family;
        let traffic =
            Traffic { first, ..Traffic::new(family, Phase::Open, flows, Order::Sequence) };
        let plan = plan(&rig.addresses, rig.macs()?, &traffic);
        let before = programs.counts()?;
        inside(&rig.clients, || programs.send(&rig.client_link, &plan, flows).map(drop))?;
        let deadline = Instant::now() + UNDER_WAY;
        loop {
            // Right or wrong: what the sink is to expect it was not told.
            let counts = programs.counts()?.since(before);
            if counts.right + counts.wrong >= u64::from(flows) {
                return Ok(true);
            }
            if Instant::now() > deadline {
                return Ok(false);
            }
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// Ends it; nothing is left.
    pub(crate) fn end(self) -> Result<()> {
        self.daemon.stop()
    }
}

fn rules(addresses: &Addresses, method: Method) -> String {
    let (options, port) = (method.options(), method.port());
    let at = |address: std::net::IpAddr, port| std::net::SocketAddr::new(address, port);
    let service = at(addresses.vip, PORT);
    let dests = (0..DESTS).map(|number| {
        format!("-a -t {service} -r {} {options} -w 1\n", at(addresses.dest(number), port))
    });
    std::iter::once(format!("-A -t {service} -s rr\n")).chain(dests).collect()
}
