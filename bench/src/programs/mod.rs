//! The bench's eBPF programs as the bench drives them: one set for each rig.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use aya::maps::{Array, MapData, PerCpuArray, ProgramArray};
use aya::programs::tc::TcAttachOptions;
use aya::programs::{
    LinkOrder, Program, ProgramError, SchedClassifier, TcAttachType, TestRun as _, TestRunAttrs,
    TestRunOptions, Xdp, XdpMode,
};
use aya::{Ebpf, EbpfLoader};
use ipvs_bench_programs::records::{BY_RANK, Counts, Cursor, Expectation, Floor, KEPT, Plan};
use ipvs_core::addr::Family;
use ipvs_lab::Link;
use zerocopy::transmute;

use crate::machine::CpuTime;
use crate::mode::Hook;
use crate::packet::ranks;

/// The programs, built by `cargo xtask bpf`.
static OBJECT: &[u8] = aya::include_bytes_aligned!("bench.bpf.o");

/// Frames made at once: as many as an interface polls for at once.
const BATCH: u32 = 64;
/// What a test run may do before it is cut into several, in packets: it does
/// not return before it is through.
const LARGEST_RUN: u32 = 1 << 24;
/// `struct xdp_md` of the kernel's UAPI.
const CONTEXT_LEN: usize = 24;
/// Where in it `data_end` and `ingress_ifindex` stand.
const DATA_END: usize = 4;
const INGRESS: usize = 12;
/// `struct __sk_buff` of the kernel's UAPI, and where in it interfaces stand.
const SKB_LEN: usize = 192;
const SKB_INGRESS: usize = 36;
const SKB_IFINDEX: usize = 40;

/// How long a run took.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Took {
    /// On the clock on the wall.
    pub(crate) wall: Duration,
    /// On the CPU, for us: what others had of it meanwhile is left out.
    pub(crate) cpu: Duration,
}

/// A loaded set of programs with its maps.
pub(crate) struct Programs {
    object: Ebpf,
    family: Family,
    cpu_time: CpuTime,
    /// For how many flows the ranks are those.
    ranked: u32,
}

/// What became of a program's runs.
#[derive(Clone, Debug)]
pub(crate) struct Ran {
    /// How long they took.
    pub(crate) took: Took,
    /// What the last returned.
    pub(crate) returned: u32,
    /// What the last made of its packet.
    pub(crate) frame: Vec<u8>,
}

impl Programs {
    /// Loads the set for packets of `family`.
    pub(crate) fn load(family: Family, cpu_time: CpuTime) -> Result<Self> {
        let mut object =
            EbpfLoader::new().load(OBJECT).context("cannot load the bench's object")?;
        let suffix = family.tag();
        for name in [
            format!("bench_generate{suffix}"),
            format!("bench_sink{suffix}"),
            "bench_floor".into(),
            "bench_client".into(),
        ] {
            xdp(&mut object, &name)?.load().with_context(|| refused(&name))?;
        }
        Ok(Self { object, family, cpu_time, ranked: 0 })
    }

    /// Puts the sink on `link`, in whose namespace this thread is.
    pub(crate) fn attach_sink(&mut self, link: &Link) -> Result<()> {
        self.attach(&format!("bench_sink{}", self.family.tag()), link)
    }

    /// Puts what counts replies on `link`, in whose namespace this thread is.
    pub(crate) fn attach_client(&mut self, link: &Link) -> Result<()> {
        self.attach("bench_client", link)
    }

    /// Puts the floor on `link`, in whose namespace this thread is.
    pub(crate) fn attach_floor(&mut self, link: &Link, floor: &Floor) -> Result<()> {
        let octets: [u8; size_of::<Floor>()] = transmute!(*floor);
        self.array("BENCH_FLOOR")?.set(0, octets, 0)?;
        self.attach("bench_floor", link)
    }

    /// The same with the TC program.
    pub(crate) fn attach_tc_floor(&mut self, link: &Link, floor: &Floor) -> Result<()> {
        const NAME: &str = "bench_tc_floor";
        let octets: [u8; size_of::<Floor>()] = transmute!(*floor);
        self.array("BENCH_FLOOR")?.set(0, octets, 0)?;
        let program = self.object.program_mut(NAME).with_context(|| missing(NAME))?;
        let program: &mut SchedClassifier = program.try_into()?;
        program.load().with_context(|| refused(NAME))?;
        let order = TcAttachOptions::TcxOrder(LinkOrder::default());
        let attached = program.attach_with_options(link.name(), TcAttachType::Ingress, order);
        attached.map(|_kept_by_the_object| ()).with_context(|| format!("{NAME} on {link}"))
    }

    fn attach(&mut self, name: &str, link: &Link) -> Result<()> {
        let attached = xdp(&mut self.object, name)?.attach(link.name(), XdpMode::Driver);
        attached.map(|_kept_by_the_object| ()).with_context(|| format!("{name} on {link}"))
    }

    /// Tells the sink what is right.
    pub(crate) fn expect(&mut self, expectation: &Expectation) -> Result<()> {
        let octets: [u8; size_of::<Expectation>()] = transmute!(*expectation);
        Ok(self.array("BENCH_EXPECTATION")?.set(0, octets, 0)?)
    }

    /// Sends `packets` as planned out of `link`, in whose namespace this thread is.
    pub(crate) fn send(&mut self, link: &Link, plan: &Plan, packets: u32) -> Result<Took> {
        self.take_plan(plan)?;
        let frame = vec![0; usize::try_from(plan.frame_len)?];
        let context = xdp_context(plan.frame_len, link.index());
        let generator = xdp(&mut self.object, &format!("bench_generate{}", self.family.tag()))?;
        let mut left = packets;
        let start = (Instant::now(), self.cpu_time.now());
        while left > 0 {
            let count = left.min(LARGEST_RUN);
            let mut options = TestRunOptions::new();
            options.data_in = Some(&frame);
            options.ctx_in = Some(&context);
            options.repeat = count;
            options.attrs = TestRunAttrs::new().xdp_live_frames(BATCH);
            generator.test_run(options).with_context(|| format!("cannot send out of {link}"))?;
            left -= count;
        }
        Ok(Took { wall: start.0.elapsed(), cpu: self.cpu_time.now().saturating_sub(start.1) })
    }

    fn take_plan(&mut self, plan: &Plan) -> Result<()> {
        let octets: [u8; size_of::<Plan>()] = transmute!(*plan);
        self.array("BENCH_PLAN")?.set(0, octets, 0)?;
        if plan.order == BY_RANK && self.ranked != plan.flows {
            let mut array: Array<&mut MapData, u32> = self.map("BENCH_RANKS")?.try_into()?;
            for (part, rank) in (0..).zip(ranks(plan.flows)) {
                array.set(part, rank, 0)?;
            }
            self.ranked = plan.flows;
        }
        self.restart_order()
    }

    /// Makes ready to run a program alone: the one that is pinned there, or one that does
    /// nothing.
    pub(crate) fn take_program(&mut self, hook: Hook, pin: Option<&Path>) -> Result<()> {
        let (run, noop, array) = hook.runner();
        let run = format!("{run}{}", self.family.tag());
        for name in [run.as_str(), noop] {
            let program = self.object.program_mut(name).with_context(|| missing(name))?;
            match program {
                Program::Xdp(program) if program.fd().is_err() => program.load(),
                Program::SchedClassifier(program) if program.fd().is_err() => program.load(),
                _ => Ok(()),
            }
            .with_context(|| refused(name))?;
        }
        let program = match pin {
            Some(pin) => SchedClassifier::from_pin(pin)?.fd()?.try_clone()?,
            None => match self.object.program(noop).with_context(|| missing(noop))? {
                Program::Xdp(program) => program.fd()?.try_clone()?,
                Program::SchedClassifier(program) => program.fd()?.try_clone()?,
                _ => bail!("{noop} is neither an XDP nor a TC program"),
            },
        };
        let mut array: ProgramArray<&mut MapData> = self.map(array)?.try_into()?;
        Ok(array.set(0, &program, 0)?)
    }

    /// Runs the program that was taken, each time with a packet as planned, which has come in
    /// by `link`, in whose namespace this thread is.
    pub(crate) fn run(&mut self, hook: Hook, link: &Link, plan: &Plan, runs: u32) -> Result<Ran> {
        self.take_plan(plan)?;
        let length = usize::try_from(plan.frame_len)?;
        let mut frame = plan.headers.to_vec();
        frame.resize(length, 0);
        let context = match hook {
            Hook::Xdp => xdp_context(plan.frame_len, link.index()).to_vec(),
            Hook::Tc => tc_context(link.index()).to_vec(),
        };
        let (name, ..) = hook.runner();
        let name = format!("{name}{}", self.family.tag());
        let program = self.object.program(&name).with_context(|| missing(&name))?;
        let mut made = vec![0; length + KEPT];
        let mut options = TestRunOptions::new();
        options.data_in = Some(&frame);
        options.data_out = Some(&mut made);
        options.ctx_in = Some(&context);
        options.repeat = runs;
        let start = (Instant::now(), self.cpu_time.now());
        let ran = match program {
            Program::Xdp(program) => program.test_run(options),
            Program::SchedClassifier(program) => program.test_run(options),
            _ => bail!("{name} is neither an XDP nor a TC program"),
        }
        .with_context(|| format!("cannot run {name}"))?;
        let took =
            Took { wall: start.0.elapsed(), cpu: self.cpu_time.now().saturating_sub(start.1) };
        made.truncate(usize::try_from(ran.data_size_out)?);
        Ok(Ran { took, returned: ran.return_value, frame: made })
    }

    fn restart_order(&mut self) -> Result<()> {
        let mut cursors: PerCpuArray<&mut MapData, [u8; size_of::<Cursor>()]> =
            self.map("BENCH_CURSOR")?.try_into()?;
        let mut values = cursors.get(&0, 0)?.to_vec();
        for value in &mut values {
            let cursor: Cursor = transmute!(*value);
            *value = transmute!(Cursor { next: 0, fresh: 0, ..cursor });
        }
        Ok(cursors.set(0, values.try_into()?, 0)?)
    }

    /// How many flows the last run opened besides those that were planned.
    pub(crate) fn opened(&mut self) -> Result<u32> {
        let cursors: PerCpuArray<&mut MapData, [u8; size_of::<Cursor>()]> =
            self.map("BENCH_CURSOR")?.try_into()?;
        let cursors = cursors.get(&0, 0)?;
        let fresh = |octets: &[u8; size_of::<Cursor>()]| {
            let cursor: Cursor = transmute!(*octets);
            cursor.fresh
        };
        Ok(cursors.iter().map(fresh).sum())
    }

    /// What the sink has counted.
    pub(crate) fn counts(&mut self) -> Result<Counts> {
        let counts: PerCpuArray<&mut MapData, [u8; size_of::<Counts>()]> =
            self.map("BENCH_COUNTS")?.try_into()?;
        let values = counts.get(&0, 0)?;
        Ok(values.iter().fold(Counts::default(), |sum, octets| {
            let counts: Counts = transmute!(*octets);
            sum.plus(counts)
        }))
    }

    /// How many replies have reached the client.
    pub(crate) fn replies(&mut self) -> Result<u64> {
        let counts: PerCpuArray<&mut MapData, u64> = self.map("BENCH_REPLIES")?.try_into()?;
        Ok(counts.get(&0, 0)?.iter().sum())
    }

    /// The beginning of a frame that was wrong.
    pub(crate) fn wrong_frame(&mut self) -> Result<[u8; KEPT]> {
        Ok(self.array("BENCH_WRONG")?.get(&0, 0)?)
    }

    fn array<const N: usize>(&mut self, name: &str) -> Result<Array<&mut MapData, [u8; N]>> {
        Ok(self.map(name)?.try_into()?)
    }

    fn map(&mut self, name: &str) -> Result<&mut aya::maps::Map> {
        self.object.map_mut(name).ok_or_else(|| anyhow!(missing(name)))
    }
}

/// The kernel's description of a frame that has come in by an interface.
fn xdp_context(frame_len: u32, ifindex: u32) -> [u8; CONTEXT_LEN] {
    let mut context = [0; CONTEXT_LEN];
    put(&mut context, DATA_END, frame_len);
    put(&mut context, INGRESS, ifindex);
    context
}

/// The same as a packet structure.
fn tc_context(ifindex: u32) -> [u8; SKB_LEN] {
    let mut context = [0; SKB_LEN];
    put(&mut context, SKB_INGRESS, ifindex);
    put(&mut context, SKB_IFINDEX, ifindex);
    context
}

fn put(context: &mut [u8], at: usize, value: u32) {
    if let Some(place) = context.get_mut(at..at + 4) {
        place.copy_from_slice(&value.to_ne_bytes());
    }
}

fn missing(name: &str) -> String {
    format!("the bench's object has no {name}")
}

fn refused(name: &str) -> String {
    format!("the kernel refuses the program {name}")
}

fn xdp<'a>(object: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp> {
    let program = object.program_mut(name).with_context(|| missing(name))?;
    program.try_into().map_err(|error: ProgramError| error.into())
}
