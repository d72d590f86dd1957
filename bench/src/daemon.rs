//! Our daemon as users run it, of this very build: the bench is the program, too.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ipvs_lab::{ChildGuard, Namespace};

use crate::say;

/// Where this program finds that it is to be `ipvs`.
const AS_PROGRAM: &str = "IPVS_BENCH_AS_PROGRAM";
/// The cgroup that it moves to before it does anything.
const CGROUP: &str = "IPVS_BENCH_CGROUP";
const PROGRAM: &str = "/proc/self/exe";
const GRACE: Duration = Duration::from_secs(10);

/// Runs as `ipvs`, if that is what this process was started for.
pub(crate) fn as_program() -> Option<ExitCode> {
    std::env::var_os(AS_PROGRAM)?;
    if let Some(folder) = std::env::var_os(CGROUP)
        && let Err(error) = fs::write(Path::new(&folder).join("cgroup.procs"), "0")
    {
        say(&format!("{} cannot be entered: {error}", folder.display()));
        return Some(ExitCode::FAILURE);
    }
    let args: Vec<OsString> = std::env::args_os().collect();
    Some(ipvs_cli::program::run(args))
}

/// A daemon that answers.
pub(crate) struct Daemon {
    child: ChildGuard,
    namespace: Namespace,
    socket: PathBuf,
    log: PathBuf,
    /// Of the eBPF plane.
    pins: Option<PathBuf>,
}

impl Daemon {
    /// Starts a daemon in `namespace`, with `options` besides the plane, and waits until it is
    /// ready. Its files are put into `folder`.
    pub(crate) fn start(
        namespace: &Namespace,
        plane: &str,
        options: &[&str],
        pins: &Path,
        folder: &Path,
    ) -> Result<Self> {
        Self::start_in(None, namespace, plane, options, pins, folder)
    }

    /// The same in a cgroup.
    pub(crate) fn start_in(
        cgroup: Option<&Path>,
        namespace: &Namespace,
        plane: &str,
        options: &[&str],
        pins: &Path,
        folder: &Path,
    ) -> Result<Self> {
        let (socket, log) = (folder.join("socket"), folder.join("log"));
        let mut command = namespace.command(PROGRAM)?;
        command.args(["daemon", "--plane", plane, "--ready-fd", "1"]).args(options);
        command.arg("--socket").arg(&socket).arg("--pins").arg(pins);
        command.env(AS_PROGRAM, "1").stdin(Stdio::null()).stdout(Stdio::piped());
        command.stderr(File::create(&log)?);
        command.envs(cgroup.map(|folder| (CGROUP, folder)));
        let child = namespace.spawn_child(command)?;
        let pins = (plane == "bpf").then(|| pins.to_owned());
        let mut daemon = Self { child, namespace: namespace.clone(), socket, log, pins };
        let stdout = daemon.child.child().stdout.take().context("no pipe")?;
        let mut word = String::new();
        BufReader::new(stdout).read_line(&mut word)?;
        ensure!(word == "ready\n", "the daemon does not start:\n{}", daemon.log());
        Ok(daemon)
    }

    /// The process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Where its programs and maps are pinned, if it has any.
    pub(crate) fn pins(&self) -> Option<&Path> {
        self.pins.as_deref()
    }

    /// What it has said so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// `ipvsadm` for this daemon.
    pub(crate) fn adm(&self) -> Command {
        let mut command = Command::new(PROGRAM);
        command.arg("adm").env(AS_PROGRAM, "1").env("IPVS_SOCKET", &self.socket);
        command
    }

    /// Configures it by lines as `ipvsadm -S` writes them.
    pub(crate) fn configure(&self, rules: &str) -> Result<()> {
        let mut adm = self.adm();
        adm.arg("-R").stdin(Stdio::piped());
        let mut adm = adm.spawn()?;
        adm.stdin.take().context("no pipe")?.write_all(rules.as_bytes())?;
        let status = adm.wait()?;
        ensure!(status.success(), "ipvsadm -R: {status}\n{}", self.log());
        Ok(())
    }

    /// How many connections its destinations have.
    pub(crate) fn connections(&self) -> Result<u64> {
        let listing = self.adm().arg("-Ln").stderr(Stdio::inherit()).output()?;
        ensure!(listing.status.success(), "ipvsadm -Ln: {}", listing.status);
        listed_connections(&String::from_utf8(listing.stdout)?)
    }

    /// How many connections its services have ever had; made every two seconds.
    pub(crate) fn ever_connected(&self) -> Result<u64> {
        let listing = self.adm().args(["-Ln", "--stats", "--exact"]).output()?;
        ensure!(listing.status.success(), "ipvsadm -Ln --stats: {}", listing.status);
        let text = String::from_utf8(listing.stdout)?;
        let mut sum = 0;
        for line in text.lines().filter(|line| line.starts_with("TCP ") || line.starts_with("UDP "))
        {
            let column = line.split_whitespace().nth(2);
            sum += column.with_context(|| format!("a listing with `{line}`"))?.parse::<u64>()?;
        }
        Ok(sum)
    }

    /// Ends it; nothing is left.
    pub(crate) fn stop(mut self) -> Result<()> {
        ensure!(self.child.terminate(GRACE)?, "the daemon does not end");
        if let Some(pins) = self.pins.take() {
            let mut detach = self.namespace.command(PROGRAM)?;
            detach.env(AS_PROGRAM, "1").arg("detach").arg("--pins").arg(pins);
            ensure!(detach.status()?.success(), "the plane cannot be detached");
        }
        Ok(())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let Some(pins) = self.pins.take() else { return };
        // It was not stopped: an error is under way already. What is pinned would stay as long
        // as this process.
        drop(self.child.kill());
        if let Ok(mut detach) = self.namespace.command(PROGRAM) {
            drop(detach.env(AS_PROGRAM, "1").arg("detach").arg("--pins").arg(pins).status());
        }
    }
}

/// The sum of both columns of connections in `ipvsadm -Ln`.
fn listed_connections(listing: &str) -> Result<u64> {
    let mut sum = 0;
    for line in listing.lines().filter_map(|line| line.strip_prefix("  -> ")) {
        if line.starts_with("RemoteAddress") {
            continue;
        }
        for column in line.split_whitespace().rev().take(2) {
            sum += column.parse::<u64>().with_context(|| format!("a listing with `{line}`"))?;
        }
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn active_and_inactive_connections_of_all_destinations_are_added_up() {
        let listing = "IP Virtual Server version 1.2.1 (size=4096)\n\
                       Prot LocalAddress:Port Scheduler Flags\n\
                       \x20 -> RemoteAddress:Port           Forward Weight ActiveConn InActConn\n\
                       TCP  192.0.2.1:80 rr\n\
                       \x20 -> 10.1.0.11:80                 Masq    1      5          70\n\
                       \x20 -> 10.1.0.12:80                 Masq    1      0          100\n";
        assert_eq!(listed_connections(listing).unwrap(), 175);
    }
}
