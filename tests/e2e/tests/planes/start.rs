//! Daemons that do not start, and what they say.

use std::fs;
use std::io::{BufRead as _, BufReader, Seek as _, SeekFrom};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ipvs_e2e::programs::find;
use ipvs_e2e::{AS_PROGRAM, Bed, Method, Plane, vip};
use ipvs_lab::{ChildGuard, HttpClient};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

/// Runs a daemon that ends at once, and returns what it says.
fn fails(mut command: Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output()?;
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(1), "{}: {words}", output.status);
    Ok(words)
}

pub(crate) fn one_at_a_time(plane: Plane) -> Result<()> {
    let bed = Bed::new(plane, 1)?;
    let words = fails(bed.daemon_command(&bed.socket(), &bed.pins())?)?;
    ensure!(words.contains("a daemon listens on"), "{words}");
    if plane.is_bpf() {
        let words = fails(bed.daemon_command(&other(&bed, "sock"), &bed.pins())?)?;
        ensure!(words.contains("another daemon drives what is pinned"), "{words}");
    }
    ensure!(bed.ipvsadm("-Ln")?.contains("IP Virtual Server"), "the first still answers");
    Ok(())
}

pub(crate) fn json_log(plane: Plane) -> Result<()> {
    let mut bed = Bed::new(plane, 1)?;
    bed.end_daemon()?;
    let log = bed.folder.path().join("daemon.log");
    let before = fs::metadata(&log)?.len();
    bed.daemon_options = ["--log-format", "json"].map(str::to_owned).into();
    bed.start_daemon()?;
    bed.end_daemon()?;
    let mut file = fs::File::open(&log)?;
    file.seek(SeekFrom::Start(before))?;
    let mut messages = Vec::new();
    for line in BufReader::new(file).lines() {
        let line = line?;
        let object: serde_json::Value = serde_json::from_str(&line).context(line)?;
        messages.push(object["message"].as_str().context("no message")?.to_owned());
    }
    for begin in ["listening on ", "ended"] {
        ensure!(messages.iter().any(|it| it.starts_with(begin)), "{begin}: {messages:?}");
    }
    Ok(())
}

pub(crate) fn status(plane: Plane) -> Result<()> {
    let bed = Bed::new(plane, 1)?;
    let status = || -> Result<serde_json::Value> {
        let output = bed.ipvs(&["status", "--json"])?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(serde_json::from_slice(&output.stdout)?)
    };
    let before = status()?;
    ensure!(before["problems"] == serde_json::json!([]), "{before:#}");
    let mode = if plane.is_bpf() { "tc" } else { "user" };
    let interfaces = before["interfaces"].as_array().context("no interfaces")?;
    ensure!(interfaces.len() == 2 && interfaces.iter().all(|it| it["mode"] == mode), "{before:#}");
    ensure!(before["tables"][0]["capacity"] == 65536, "{before:#}");
    let lines = before["lines"].as_array().context("no lines")?;
    let says = |what: &str| lines.iter().any(|it| it.as_str().is_some_and(|it| it.contains(what)));
    ensure!(says("version ") && says("ipvs_tc: pinned, tag ") == plane.is_bpf(), "{before:#}");
    bed.ipvsadm("-A -t 192.0.2.100:80 -s rr")?;
    let after = status()?;
    let problem = after["problems"][0].as_str().unwrap_or_default();
    ensure!(problem.starts_with("service -t 192.0.2.100:80 has no destination"), "{after:#}");
    bed.ipvsadm("-a -t 192.0.2.100:80 -r 10.1.0.11 -m")?;
    let words = String::from_utf8(bed.ipvs(&["status"])?.stdout)?;
    ensure!(words.ends_with("problems: none found\n"), "{words}");
    Ok(())
}

/// A daemon with no rights but these, in another place than the bed's.
fn with_capabilities(bed: &Bed, capabilities: &str, plane: &str, pins: &Path) -> Result<Command> {
    let mut command = bed.lab.director().command(find("setpriv").context("no setpriv")?)?;
    command.arg(format!("--bounding-set=-all{capabilities}")).arg("--inh-caps=-all");
    // `/proc/self/exe` would be setpriv.
    command.arg(std::env::current_exe()?).args(["daemon", "--plane", plane]);
    command.arg("--socket").arg(other(bed, "sock")).arg("--pins").arg(pins).env(AS_PROGRAM, "1");
    Ok(command)
}

/// A path that the bed's own daemon does not use.
fn other(bed: &Bed, what: &str) -> PathBuf {
    bed.folder.path().join(format!("other.{what}"))
}

pub(crate) fn no_rights(plane: Plane) -> Result<()> {
    let bed = Bed::new(plane, 1)?;
    let words = fails(with_capabilities(&bed, "", "bpf", &other(&bed, "bpf"))?)?;
    ensure!(words.contains("cannot mount a BPF file system"), "{words}");
    ensure!(words.contains("mount -t bpf"), "it says what to do: {words}");
    // Where a BPF file system is mounted already.
    let words = fails(with_capabilities(&bed, "", "bpf", &bed.pins().join("other"))?)?;
    ensure!(words.contains("CAP_BPF"), "it says which rights: {words}");
    let words = fails(with_capabilities(&bed, "", "user", &other(&bed, "bpf"))?)?;
    ensure!(words.contains("CAP_NET_RAW"), "it says which rights: {words}");
    Ok(())
}

/// Starts a daemon and waits for its first line, which is `ready` if it starts.
fn start(bed: &Bed, mut command: Command) -> Result<(ChildGuard, String)> {
    command.args(["--ready-fd", "1"]).stdout(Stdio::piped());
    let mut daemon = bed.lab.director().spawn_child(command)?;
    let mut word = String::new();
    let stdout = daemon.child().stdout.take().context("no pipe")?;
    BufReader::new(stdout).read_line(&mut word)?;
    Ok((daemon, word))
}

/// What docs/running.md promises, and the unit for systemd counts on.
pub(crate) fn few_rights(plane: Plane) -> Result<()> {
    let mut bed = Bed::new(plane, 1)?;
    let _servers = bed.serve(80)?;
    bed.end_daemon()?;
    let pins = bed.pins();
    let detached = bed.ipvs(&["detach", "--pins", pins.to_str().context("a strange path")?])?;
    ensure!(detached.status.success(), "{detached:?}");
    let (folder, none) = (other(&bed, "bpf"), MountFlags::empty());
    fs::create_dir(&folder)?;
    mount("bpf", &folder, "bpf", none, None)?;
    let pins = folder.join("ipvs");
    let command = with_capabilities(&bed, ",+bpf,+net_admin,+perfmon", "bpf", &pins)?;
    let (mut daemon, word) = start(&bed, command)?;
    ensure!(word == "ready\n", "it does not start");
    let socket = other(&bed, "sock");
    let socket = socket.to_str().context("a strange path")?;
    for line in ["-A -t 192.0.2.100:80 -s rr", "-a -t 192.0.2.100:80 -r 10.1.0.11:80 -m"] {
        let mut words = vec!["adm", "--socket", socket];
        words.extend(line.split(' '));
        let made = bed.ipvs(&words)?;
        ensure!(made.status.success(), "{made:?}");
    }
    let at = SocketAddr::new(vip(Method::Nat, true), 80);
    bed.lab.client().run(|| HttpClient::new().get(at, Duration::from_secs(5)))??;
    ensure!(daemon.terminate(Duration::from_secs(5))?, "SIGTERM did not end it");
    let pins = pins.to_str().context("a strange path")?;
    ensure!(bed.ipvs(&["detach", "--pins", pins])?.status.success(), "detach");
    Ok(unmount(&folder, UnmountFlags::empty())?)
}

pub(crate) fn auto_falls_back(plane: Plane) -> Result<()> {
    let bed = Bed::new(plane, 1)?;
    let mut command = with_capabilities(&bed, ",+net_admin,+net_raw", "auto", &other(&bed, "bpf"))?;
    command.stderr(Stdio::piped());
    let (mut daemon, word) = start(&bed, command)?;
    let socket = other(&bed, "sock");
    let status = bed.ipvs(&["status", "--socket", socket.to_str().context("a strange path")?])?;
    let words = String::from_utf8_lossy(&status.stdout).into_owned();
    ensure!(
        word == "ready\n" && words.contains("user-space plane, for the eBPF plane said"),
        "{words}"
    );
    ensure!(daemon.terminate(Duration::from_secs(5))?, "SIGTERM did not end it");
    Ok(())
}
