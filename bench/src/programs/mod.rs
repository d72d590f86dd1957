//! The bench's eBPF programs as the bench drives them: one set for each rig.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use aya::maps::{Array, MapData, PerCpuArray};
use aya::programs::tc::TcAttachOptions;
use aya::programs::{
    LinkOrder, ProgramError, SchedClassifier, TcAttachType, TestRun as _, TestRunAttrs,
    TestRunOptions, Xdp, XdpMode,
};
use aya::{Ebpf, EbpfLoader};
use ipvs_bench_programs::records::{Counts, Cursor, Expectation, Floor, KEPT, Plan};
use ipvs_core::addr::Family;
use ipvs_lab::Link;
use zerocopy::transmute;

use crate::machine::CpuTime;

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
        Ok(Self { object, family, cpu_time })
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
    pub(crate) fn send(
        &mut self,
        link: &Link,
        plan: &Plan,
        frame_len: usize,
        packets: u32,
    ) -> Result<Took> {
        let octets: [u8; size_of::<Plan>()] = transmute!(*plan);
        self.array("BENCH_PLAN")?.set(0, octets, 0)?;
        self.restart_order()?;
        let frame = vec![0; frame_len];
        let mut context = [0; CONTEXT_LEN];
        for (at, value) in [(DATA_END, u32::try_from(frame_len)?), (INGRESS, link.index())] {
            if let Some(place) = context.get_mut(at..at + 4) {
                place.copy_from_slice(&value.to_ne_bytes());
            }
        }
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

    fn restart_order(&mut self) -> Result<()> {
        let mut cursors: PerCpuArray<&mut MapData, [u8; size_of::<Cursor>()]> =
            self.map("BENCH_CURSOR")?.try_into()?;
        let mut values = cursors.get(&0, 0)?.to_vec();
        for value in &mut values {
            let cursor: Cursor = transmute!(*value);
            *value = transmute!(Cursor { next: 0, ..cursor });
        }
        Ok(cursors.set(0, values.try_into()?, 0)?)
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
