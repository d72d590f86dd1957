//! The live kernel: a guest with our agent in it as its first process.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use ipvs_conformance::case::Case;
use ipvs_lab::Namespace;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::job::{Job, MARK, Pace, QUIT, Transcript};

mod qemu;
mod uml;

use crate::options::Kind;

/// Why there is no such guest here, if so.
pub(crate) fn is_missing(kind: Kind) -> Option<String> {
    match kind {
        Kind::Uml => uml::is_missing(),
        Kind::Qemu => qemu::is_missing(),
    }
}

/// Starts a guest.
pub(crate) fn start(kind: Kind) -> Result<Guest> {
    match kind {
        Kind::Uml => uml::start(),
        Kind::Qemu => qemu::start(),
    }
}

/// How long a guest may take to start.
const START: Duration = Duration::from_mins(2);
/// How long it may take to switch itself off.
const END: Duration = Duration::from_secs(10);

/// A running guest.
#[derive(Debug)]
pub(crate) struct Guest {
    child: Child,
    console: Option<ChildStdin>,
    said: Receiver<String>,
    /// What the console said last, for when things go wrong.
    last: Vec<String>,
    /// What goes when it does.
    folder: PathBuf,
    /// Where its jobs are.
    jobs: PathBuf,
    count: u64,
    /// Whether it is stopped while it has nothing to do: with virtual time it would run through
    /// the years as fast as it can.
    rests: bool,
}

impl Guest {
    /// Starts `program`, whose standard streams are the console of a guest that
    /// finds its jobs in `jobs`; `folder` goes with it.
    fn start(
        program: &str,
        args: &[String],
        folder: PathBuf,
        jobs: PathBuf,
        rests: bool,
    ) -> Result<Self> {
        // It is killed when this thread ends, however it ends.
        let mut command = Namespace::current("home")?.command(program)?;
        command.args(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().with_context(|| format!("cannot start {program}"))?;
        let console = child.stdin.take();
        let stdout = child.stdout.take().context("no console")?;
        let (sender, said) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
                if sender.send(String::from_utf8_lossy(&line).trim_end().to_owned()).is_err() {
                    break;
                }
            }
        });
        let last = Vec::new();
        let mut guest = Self { child, console, said, last, folder, jobs, count: 0, rests };
        guest.hear("ready", START)?;
        guest.signal_at_rest(Signal::SIGSTOP);
        Ok(guest)
    }

    /// Plays the cases; `patience` is how long that may take.
    pub(crate) fn play(
        &mut self,
        cases: &[Case],
        pace: Pace,
        sums: bool,
        patience: Duration,
    ) -> Result<Vec<Transcript>> {
        self.count += 1;
        let number = self.count;
        let file = |kind: &str| self.jobs.join(format!("{number}.{kind}"));
        let (job, done) = (file("job"), file("done"));
        let asked = Job { cases: cases.to_vec(), pace, sums };
        fs::write(&job, serde_json::to_vec(&asked)?)?;
        let console = self.console.as_mut().context("the guest is off")?;
        writeln!(console, "job {number}")?;
        console.flush()?;
        self.signal_at_rest(Signal::SIGCONT);
        self.hear(&format!("done {number}"), patience)?;
        self.signal_at_rest(Signal::SIGSTOP);
        let transcripts: Vec<Transcript> = serde_json::from_slice(&fs::read(&done)?)?;
        ensure!(transcripts.len() == cases.len(), "the guest lost scenarios");
        fs::remove_file(job)?;
        fs::remove_file(done)?;
        Ok(transcripts)
    }

    /// Stops the guest, or has it go on, if it rests without a job.
    fn signal_at_rest(&self, signal: Signal) {
        if self.rests {
            self.signal(signal);
        }
    }

    /// If it has ended, there is nothing to signal. It is the leader of a group of its own.
    fn signal(&self, signal: Signal) {
        if let Ok(group) = i32::try_from(self.child.id()) {
            let _ = killpg(Pid::from_raw(group), signal);
        }
    }

    /// Waits for the agent to say `wanted`.
    fn hear(&mut self, wanted: &str, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = match self.said.recv_timeout(left) {
                Ok(line) => line,
                Err(RecvTimeoutError::Timeout) => {
                    bail!("the guest said nothing for {patience:?}:\n{}", self.last.join("\n"))
                }
                Err(RecvTimeoutError::Disconnected) => {
                    bail!("the guest ended:\n{}", self.last.join("\n"))
                }
            };
            // The console may put something of its own before the mark.
            match line.split_once(MARK) {
                Some((_, said)) if said == wanted => return Ok(()),
                Some((_, said)) => bail!("the guest says: {said}"),
                None => {
                    self.last.push(line);
                    if self.last.len() > 20 {
                        self.last.remove(0);
                    }
                }
            }
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if let Some(console) = &mut self.console {
            // If nobody listens, it is killed below.
            drop(writeln!(console, "{QUIT}"));
        }
        self.signal_at_rest(Signal::SIGCONT);
        let deadline = Instant::now() + END;
        while Instant::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                break;
            }
            thread::sleep(Duration::from_millis(50));
        }
        self.signal(Signal::SIGKILL);
        drop(self.child.kill());
        drop(self.child.wait());
        drop(fs::remove_dir_all(&self.folder));
    }
}

/// A new folder for jobs.
fn folder() -> Result<PathBuf> {
    let base = std::env::temp_dir();
    for number in 0..1000 {
        let path = base.join(format!("ipvs-oracle-{}-{number}", std::process::id()));
        match fs::create_dir(&path) {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error).context(path.display().to_string()),
        }
    }
    bail!("no room for a folder in {}", base.display())
}
