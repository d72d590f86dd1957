//! Child processes that do not outlive the lab.

use std::{
    io,
    process::{Child, Command},
    sync::{
        OnceLock,
        mpsc::{self, Sender, SyncSender},
    },
    thread,
    time::{Duration, Instant},
};

/// A child process that is killed, and waited for, when this value is dropped.
#[derive(Debug)]
pub struct ChildGuard(Child);

impl ChildGuard {
    /// Starts `command` from a thread that lives as long as this process.
    ///
    /// The kernel sends the parent-death signal when the *thread* that forked ends, so a child
    /// started from a short-lived thread would be killed too early.
    pub fn spawn(command: Command) -> io::Result<Self> {
        let (answer, started) = mpsc::sync_channel(1);
        starter()?
            .send((command, answer))
            .map_err(|_closed| io::Error::other("the thread that starts programs has ended"))?;
        started
            .recv()
            .map_err(|_closed| io::Error::other("the thread that starts programs has ended"))?
            .map(Self)
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// The child itself, for its pipes and its exit status.
    pub fn child(&mut self) -> &mut Child {
        &mut self.0
    }

    /// Kills the child by SIGKILL and waits for its end.
    pub fn kill(&mut self) -> io::Result<()> {
        self.0.kill()?;
        self.0.wait().map(|_status| ())
    }

    /// Asks the child to end by SIGTERM; kills it if it has not ended within `grace`.
    /// Returns whether it ended by itself.
    pub fn terminate(&mut self, grace: Duration) -> io::Result<bool> {
        let id = i32::try_from(self.0.id()).map_err(io::Error::other)?;
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(id), nix::sys::signal::Signal::SIGTERM)?;
        let deadline = Instant::now() + grace;
        // There is no wait with a timeout; a process descriptor would need Linux 5.3 and unsafe.
        while Instant::now() < deadline {
            if self.0.try_wait()?.is_some() {
                return Ok(true);
            }
            thread::sleep(Duration::from_millis(5));
        }
        self.kill().map(|()| false)
    }
}

impl Drop for ChildGuard {
    fn drop(&mut self) {
        // Both fail only for a child that has ended and was waited for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

type Order = (Command, SyncSender<io::Result<Child>>);

/// Returns the way to the one thread that forks.
fn starter() -> io::Result<Sender<Order>> {
    static STARTER: OnceLock<Sender<Order>> = OnceLock::new();
    if let Some(sender) = STARTER.get() {
        return Ok(sender.clone());
    }
    let (sender, orders) = mpsc::channel::<Order>();
    thread::Builder::new().name("lab-starter".into()).spawn(move || {
        for (mut command, answer) in orders {
            // The caller waits for the answer; if it panicked meanwhile, the child is dropped
            // running and dies with this process.
            let _ = answer.send(command.spawn());
        }
    })?;
    // Of two racing threads, the loser's channel closes and its thread ends.
    Ok(STARTER.get_or_init(|| sender).clone())
}
