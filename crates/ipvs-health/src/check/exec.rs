//! A program that says by its exit status whether a destination is well.
//!
//! It runs as another user, without a way to more rights, in a process group of its own that is
//! killed when its time is over, and with what it says cut short.

use std::net::SocketAddr;
use std::process::{ExitStatus, Stdio};

use ipvs_config::check::Exec;
use ipvs_config::health::Weight;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, geteuid};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};

use super::Failure;

/// Octets of what a program says that are kept.
const KEPT: usize = 512;
/// What sets user, group and rights: util-linux's.
const SETPRIV: &str = "/usr/bin/setpriv";

pub(super) async fn check(exec: &Exec, at: SocketAddr) -> Result<Weight, Failure> {
    let mut command = Command::new(SETPRIV);
    command.arg("--no-new-privs");
    if geteuid().is_root() {
        command.args(["--inh-caps=-all", "--ambient-caps=-all"]);
        command.arg(format!("--reuid={}", exec.user)).arg(format!("--regid={}", exec.group));
        command.arg("--clear-groups");
    }
    command.arg("--").args(&exec.command);
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command.env("IPVS_ADDRESS", at.ip().to_string()).env("IPVS_PORT", at.port().to_string());
    command.current_dir("/").process_group(0);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn();
    let child = child.map_err(|error| Failure::Unmade(format!("{SETPRIV}: {error}")))?;
    let mut group = Group::of(child);
    let (stdout, stderr) = (group.child.stdout.take(), group.child.stderr.take());
    // The end of the program counts: whoever it has left behind may hold its output open.
    let mut said = String::new();
    let status = {
        let mut words = Box::pin(async { tokio::join!(first_of(stdout), first_of(stderr)) });
        let outcome = tokio::select! {
            biased;
            (out, err) = &mut words => { said = [out, err].concat(); None }
            status = group.child.wait() => Some(status),
        };
        match outcome {
            Some(status) => status,
            None => group.child.wait().await,
        }
    };
    let status = status.map_err(|error| Failure::Unmade(error.to_string()))?;
    judge(status, exec, said.lines().next().unwrap_or_default())
}

/// What a status means, as keepalived has it.
fn judge(status: ExitStatus, exec: &Exec, said: &str) -> Result<Weight, Failure> {
    let said = if said.is_empty() { String::new() } else { format!(": {said}") };
    match status.code() {
        Some(0) => Ok(Weight::Configured),
        Some(code @ 2..=255) if exec.dynamic => {
            Ok(Weight::Exactly(u32::try_from(code - 2).unwrap_or_default()))
        }
        Some(127) if said.contains("setpriv") => Err(Failure::Unmade(format!("127{said}"))),
        Some(code) => Err(Failure::Wrong(format!("exit status {code}{said}"))),
        None => Err(Failure::Broken(format!("{status}{said}"))),
    }
}

/// The beginning of a stream, which is read to its end.
async fn first_of(stream: Option<impl AsyncRead + Unpin>) -> String {
    let Some(mut stream) = stream else { return String::new() };
    let (mut kept, mut octets) = (Vec::new(), [0; 4096]);
    while let Ok(len @ 1..) = stream.read(&mut octets).await {
        kept.extend(octets.iter().take(len).take(KEPT - kept.len()));
    }
    String::from_utf8_lossy(&kept).trim().to_owned()
}

/// A program with all that it has started, killed with this.
struct Group {
    child: Child,
    id: Option<Pid>,
}

impl Group {
    fn of(child: Child) -> Self {
        let id = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
        Self { child, id }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            // Nothing may be left of it.
            let _ = killpg(id, Signal::SIGKILL);
        }
    }
}
