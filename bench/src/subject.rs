//! A mode on its rig: connections set up, packets sent, what arrived held
//! against what was sent.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use aya::programs::loaded_programs;
use ipvs_bench_programs::records::{Counts, Expectation};

use crate::director::{Director, Report};
use crate::machine::CpuTime;
use crate::mode::Mode;
use crate::packet::{self, Addresses, Order, Phase, plan};
use crate::programs::{Programs, Took};
use crate::rig::{Rig, inside};

/// How long frames may be under way after the last was sent.
const UNDER_WAY: Duration = Duration::from_millis(200);
/// Packets of a warm-up, at least.
const WARM_UP: u32 = 20_000;

/// A mode on its rig.
pub(crate) struct Subject {
    /// The mode.
    pub(crate) mode: Mode,
    // Before the rig that it works on.
    director: Director,
    programs: Programs,
    rig: Rig,
}

/// What became of the packets of one run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    /// How many were sent.
    pub(crate) sent: u32,
    /// What the sink made of them.
    pub(crate) counts: Counts,
    /// How long it took.
    pub(crate) took: Took,
    /// What the director says of them.
    report: Report,
}

impl Subject {
    /// Lays a rig out for the mode.
    pub(crate) fn new(
        mode: Mode,
        addresses: Addresses,
        flows: u32,
        cpu_time: CpuTime,
    ) -> Result<Self> {
        let rig = Rig::new(addresses, mode.entry())?;
        let mut programs = Programs::load(addresses.family, cpu_time)?;
        inside(&rig.servers, || programs.attach_sink(&rig.server_link))?;
        inside(&rig.clients, || programs.attach_client(&rig.client_link))?;
        let director = Director::set_up(mode, &rig, &mut programs, flows)?;
        Ok(Self { mode, director, programs, rig })
    }

    /// Opens `flows` connections and has each carry a packet, every checksum
    /// looked at.
    pub(crate) fn establish(&mut self, flows: u32) -> Result<()> {
        let replies = self.programs.replies()?;
        let right = self.mode.expectation(&self.rig.addresses);
        let answers = u32::from(self.mode.translates());
        if self.mode.has_connections() {
            let expectation = Expectation { thorough: 1, answers, ..right };
            let run = self.send(expectation, Phase::Open, flows, flows, Order::Sequence)?;
            self.all_arrived(&run).context("packets that open connections")?;
            let replied = self.programs.replies()?.wrapping_sub(replies);
            let expected = u64::from(flows) * u64::from(answers);
            ensure!(replied == expected, "{replied} replies of {expected} reached the clients");
        }
        let expectation = Expectation { thorough: 1, ..right };
        let run = self.send(expectation, Phase::Established, flows, flows, Order::Sequence)?;
        self.all_arrived(&run).context("the first packets of connections")?;
        if let Some(established) = self.director.established() {
            ensure!(
                established == u64::from(flows),
                "{established} of {flows} connections are established"
            );
        }
        Ok(())
    }

    /// Meets every flow once, to bring what belongs to it near; returns how
    /// long a packet takes, roughly.
    pub(crate) fn warm_up(&mut self, flows: u32) -> Result<Duration> {
        let right = self.mode.expectation(&self.rig.addresses);
        let packets = flows.max(WARM_UP);
        let run = self.send(right, Phase::Established, flows, packets, Order::Sequence)?;
        Ok(run.took.cpu / packets)
    }

    /// Sends `packets`, each of any of `flows` connections.
    pub(crate) fn run(&mut self, flows: u32, packets: u32) -> Result<Run> {
        let right = self.mode.expectation(&self.rig.addresses);
        self.send(right, Phase::Established, flows, packets, Order::Random)
    }

    fn send(
        &mut self,
        expectation: Expectation,
        phase: Phase,
        flows: u32,
        packets: u32,
        order: Order,
    ) -> Result<Run> {
        let Self { programs, rig, director, .. } = self;
        let plan = plan(&rig.addresses, rig.macs()?, phase, flows, order);
        let frame_len = packet::frame_len(rig.addresses.family);
        programs.expect(&expectation)?;
        let (before, said) = (programs.counts()?, director.report()?);
        let took =
            inside(&rig.clients, || programs.send(&rig.client_link, &plan, frame_len, packets))?;
        let deadline = Instant::now() + UNDER_WAY;
        let counts = loop {
            let counts = programs.counts()?.since(before);
            if counts.right + counts.wrong >= u64::from(packets) || Instant::now() > deadline {
                break counts;
            }
            thread::sleep(Duration::from_millis(1));
        };
        let says = director.report()?;
        let since = |now: Option<u64>, then: Option<u64>| Some(now?.wrapping_sub(then?));
        let report = Report {
            packets: since(says.packets, said.packets),
            conns: since(says.conns, said.conns),
        };
        Ok(Run { sent: packets, counts, took, report })
    }

    fn all_arrived(&mut self, run: &Run) -> Result<()> {
        ensure!(run.counts.wrong == 0, self.wrong(run));
        let arrived = run.counts.right;
        ensure!(arrived == u64::from(run.sent), "{arrived} of {} arrived", run.sent);
        Ok(())
    }

    /// Why the run may not be believed, if it may not.
    pub(crate) fn flaw(&mut self, run: &Run) -> Option<String> {
        let (sent, counts) = (u64::from(run.sent), run.counts);
        if counts.wrong != 0 {
            return Some(self.wrong(run));
        }
        let lost = sent.saturating_sub(counts.right);
        if lost * 50 > sent {
            return Some(format!("{lost} of {sent} packets were lost"));
        }
        if let Some(counted) = run.report.packets
            && counted != sent
        {
            return Some(format!("the director counted {counted} of {sent} packets"));
        }
        match run.report.conns {
            Some(conns) if conns != 0 => Some(format!("{} connections more", conns.cast_signed())),
            _ => None,
        }
    }

    fn wrong(&mut self, run: &Run) -> String {
        let frame = self.programs.wrong_frame().unwrap_or([0; _]);
        let octets: Vec<String> = frame.iter().map(|octet| format!("{octet:02x}")).collect();
        format!(
            "{} of {} packets arrived wrong, the last of them: {}",
            run.counts.wrong,
            run.sent,
            octets.concat()
        )
    }

    /// What the mode's eBPF program has used so far, by the kernel's count:
    /// time and runs. Only counted while statistics are on.
    pub(crate) fn program_time(&self) -> Result<Option<(Duration, u64)>> {
        let Some(name) = self.mode.program() else { return Ok(None) };
        let mut sum = (Duration::ZERO, 0);
        for info in loaded_programs() {
            let info = info?;
            if info.name_as_str() == Some(name) {
                sum = (sum.0 + info.run_time(), sum.1 + info.run_count());
            }
        }
        if sum.1 == 0 && sum.0 != Duration::ZERO {
            bail!("{name} has run for {:?} without a run", sum.0);
        }
        Ok(Some(sum))
    }
}
