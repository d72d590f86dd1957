//! A mode on its rig: connections set up, packets sent, what arrived held
//! against what was sent.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use aya::programs::loaded_programs;
use ipvs_bench_programs::records::{Counts, Expectation, Plan};
use ipvs_lab::{Link, Namespace};

use crate::director::{Director, Report};
use crate::machine::{CpuTime, take_one_cpu};
use crate::mode::{Hook, Mode};
use crate::packet::{Addresses, Order, Phase, Traffic, is_right, plan};
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
    /// How many opened a connection.
    pub(crate) opened: u32,
    /// What the director says of them.
    report: Report,
}

/// A way in to a subject for one CPU.
pub(crate) struct Way {
    programs: Programs,
    plan: Plan,
    link: Link,
    clients: Namespace,
    cpu: usize,
}

impl Way {
    /// Binds this thread to the way's CPU, in the clients' namespace.
    pub(crate) fn ready(&self) -> Result<()> {
        take_one_cpu(Some(self.cpu))?;
        Ok(self.clients.enter()?)
    }

    /// Sends so many packets.
    pub(crate) fn send(&mut self, packets: u32) -> Result<Took> {
        self.programs.send(&self.link, &self.plan, packets)
    }
}

fn hex(octets: &[u8]) -> String {
    let octets: Vec<String> = octets.iter().map(|octet| format!("{octet:02x}")).collect();
    octets.concat()
}

impl Subject {
    /// Lays a rig out for the mode.
    pub(crate) fn new(
        mode: Mode,
        addresses: Addresses,
        flows: u32,
        cpu_time: CpuTime,
    ) -> Result<Self> {
        Self::on(Rig::new(addresses, mode.entry())?, mode, addresses, flows, cpu_time)
    }

    /// The same with interfaces of two queues, for two CPUs.
    pub(crate) fn wide(mode: Mode, addresses: Addresses, flows: u32) -> Result<Self> {
        let rig = Rig::with_queues(addresses, mode.entry(), Some(2))?;
        Self::on(rig, mode, addresses, flows, CpuTime::default())
    }

    fn on(
        rig: Rig,
        mode: Mode,
        addresses: Addresses,
        flows: u32,
        cpu_time: CpuTime,
    ) -> Result<Self> {
        let mut programs = Programs::load(addresses.family, cpu_time)?;
        inside(&rig.servers, || programs.attach_sink(&rig.server_link))?;
        inside(&rig.clients, || programs.attach_client(&rig.client_link))?;
        let director = Director::set_up(mode, &rig, &mut programs, flows)?;
        Ok(Self { mode, director, programs, rig })
    }

    /// Opens `flows` connections and has each carry a packet, every checksum
    /// looked at.
    pub(crate) fn establish(&mut self, flows: u32) -> Result<()> {
        let family = self.rig.addresses.family;
        self.establish_all(Traffic::new(family, Phase::Established, flows, Order::Sequence))
    }

    /// The same with packets like those of `traffic`.
    pub(crate) fn establish_all(&mut self, traffic: Traffic) -> Result<()> {
        let Traffic { flows, .. } = traffic;
        let replies = self.programs.replies()?;
        let right = self.mode.expectation(&self.rig.addresses);
        let answers = u32::from(self.mode.translates());
        let traffic = Traffic { order: Order::Sequence, ..traffic };
        if self.mode.has_connections() {
            let expectation = Expectation { thorough: 1, answers, ..right };
            let opening = Traffic { phase: Phase::Open, ..traffic };
            let run = self.send(expectation, &opening, flows)?;
            self.all_arrived(&run).context("packets that open connections")?;
            let replied = self.programs.replies()?.wrapping_sub(replies);
            let expected = u64::from(flows) * u64::from(answers);
            ensure!(replied == expected, "{replied} replies of {expected} reached the clients");
        }
        let expectation = Expectation { thorough: 1, ..right };
        let run = self.send(expectation, &traffic, flows)?;
        self.all_arrived(&run).context("the first packets of connections")?;
        Ok(())
    }

    /// Makes sure that just so many connections are established, where that can be told.
    pub(crate) fn all_established(&mut self, flows: u32) -> Result<()> {
        if let Some(established) = self.director.established() {
            ensure!(
                established == u64::from(flows),
                "{established} of {flows} connections are established"
            );
        }
        Ok(())
    }

    /// A way in for one CPU alone, by a generator of its own.
    pub(crate) fn way(&self, cpu: usize, traffic: &Traffic) -> Result<Way> {
        let addresses = &self.rig.addresses;
        Ok(Way {
            programs: Programs::load(addresses.family, CpuTime::of(cpu))?,
            plan: plan(addresses, self.rig.macs()?, traffic),
            link: self.rig.client_link.clone(),
            clients: self.rig.clients.clone(),
            cpu,
        })
    }

    /// Does `work`, which sends so many packets by ways; returns why it may not be believed, too.
    pub(crate) fn watch<T>(
        &mut self,
        packets: u64,
        work: impl FnOnce() -> Result<T>,
    ) -> Result<(T, Option<String>)> {
        self.programs.expect(&self.mode.expectation(&self.rig.addresses))?;
        let (before, said) = (self.programs.counts()?, self.director.report()?);
        let done = work()?;
        let run = self.settle(u32::try_from(packets)?, Took::default(), before, said, 0)?;
        let flaw = self.flaw(&run);
        Ok((done, flaw))
    }

    /// Waits until what was sent has arrived, and says what became of it.
    fn settle(
        &mut self,
        packets: u32,
        took: Took,
        before: Counts,
        said: Report,
        opened: u32,
    ) -> Result<Run> {
        let deadline = Instant::now() + UNDER_WAY;
        let counts = loop {
            let counts = self.programs.counts()?.since(before);
            if counts.right + counts.wrong >= u64::from(packets) || Instant::now() > deadline {
                break counts;
            }
            thread::sleep(Duration::from_millis(1));
        };
        let says = self.director.report()?;
        let since = |now: Option<u64>, then: Option<u64>| Some(now?.wrapping_sub(then?));
        let report = Report {
            packets: since(says.packets, said.packets),
            conns: since(says.conns, said.conns),
        };
        let opened = if self.mode.has_connections() { opened } else { 0 };
        Ok(Run { sent: packets, counts, took, report, opened })
    }

    /// Meets every flow once, to bring what belongs to it near; returns how
    /// long a packet takes, roughly.
    pub(crate) fn warm_up(&mut self, traffic: &Traffic) -> Result<Duration> {
        let packets = traffic.flows.max(WARM_UP);
        let run = self.pass(&Traffic { order: Order::Sequence, ..*traffic }, packets)?;
        Ok(run.took.cpu / packets)
    }

    /// Sends `packets` of `traffic`, which are to pass.
    pub(crate) fn pass(&mut self, traffic: &Traffic, packets: u32) -> Result<Run> {
        let right = self.mode.expectation(&self.rig.addresses);
        self.send(right, traffic, packets)
    }

    fn send(&mut self, expectation: Expectation, traffic: &Traffic, packets: u32) -> Result<Run> {
        let Self { programs, rig, director, .. } = self;
        let plan = plan(&rig.addresses, rig.macs()?, traffic);
        programs.expect(&expectation)?;
        let (before, said) = (programs.counts()?, director.report()?);
        let took = inside(&rig.clients, || programs.send(&rig.client_link, &plan, packets))?;
        // All packets of opening traffic open a connection.
        let opened = if traffic.phase == Phase::Open {
            packets.min(traffic.flows)
        } else {
            programs.opened()?
        };
        self.settle(packets, took, before, said, opened)
    }

    /// Runs the plane's program alone, each time with a packet of `traffic`; or one that does
    /// nothing. Returns a flaw instead, if it is not sure that each was sent on.
    pub(crate) fn run_alone(
        &mut self,
        hook: Hook,
        traffic: &Traffic,
        runs: u32,
        nothing: bool,
    ) -> Result<Result<Took, String>> {
        let Self { programs, rig, director, .. } = self;
        let plan = plan(&rig.addresses, rig.macs()?, traffic);
        let pin = director.program(hook).filter(|_| !nothing);
        programs.take_program(hook, pin.as_deref())?;
        let said = director.report()?;
        let ran = inside(&rig.director, || programs.run(hook, &rig.outside, &plan, runs))?;
        let says = director.report()?;
        if nothing {
            return Ok(Ok(ran.took));
        }
        if ran.returned != hook.redirect() {
            return Ok(Err(format!("the program returns {}", ran.returned)));
        }
        if !is_right(&self.mode.expectation(&rig.addresses), &ran.frame, rig.addresses.family) {
            return Ok(Err(format!("the last packet is wrong: {}", hex(&ran.frame))));
        }
        let (packets, conns) = (says.packets, says.conns);
        let counted = packets.zip(said.packets).map(|(now, then)| now.wrapping_sub(then));
        if counted != Some(u64::from(runs)) {
            return Ok(Err(format!("the director counted {counted:?} of {runs} packets")));
        }
        if conns != said.conns {
            return Ok(Err("there are connections more than before".to_owned()));
        }
        Ok(Ok(ran.took))
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
            Some(conns) if conns != u64::from(run.opened) => {
                Some(format!("{} connections more instead of {}", conns.cast_signed(), run.opened))
            }
            _ => None,
        }
    }

    fn wrong(&mut self, run: &Run) -> String {
        let frame = self.programs.wrong_frame().unwrap_or([0; _]);
        format!(
            "{} of {} packets arrived wrong, the last of them: {}",
            run.counts.wrong,
            run.sent,
            hex(&frame)
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
