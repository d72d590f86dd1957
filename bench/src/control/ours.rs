//! Our daemon, in a network of its own: every destination is behind one router, so that
//! the neighbour table of the machine, which all namespaces share, is left alone.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ipvs_lab::{ChildGuard, End, IpNet, MacAddr, Namespace, Route, veth};

use super::AS_PROGRAM;
use super::load::{Load, Round};
use crate::director::BPF_FS;

const PROGRAM: &str = "/proc/self/exe";
const GRACE: Duration = Duration::from_secs(10);

/// One round on a plane that has just started.
pub(crate) fn measure(plane: &str, load: Load) -> Result<Round> {
    let folder = tempfile::Builder::new().prefix("ipvs-bench-").tempdir()?;
    let director = Namespace::for_lab("bench-director")?;
    let outside = Namespace::for_lab("bench-outside")?;
    let (inner, _outer) = veth(End::new(&director, "d0"), End::new(&outside, "r0"), None)?;
    let router = Ipv4Addr::new(192, 0, 2, 254).into();
    inner.add_address(IpNet::new(Ipv4Addr::new(192, 0, 2, 1).into(), 24)?)?;
    inner.add_neighbour(router, MacAddr::local(1, 254))?;
    director.add_route(Route::default_via(router))?;
    if plane == "bpf" {
        director.forward_packets()?;
    }
    let mut daemon = start(&director, plane, folder.path())?;
    let socket = folder.path().join("socket");
    let measured = load.measure(folder.path(), &|| {
        let mut command = Command::new(PROGRAM);
        command.arg("adm").env(AS_PROGRAM, "1").env("IPVS_SOCKET", &socket);
        command
    });
    let log = || fs::read_to_string(folder.path().join("log")).unwrap_or_default();
    let measured = measured.with_context(log);
    ensure!(daemon.terminate(GRACE)?, "the daemon does not end");
    if plane == "bpf" {
        let mut detach = director.command(PROGRAM)?;
        detach.env(AS_PROGRAM, "1").arg("detach").arg("--pins").arg(pins());
        ensure!(detach.status()?.success(), "the plane cannot be detached");
    }
    measured
}

fn pins() -> String {
    format!("{BPF_FS}/control")
}

/// Starts a daemon, and waits until it is ready.
fn start(director: &Namespace, plane: &str, folder: &Path) -> Result<ChildGuard> {
    let mut command = director.command(PROGRAM)?;
    command.args(["daemon", "--plane", plane, "-i", "d0", "--ready-fd", "1"]);
    command.arg("--socket").arg(folder.join("socket")).arg("--pins").arg(pins());
    command.env(AS_PROGRAM, "1").stdin(Stdio::null()).stdout(Stdio::piped());
    let log = folder.join("log");
    command.stderr(File::create(&log)?);
    let mut daemon = director.spawn_child(command)?;
    let stdout = daemon.child().stdout.take().context("no pipe")?;
    let mut word = String::new();
    BufReader::new(stdout).read_line(&mut word)?;
    ensure!(word == "ready\n", "the daemon does not start:\n{}", fs::read_to_string(&log)?);
    Ok(daemon)
}
