//! The director of the demo: its daemon, a process of its own, and ipvsadm.

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, Cursor};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context as _, bail};
use ipvs_daemon::DEFAULT_SOCKET;
use ipvs_lab::{ChildGuard, Namespace};
use ipvs_netlink::Client;
use ipvs_netlink::client::SeqpacketTransport;

use super::layout::Site;
use super::screen::Screen;
use crate::adm::{self, Endpoint, Io, names::NoNames};

/// Enough for the demo, in a table that is made in a moment.
const CONNECTIONS: &str = "262144";

/// One of the two planes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Bpf,
    User,
}

impl Kind {
    pub(super) const fn option(self) -> &'static str {
        match self {
            Self::Bpf => "bpf",
            Self::User => "user",
        }
    }
}

/// The director's daemon.
#[derive(Debug)]
pub(super) struct Director {
    namespace: Namespace,
    socket: PathBuf,
    pub(super) kind: Kind,
    /// Why it is this plane.
    pub(super) why: String,
    daemon: Option<ChildGuard>,
    log: Arc<Mutex<Vec<String>>>,
}

impl Director {
    /// Starts a daemon for the plane in the director's namespace.
    pub(super) fn start(namespace: &Namespace, kind: Kind, why: String) -> anyhow::Result<Self> {
        let namespace = namespace.clone();
        let mut director = Self {
            namespace,
            socket: DEFAULT_SOCKET.into(),
            kind,
            why,
            daemon: None,
            log: Arc::default(),
        };
        director.start_daemon()?;
        Ok(director)
    }

    /// Starts the daemon and waits until it is ready.
    pub(super) fn start_daemon(&mut self) -> anyhow::Result<()> {
        let mut command = self.namespace.command("/proc/self/exe")?;
        command.args(["daemon", "--plane", self.kind.option(), "--socket"]).arg(&self.socket);
        command.args(["--connections", CONNECTIONS, "--ready-fd", "1"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut daemon = self.namespace.spawn_child(command)?;
        let stdout = daemon.child().stdout.take().context("no pipe")?;
        let stderr = daemon.child().stderr.take().context("no pipe")?;
        let log = Arc::clone(&self.log);
        let logger = thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                log.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        });
        let mut word = String::new();
        BufReader::new(stdout).read_line(&mut word)?;
        if word != "ready\n" {
            // It has ended: the rest of what it had to say is there soon.
            drop(daemon);
            drop(logger.join());
            let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
            bail!("{}", log.last().map_or("the daemon ended without a word", String::as_str));
        }
        self.daemon = Some(daemon);
        Ok(())
    }

    /// Kills the daemon by SIGKILL and waits for its end.
    pub(super) fn kill_daemon(&mut self) -> anyhow::Result<()> {
        let mut daemon = self.daemon.take().context("no daemon runs")?;
        daemon.kill().context("cannot kill the daemon")
    }

    /// The daemon's process.
    pub(super) fn daemon_id(&self) -> u32 {
        self.daemon.as_ref().map_or(0, ChildGuard::id)
    }

    /// Asks the daemon by its socket.
    pub(super) fn client(&self) -> anyhow::Result<Client<SeqpacketTransport>> {
        let socket = SeqpacketTransport::connect(&self.socket)?;
        Ok(Client::new(socket)?)
    }

    /// Runs ipvsadm over the socket, with `input` for it to read, and returns
    /// what it prints.
    pub(super) fn ipvsadm(&self, line: &str, input: &str) -> anyhow::Result<String> {
        let words = ["ipvsadm"].into_iter().chain(line.split(' ')).map(OsString::from);
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let io = Io {
            stdin: &mut Cursor::new(input),
            stdout: &mut stdout,
            stderr: &mut stderr,
            names: &NoNames,
        };
        let endpoint = Endpoint::Daemon(self.socket.clone());
        let status = adm::run(&words.collect::<Vec<_>>(), io, || endpoint.connect());
        if status != 0 {
            bail!("ipvsadm {line}: {}", String::from_utf8_lossy(&stderr).trim());
        }
        Ok(String::from_utf8_lossy(&stdout).into_owned())
    }

    /// Makes the site's services, showing how and what came of it.
    pub(super) fn configure(&self, site: &Site, screen: &mut Screen) -> anyhow::Result<()> {
        screen.heading("Twelve virtual services, made by ipvsadm over the daemon's socket");
        let (mut shown, mut more) = (true, 0);
        for service in &site.services {
            for command in service.commands() {
                self.ipvsadm(&command, "")?;
                if shown {
                    screen.line(&format!("$ ipvsadm {command}"));
                } else {
                    more += 1;
                }
            }
            shown = false;
        }
        screen.line(&format!("  … and {more} lines like these for the other services"));
        screen.line("$ ipvsadm -Ln");
        screen.indented(&self.ipvsadm("-Ln", "")?);
        Ok(())
    }
}
