//! Where a transcript is replayed: a network namespace as it was recorded in, with a
//! daemon of ours.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use ipvs_lab::{ChildGuard, End, IpNet, Link, Namespace, Route, veth};
use rustix::mount::{MountFlags, mount, mount_bind};
use tempfile::TempDir;

use crate::applet::{FOR_FILES, OTHERS, TOOLS};
use crate::transcript::Block;

/// This program, which is the director's too.
const PROGRAM: &str = "/proc/self/exe";
/// Where programs are, as on the machine of the recordings.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The interfaces with their networks, the last address the next router's.
const INTERFACES: [(&str, &[&str]); 2] = [
    (
        "c0",
        &[
            "192.0.2.1/24",
            "192.0.2.10/32",
            "192.0.2.11/32",
            "192.0.2.12/32",
            "2001:db8:c::1/64",
            "2001:db8:c::10/128",
            "2001:db8:c::11/128",
            "2001:db8:c::12/128",
        ],
    ),
    ("s0", &["10.1.0.1/24", "2001:db8:5::1/64"]),
];
const ROUTERS: [&str; 2] = ["192.0.2.254", "2001:db8:c::fe"];

/// What all transcripts share: names of hosts and services, and a folder.
#[derive(Debug)]
pub(crate) struct House {
    folder: TempDir,
    library: Option<PathBuf>,
}

impl House {
    /// Mounts the names of the machine of the recordings over the host's, and puts
    /// programs into a folder: ours, or the real `ipvsadm` with `library` before it.
    pub(crate) fn furnish(home: &Path, library: Option<PathBuf>) -> Result<Self> {
        mount("ipvs-transcripts", "/run", "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, None)?;
        let folder = tempfile::Builder::new().prefix("ipvs-transcripts-").tempdir_in("/run")?;
        let services = fs::read_to_string("/etc/services").unwrap_or_default()
            + &fs::read_to_string(home.join("etc-services"))?;
        let hosts = fs::read_to_string(home.join("etc-hosts"))?;
        let files =
            "hosts: files\nservices: files\nprotocols: files\npasswd: files\ngroup: files\n";
        let texts = [("services", services), ("hosts", hosts), ("nsswitch.conf", files.to_owned())];
        for (name, text) in texts {
            let place = Path::new("/etc").join(name);
            let file = folder.path().join(name);
            fs::write(&file, text)?;
            mount_bind(&file, &place).with_context(|| format!("mount on {}", place.display()))?;
        }
        let programs = folder.path().join("bin");
        fs::create_dir(&programs)?;
        let me = fs::read_link(PROGRAM)?;
        let tools: &[&str] = if library.is_some() { &[] } else { &TOOLS };
        for name in FOR_FILES.iter().chain(tools) {
            symlink(&me, programs.join(name))?;
        }
        Ok(Self { folder, library })
    }
}

/// A namespace with a daemon in it.
#[derive(Debug)]
pub(crate) struct Room<'a> {
    house: &'a House,
    // Ended before the network that it works on.
    _daemon: ChildGuard,
    director: Namespace,
    _links: Vec<Link>,
}

impl<'a> Room<'a> {
    /// Lays out the network and starts a daemon.
    pub(crate) fn new(house: &'a House) -> Result<Self> {
        let director = Namespace::for_lab("director")?;
        let mut links = Vec::new();
        for (name, addresses) in INTERFACES {
            let other = format!("{name}-peer");
            let ends = (End::new(&director, name), End::new(&director, &other));
            let (link, peer) = veth(ends.0, ends.1, None)?;
            for address in addresses {
                link.add_address(address.parse::<IpNet>()?)?;
            }
            links.extend([link, peer]);
        }
        for router in ROUTERS {
            director.add_route(Route::default_via(router.parse::<IpAddr>()?))?;
        }
        director.forward_packets()?;
        let daemon = start(house, &director)?;
        Ok(Self { house, _daemon: daemon, director, _links: links })
    }

    /// Runs one line.
    pub(crate) fn run(&self, line: &str) -> Result<Block> {
        let mut command = self.director.command("bash")?;
        let folder = self.house.folder.path();
        let path = format!("{}:{PATH}", folder.join("bin").display());
        command.args(["-c", line]).stdin(Stdio::null()).current_dir("/");
        command.env_clear().envs([("PATH", path.as_str()), ("LANG", "C"), (OTHERS, PATH)]);
        command.env("IPVS_SOCKET", socket(house_folder(self.house)));
        if let Some(library) = &self.house.library {
            command.env("LD_PRELOAD", library);
        }
        let output = command.output().context("cannot start bash")?;
        let lines =
            |octets: &[u8]| String::from_utf8_lossy(octets).lines().map(str::to_owned).collect();
        // As a shell says that a signal has ended it.
        let by_signal = std::os::unix::process::ExitStatusExt::signal(&output.status);
        let status = output.status.code().unwrap_or_else(|| 128 + by_signal.unwrap_or(0));
        let (stdout, stderr) = (lines(&output.stdout), lines(&output.stderr));
        Ok(Block { command: line.to_owned(), stdout, stderr, status })
    }
}

fn house_folder(house: &House) -> &Path {
    house.folder.path()
}

fn socket(folder: &Path) -> PathBuf {
    folder.join("ipvs.sock")
}

/// Starts a daemon whose plane needs no rights on the host, and waits until it is ready.
fn start(house: &House, director: &Namespace) -> Result<ChildGuard> {
    let log = house_folder(house).join("daemon.log");
    let mut command: Command = director.command(PROGRAM)?;
    command.args(["daemon", "--plane", "user", "--connections", "4096", "--ready-fd", "1"]);
    command.args(["-i", "c0", "-i", "s0", "--socket"]).arg(socket(house_folder(house)));
    command.env(OTHERS, PATH).stdin(Stdio::null()).stdout(Stdio::piped());
    command.stderr(fs::File::create(&log)?);
    let mut daemon = director.spawn_child(command)?;
    let mut word = String::new();
    let stdout = daemon.child().stdout.take().context("no pipe")?;
    BufReader::new(stdout).read_line(&mut word)?;
    if word != "ready\n" {
        bail!("the daemon does not start:\n{}", fs::read_to_string(&log)?);
    }
    // Whoever reads the log of a failure wants the last daemon's only.
    std::io::stderr().flush()?;
    Ok(daemon)
}
