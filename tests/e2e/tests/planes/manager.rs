//! The service manager that starts the daemon: what it is told.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ipvs_e2e::{Bed, Plane};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long the daemon may say nothing.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is said next, by lines; that the daemon is alive only if that is wanted.
fn next(heard: &UnixDatagram, alive: bool) -> Result<Vec<String>> {
    let mut datagram = [0; 4096];
    loop {
        let len = heard.recv(&mut datagram).context("the daemon says nothing")?;
        let text = String::from_utf8_lossy(datagram.get(..len).unwrap_or_default()).into_owned();
        if alive == (text.trim_end() == "WATCHDOG=1") {
            return Ok(text.lines().map(str::to_owned).collect());
        }
    }
}

pub(crate) fn told(plane: Plane) -> Result<()> {
    let mut bed = Bed::new(plane, 1)?;
    bed.end_daemon()?;
    let folder = bed.folder.path();
    let (place, file) = (folder.join("notify"), folder.join("ipvs.toml"));
    let heard = UnixDatagram::bind(&place)?;
    heard.set_read_timeout(Some(PATIENCE))?;
    fs::write(&file, "")?;
    let mut command = bed.daemon_command(&bed.socket(), &bed.pins())?;
    command
        .arg("--config")
        .arg(&file)
        .env("NOTIFY_SOCKET", &place)
        .env("WATCHDOG_USEC", "30000000");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut daemon = bed.lab.director().spawn_child(command)?;

    let said = next(&heard, false)?;
    ensure!(said.first().is_some_and(|line| line == "READY=1"), "{said:?}");
    ensure!(
        said.iter().any(|line| line.starts_with("STATUS=") && line.contains("plane")),
        "{said:?}"
    );
    bed.ipvsadm("-Ln").context("ready is who answers")?;
    next(&heard, true)?;
    let pid = Pid::from_raw(i32::try_from(daemon.child().id())?);
    kill(pid, Signal::SIGHUP)?;
    let said = next(&heard, false)?;
    ensure!(said.first().is_some_and(|line| line == "RELOADING=1"), "{said:?}");
    ensure!(said.iter().any(|line| line.starts_with("MONOTONIC_USEC=")), "{said:?}");
    let said = next(&heard, false)?;
    ensure!(said.first().is_some_and(|line| line == "READY=1"), "{said:?}");
    kill(pid, Signal::SIGTERM)?;
    let said = next(&heard, false)?;
    ensure!(said.first().is_some_and(|line| line == "STOPPING=1"), "{said:?}");
    ensure!(daemon.child().wait()?.success(), "it ends well");
    Ok(())
}

pub(crate) const NEEDS_ANALYZE: &[&str] = &["systemd-analyze"];

/// The unit that comes with us.
const UNIT: &str = include_str!("../../../../packaging/ipvs.service");

/// systemd understands the unit, and finds little in it that is exposed: at most 3.0 of 10.
pub(crate) fn unit(_: Plane) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("ipvs.service");
    // Its program need not be installed here.
    fs::write(&file, UNIT.replace("/usr/bin/ipvs", "/bin/true"))?;
    let analyze = |options: &[&str]| -> Result<String> {
        let run = Command::new("systemd-analyze").args(options).arg(&file).output()?;
        let said = [run.stdout, run.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        ensure!(run.status.success(), "{options:?}: {said}");
        Ok(said)
    };
    // What it does not understand it leaves out, and says so.
    let said = analyze(&["verify", "--man=no"])?;
    ensure!(!said.contains("ipvs.service:"), "{said}");
    analyze(&["security", "--offline=true", "--threshold=30"])?;
    Ok(())
}
