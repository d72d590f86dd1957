//! The kernel's IPVS, in user-mode-linux: a guest whose first process is this program.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, thread};

use anyhow::{Context as _, Result, anyhow};
use ipvs_lab::{Namespace, load_modules};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::load::{Load, Round};

/// Debian's name of the program, where its modules are, and the real ipvsadm.
const PROGRAM: &str = "/usr/bin/linux.uml";
const MODULES: &str = "/usr/lib/uml/modules";
const IPVSADM: &str = "/usr/sbin/ipvsadm";
/// Where the guest's first process finds its folder: user-mode-linux hands on what it does
/// not know.
const FOLDER: &str = "IPVS_BENCH_GUEST";
/// How long a round may take, with the start.
const PATIENCE: Duration = Duration::from_mins(5);

/// A round in the guest, and the guest's kernel.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Measured {
    /// Its release.
    pub(crate) release: String,
    /// The round.
    pub(crate) round: Round,
}

impl Measured {
    /// How far the figures can be relied on.
    pub(crate) fn caveat(&self) -> String {
        format!(
            "Linux {} in user-mode-linux, by Debian's ipvsadm. The guest is a process of this \
             machine: it has one CPU, and each of its system calls and page faults goes through \
             the host several times, so that a kernel on the machine itself would be faster.",
            self.release
        )
    }
}

/// Why there is no guest here, if so.
pub(crate) fn is_missing() -> Option<String> {
    let missing = [PROGRAM, MODULES, IPVSADM].into_iter().find(|it| !Path::new(it).exists())?;
    Some(format!("{missing} is missing (packages user-mode-linux and ipvsadm)"))
}

/// The folder that this process, the first of a guest, has its job in.
pub(crate) fn folder() -> Option<OsString> {
    env::var_os(FOLDER)
}

/// One round in a guest of its own: what was deleted lies in the kernel's trash for two
/// minutes, a list that every addition walks.
pub(crate) fn measure(load: Load) -> Result<Measured> {
    let folder = tempfile::Builder::new().prefix("ipvs-bench-").tempdir()?;
    fs::write(folder.path().join("job"), serde_json::to_vec(&load)?)?;
    let init = env::current_exe().context("what program is this?")?;
    // It is killed when this process ends, however it ends.
    let mut command = Namespace::current("home")?.command(PROGRAM)?;
    command.args(["mem=1G", "rootfstype=hostfs", "rootflags=/", "rw", "quiet"]);
    command.args(["con=null", "con0=null,fd:1"]);
    command.arg(format!("init={}", init.display()));
    command.arg(format!("{FOLDER}={}", folder.path().display()));
    let console = folder.path().join("console");
    command.stdin(Stdio::null()).stdout(File::create(&console)?).stderr(Stdio::null());
    let mut guest = command.process_group(0).spawn().context("cannot start user-mode-linux")?;
    let deadline = Instant::now() + PATIENCE;
    while guest.try_wait()?.is_none() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(100));
    }
    // It has processes of its own, and is the leader of their group.
    let _ended = killpg(Pid::from_raw(i32::try_from(guest.id())?), Signal::SIGKILL);
    guest.wait()?;
    let said = || fs::read_to_string(&console).unwrap_or_default();
    let done = fs::read(folder.path().join("done"))
        .with_context(|| format!("the guest has measured nothing:\n{}", said()))?;
    let done: Result<Measured, String> = serde_json::from_slice(&done)?;
    done.map_err(|error| anyhow!("in the guest: {error}"))
}

/// The first process of the guest: measures, and switches the guest off.
pub(crate) fn run(folder: &Path) {
    let done = work(folder).map_err(|error| format!("{error:#}"));
    let written = serde_json::to_vec(&done).map_err(anyhow::Error::from).and_then(|text| {
        let mut file = File::create(folder.join("done"))?;
        file.write_all(&text)?;
        Ok(file.sync_all()?)
    });
    if let Err(error) = written {
        super::say(&format!("{error:#}"));
    }
    // On success it does not return.
    let _ = reboot(RebootMode::RB_POWER_OFF);
}

fn work(folder: &Path) -> Result<Measured> {
    for (kind, place) in [("proc", "/proc"), ("sysfs", "/sys"), ("tmpfs", "/run")] {
        match mount(Some(kind), place, Some(kind), MsFlags::empty(), None::<&str>) {
            Ok(()) | Err(Errno::EBUSY) => {}
            Err(errno) => return Err(errno).context(format!("cannot mount {place}")),
        }
    }
    load_modules(&["ipv6", "ip_vs", "ip_vs_wlc"])?;
    // Without an address of its own it finds no other one good.
    let lo = Namespace::current("guest")?.link("lo")?;
    lo.up()?;
    lo.add_address("192.0.2.1/24".parse()?)?;
    let load: Load = serde_json::from_slice(&fs::read(folder.join("job"))?)?;
    let round = load.measure(Path::new("/run"), &|| Command::new(IPVSADM))?;
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned();
    Ok(Measured { release, round })
}
