//! A daemon with a configuration file.

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use ipvs_e2e::{Bed, Plane};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long reading a file again may take.
const PATIENCE: Duration = Duration::from_secs(30);

fn file(port: u16) -> String {
    format!("[[service]]\naddress = \"192.0.2.100\"\nprotocol = \"tcp\"\nport = {port}\n")
}

fn rules(port: u16) -> String {
    format!("-A -t 192.0.2.100:{port} -s wlc\n")
}

/// A bed whose daemon has ended, with the path of the file that the next one is to have.
fn bed(plane: Plane) -> Result<(Bed, PathBuf)> {
    let mut bed = Bed::new(plane, 1)?;
    bed.end_daemon()?;
    if plane.is_bpf() {
        let detached = bed.ipvs(&["detach", "--pins", &bed.pins().display().to_string()])?;
        ensure!(detached.status.success(), "{detached:?}");
    }
    let path = bed.folder.path().join("ipvs.toml");
    bed.daemon_options = vec!["--config".to_owned(), path.display().to_string()];
    Ok((bed, path))
}

fn log(bed: &Bed) -> Result<String> {
    Ok(fs::read_to_string(bed.folder.path().join("daemon.log"))?)
}

/// Has the file read again, and waits until the log says what became of it.
fn reload(bed: &mut Bed, text: &str) -> Result<()> {
    let before = log(bed)?.len();
    let daemon = i32::try_from(bed.daemon_mut()?.id())?;
    kill(Pid::from_raw(daemon), Signal::SIGHUP)?;
    let deadline = Instant::now() + PATIENCE;
    while !log(bed)?.get(before..).is_some_and(|new| new.contains(text)) {
        ensure!(Instant::now() < deadline, "it does not say {text:?}: {}", log(bed)?);
        // A file tells nobody that it has grown.
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

pub(crate) fn read_again(plane: Plane) -> Result<()> {
    let (mut bed, path) = bed(plane)?;
    fs::write(&path, file(80))?;
    bed.start_daemon()?;
    ensure!(bed.ipvsadm("-Sn")? == rules(80), "from the first request on");
    fs::write(&path, file(81))?;
    reload(&mut bed, "read again")?;
    ensure!(bed.ipvsadm("-Sn")? == rules(81), "as the file says now");
    fs::write(&path, format!("{}[timeouts]\ntpc = 1\n", file(82)))?;
    reload(
        &mut bed,
        "ipvs.toml:6:1: unknown key `tpc`, did you mean `tcp`? (nothing was changed)",
    )?;
    fs::write(&path, "[sync.master]\ninterface = \"nosuch\"\n")?;
    reload(&mut bed, "no such interface (nothing was changed)")?;
    ensure!(bed.ipvsadm("-Sn")? == rules(81), "nothing was changed");
    Ok(())
}

pub(crate) fn bad_file(plane: Plane) -> Result<()> {
    let (mut bed, path) = bed(plane)?;
    for (text, words) in [
        ("timeouts.tpc = 1\n", "ipvs.toml:1:10: unknown key `tpc`, did you mean `tcp`?"),
        ("[sync.master]\ninterface = \"nosuch\"\n", "no such interface"),
    ] {
        fs::write(&path, text)?;
        let failed = bed.start_daemon().err().map(|error| error.to_string()).unwrap_or_default();
        ensure!(failed.contains(words) && failed.contains("nothing was started"), "{failed}");
        ensure!(!bed.pins().exists() && !bed.socket().exists(), "something is left");
    }
    fs::write(&path, file(80))?;
    bed.start_daemon()?;
    if plane.is_bpf() {
        bed.kill_daemon()?;
        fs::write(&path, "timeouts.tpc = 1\n")?;
        bed.start_daemon()?;
        ensure!(bed.ipvsadm("-Sn")? == rules(80), "what ran is kept");
        ensure!(log(&bed)?.contains("what ran before is kept"), "and it is said why");
    }
    Ok(())
}
