//! On what the figures were taken: a figure without its machine says nothing.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

/// The machine, its kernel, and what of ours ran there.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    /// The processor's own name.
    pub(crate) processor: String,
    /// How many there are.
    pub(crate) processors: usize,
    /// The hypervisor's mark, if there is one.
    pub(crate) virtualized: bool,
    /// Name and release of the kernel.
    pub(crate) kernel: String,
    /// The commit that was measured, with `+` where there were changes to it.
    pub(crate) commit: String,
}

impl Machine {
    /// This one.
    pub(crate) fn this() -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let field = |name: &str| {
            let line = cpuinfo.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let uname = rustix::system::uname();
        let kernel = [uname.sysname(), uname.release()].map(|it| it.to_string_lossy().into_owned());
        Self {
            processor: field("model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            processors: cpuinfo.lines().filter(|line| line.starts_with("processor")).count(),
            virtualized: field("flags")
                .is_some_and(|it| it.split(' ').any(|it| it == "hypervisor")),
            kernel: kernel.join(" "),
            commit: commit().unwrap_or_else(|| "unknown".to_owned()),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { processor, processors, virtualized, kernel, commit } = self;
        let guest = if *virtualized { ", a virtual machine" } else { "" };
        write!(f, "{processor}, {processors} CPUs{guest}; {kernel}; commit {commit}")
    }
}

fn commit() -> Option<String> {
    let git = |arguments: &[&str]| {
        let mut command = Command::new("git");
        command.args(arguments).current_dir(Path::new(env!("CARGO_MANIFEST_DIR")));
        let output = command.stderr(Stdio::null()).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    };
    let changed = !git(&["status", "--porcelain", "--untracked-files=no"])?.is_empty();
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    Some(if changed { commit + "+" } else { commit })
}

/// The time that one CPU has spent on our packets.
///
/// Almost all is spent by the thread that sends, which the kernel has do all
/// that follows, too. What it puts off is done by the CPU's own thread for that.
#[derive(Clone, Debug, Default)]
pub(crate) struct CpuTime {
    /// Where the kernel tells the time of the latter.
    put_off: Option<PathBuf>,
}

impl CpuTime {
    /// That of `cpu`, to which this thread is bound.
    pub(crate) fn of(cpu: usize) -> Self {
        let name = format!("ksoftirqd/{cpu}\n");
        let is_it =
            |path: &PathBuf| fs::read_to_string(path.join("comm")).is_ok_and(|it| it == name);
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten().map(|it| it.path());
        Self { put_off: processes.into_iter().find(is_it).map(|path| path.join("schedstat")) }
    }

    /// So far.
    pub(crate) fn now(&self) -> Duration {
        let own = clock_gettime(ClockId::ThreadCPUTime);
        let own = Duration::new(own.tv_sec.unsigned_abs(), u32::try_from(own.tv_nsec).unwrap_or(0));
        let put_off = self.put_off.as_ref().and_then(|path| {
            let text = fs::read_to_string(path).ok()?;
            text.split(' ').next()?.parse().ok()
        });
        own + Duration::from_nanos(put_off.unwrap_or(0))
    }
}

/// The CPU time of all threads of a process.
pub(crate) fn process_time(id: u32) -> Result<Duration> {
    let mut sum = Duration::ZERO;
    for thread in fs::read_dir(format!("/proc/{id}/task"))? {
        // A thread may end meanwhile.
        sum += schedstat(&thread?.path().join("schedstat"), 0).unwrap_or_default();
    }
    Ok(sum)
}

/// A time of the scheduler's: the first is how long a thread had a CPU, the second how long it
/// was ready and had none.
pub(crate) fn schedstat(path: &Path, number: usize) -> Result<Duration> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let word = text.split_whitespace().nth(number);
    let nanos = word.with_context(|| format!("{}: {text}", path.display()))?.parse()?;
    Ok(Duration::from_nanos(nanos))
}

/// The CPUs that this thread may run on.
pub(crate) fn cpus() -> Result<Vec<usize>> {
    let allowed = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)).collect())
}

/// Binds this thread, and those it starts, to one CPU; returns which.
pub(crate) fn take_one_cpu(wanted: Option<usize>) -> Result<usize> {
    let cpu = wanted.or(cpus()?.last().copied()).context("no CPU to run on")?;
    let mut one = CpuSet::new();
    one.set(cpu);
    sched_setaffinity(None, &one).with_context(|| format!("cannot run on CPU {cpu} alone"))?;
    Ok(cpu)
}

/// Does `work` with this thread bound to the last CPU that it may run on: what a program
/// keeps for each CPU stays in one place.
pub(crate) fn on_one_cpu<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    let before = sched_getaffinity(None)?;
    take_one_cpu(None)?;
    let done = work();
    sched_setaffinity(None, &before)?;
    done
}

/// Has this process go before others on its CPU: not only would they take
/// time, which is left out, but leave cold caches behind. Returns whether it
/// could be done.
pub(crate) fn go_before_others() -> bool {
    let own = std::process::id().to_string();
    let mut command = Command::new("chrt");
    command.args(["--fifo", "--pid", "1", &own]);
    command.status().is_ok_and(|status| status.success())
}
