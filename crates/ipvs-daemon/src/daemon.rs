//! The daemon: waits for clients, news, signals and the next second, and deals
//! with each in turn.

use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::config::ConfigFile;
use crate::director::{Director, Driven};
use crate::host::{Host, News};
use crate::listener::Listener;
use crate::metrics::Metrics;
use crate::peer::{Peer, Stay};
use crate::rights::Rights;
use crate::{DaemonError, Options, manager, pins, start};

/// How often the plane is looked after.
const TICK: Duration = Duration::from_secs(1);
/// Clients at a time; others wait to be accepted.
const MOST_PEERS: usize = 256;
/// Transactions at a time, each of which may take 64 MiB; others are told to try again.
const MOST_TRANSACTIONS: usize = 4;

/// A data plane behind its socket.
#[derive(Debug)]
pub struct Daemon {
    director: Director,
    listener: Listener,
    rights: Rights,
    peers: Vec<Peer>,
    host: Option<Host>,
    metrics: Option<Metrics>,
    signals: SignalFd,
    config: Option<ConfigFile>,
    next_tick: Instant,
    /// The plane has put work off.
    has_more: bool,
    /// Nobody is accepted before this time: the last attempt failed.
    accept_after: Instant,
}

impl Daemon {
    /// Starts the plane in the calling thread's network namespace, or takes
    /// over one that was found running, and opens the socket.
    ///
    /// SIGTERM and SIGINT are blocked from here on, and SIGHUP with a configuration file:
    /// [`run`](Self::run) waits for them.
    pub fn start(options: &Options) -> Result<Self, DaemonError> {
        // Before the plane starts a thread, which inherits what is blocked.
        let signals = receive_signals(options.config.is_some())?;
        let rights = Rights::find(options.group.as_deref(), &options.readers)?;
        let mut listener = Listener::claim(&options.socket, &rights)?;
        // Before the plane is touched: it may be in vain.
        let metrics = options.metrics.map(serve_metrics).transpose()?;
        let director = start::start(options)?;
        let now = Instant::now();
        let config = options.config.as_deref().map(ConfigFile::at);
        let mut director = configured(director, config.as_ref(), options, now)?;
        let host = director.needs_news().then(|| Host::listen(now)).transpose();
        let host = host.map_err(DaemonError::Host)?;
        for line in director.words() {
            tracing::info!("{line}");
        }
        listener.publish()?;
        tracing::info!("listening on {}", options.socket.display());
        manager::tell_ready(director.choice());
        let (peers, next_tick) = (Vec::new(), now + TICK);
        Ok(Self {
            director,
            listener,
            rights,
            peers,
            host,
            metrics,
            signals,
            config,
            next_tick,
            has_more: true,
            accept_after: now,
        })
    }

    /// Answers until SIGTERM or SIGINT; SIGHUP has the configuration file read again.
    ///
    /// The eBPF plane goes on without its daemon; the user-space plane ends.
    pub fn run(mut self) -> Result<(), DaemonError> {
        while let Some(ready) = self.wait()? {
            let now = Instant::now();
            self.serve_peers(&ready.peers, now);
            if ready.listener {
                self.accept(now);
            }
            if ready.health {
                self.director.look_after_health();
            }
            if let Some(metrics) = self.metrics.as_ref().filter(|_| ready.metrics) {
                metrics.answer(&mut self.director);
            }
            self.look_after(ready.host, now)?;
        }
        manager::tell_stopping();
        match self.director.driven {
            Driven::Bpf { .. } => tracing::info!("ended; the eBPF plane goes on without a daemon"),
            Driven::User(_) => tracing::info!("ended, and the user-space plane with it"),
        }
        Ok(())
    }

    /// Waits until there is something to do; `None` to end.
    fn wait(&mut self) -> Result<Option<Ready>, DaemonError> {
        let now = Instant::now();
        let accepts = self.peers.len() < MOST_PEERS && now >= self.accept_after;
        let listener = if accepts { PollFlags::IN } else { PollFlags::empty() };
        let signals = self.signals.as_fd();
        let mut fds = vec![
            PollFd::from_borrowed_fd(signals, PollFlags::IN),
            PollFd::from_borrowed_fd(self.listener.as_fd(), listener),
        ];
        fds.extend(self.host.iter().map(|host| PollFd::new(host, PollFlags::IN)));
        let after_host = fds.len();
        fds.extend(self.metrics.iter().map(|metrics| PollFd::new(metrics, PollFlags::IN)));
        let after_metrics = fds.len();
        let checks = self.director.checks().fd();
        fds.extend(checks.iter().map(|checks| PollFd::from_borrowed_fd(*checks, PollFlags::IN)));
        let first_peer = fds.len();
        fds.extend(self.peers.iter().map(|peer| PollFd::new(peer, peer.interest())));
        let deadline = self.host.as_ref().and_then(Host::deadline);
        let deadline = deadline.map_or(self.next_tick, |news| news.min(self.next_tick));
        let deadline = self.director.trial_deadline().map_or(deadline, |end| end.min(deadline));
        let deadline = if self.has_more { now } else { deadline };
        let left = Timespec::try_from(deadline.saturating_duration_since(now));
        match poll(&mut fds, left.ok().as_ref()) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(Some(Ready::default())),
            Err(error) => return Err(DaemonError::Wait(error.into())),
        }
        let is_ready = |at: usize| fds.get(at).is_some_and(|fd| !fd.revents().is_empty());
        let signalled = is_ready(0);
        let ready = Ready {
            listener: is_ready(1),
            host: self.host.is_some() && is_ready(2),
            metrics: self.metrics.is_some() && is_ready(after_host),
            health: checks.is_some() && is_ready(after_metrics),
            peers: (first_peer..fds.len()).map(is_ready).collect(),
        };
        if signalled && self.is_told_to_end()? {
            return Ok(None);
        }
        Ok(Some(ready))
    }

    /// Takes the signals that have come, and does what those say that end nothing.
    fn is_told_to_end(&mut self) -> Result<bool, DaemonError> {
        let failed = |errno: nix::Error| DaemonError::Signals(errno.into());
        while let Some(signal) = self.signals.read_signal().map_err(failed)? {
            if i32::try_from(signal.ssi_signo) != Ok(Signal::SIGHUP as i32) {
                return Ok(true);
            }
            let Some(config) = &self.config else { continue };
            manager::tell_reloading();
            match config.load(&mut self.director) {
                Ok(changes) => tracing::info!(changes, "the configuration was read again"),
                Err(why) => tracing::error!("{why} (nothing was changed)"),
            }
            manager::tell_ready(self.director.choice());
        }
        Ok(false)
    }

    /// Goes on with the clients that are ready, one datagram each, and parts
    /// with those that have gone or do not read.
    fn serve_peers(&mut self, ready: &[bool], now: Instant) {
        let Self { peers, director, .. } = self;
        let mut ready = ready.iter();
        let mut transactions = peers.iter().filter(|peer| peer.is_in_transaction()).count();
        peers.retain_mut(|peer| {
            if ready.next() == Some(&true) {
                let before = usize::from(peer.is_in_transaction());
                peer.let_begin(transactions < MOST_TRANSACTIONS + before);
                let stay = peer.go_on(director, now);
                transactions = transactions - before + usize::from(peer.is_in_transaction());
                if stay == Stay::No {
                    return false;
                }
            }
            let alive = peer.is_alive(now);
            if !alive {
                tracing::warn!(
                    "a client does not read its answers or finish its transaction: hung up"
                );
            }
            alive
        });
    }

    /// Lets the clients in that wait.
    fn accept(&mut self, now: Instant) {
        while self.peers.len() < MOST_PEERS {
            match self.listener.accept() {
                Ok(Some(socket)) => {
                    let access = self.rights.of_client(&socket);
                    self.peers.push(Peer::new(socket, access, now));
                }
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a client");
                    self.accept_after = now + TICK;
                    return;
                }
            }
        }
    }

    /// Tells the plane what has happened, and gives it its second.
    fn look_after(&mut self, news: bool, now: Instant) -> Result<(), DaemonError> {
        if let Some(host) = &mut self.host {
            if news {
                host.hear().map_err(DaemonError::Host)?;
            }
            if let Some(News { routes, neighbours }) = host.tells(now) {
                tracing::debug!(routes, neighbours = neighbours.len(), "the host has changed");
                if routes {
                    self.director.plane().host_changed();
                    self.has_more = true;
                }
                if !neighbours.is_empty() {
                    self.director.plane().neighbours_changed(&neighbours);
                }
            }
        }
        self.director.look_after_trial(now);
        self.has_more = self.has_more && self.director.plane().go_on();
        if now >= self.next_tick {
            if !self.director.is_running() {
                return Err(DaemonError::PlaneEnded);
            }
            self.director.retry_health(now);
            self.director.plane().tick();
            manager::tell_alive();
            self.next_tick = now + TICK;
        }
        Ok(())
    }
}

/// What can be gone on with.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a descriptor of its own")]
struct Ready {
    listener: bool,
    host: bool,
    metrics: bool,
    health: bool,
    peers: Vec<bool>,
}

fn serve_metrics(address: SocketAddr) -> Result<Metrics, DaemonError> {
    let failed = |source| DaemonError::Metrics { address, source };
    let (metrics, address) = Metrics::listen(address).map_err(failed)?;
    tracing::info!("metrics at http://{address}/metrics");
    Ok(metrics)
}

/// Goes on with the trial of an earlier daemon, and makes what runs what the file says. If that
/// cannot be, what ran before goes on, or nothing is started.
fn configured(
    mut director: Director,
    config: Option<&ConfigFile>,
    options: &Options,
    now: Instant,
) -> Result<Director, DaemonError> {
    director.resume_trial(&options.socket, now);
    let Some(Err(why)) = config.map(|config| config.load(&mut director)) else {
        return Ok(director);
    };
    if director.was_adopted() {
        tracing::error!("{why}; what ran before is kept");
        return Ok(director);
    }
    let is_pinned = matches!(director.driven, Driven::Bpf { .. });
    drop(director);
    if is_pinned && let Err(error) = pins::detach(&options.pins) {
        tracing::error!(%error, "what was pinned cannot be removed");
    }
    Err(DaemonError::Config(why))
}

/// Has the signals that are for a daemon come by a descriptor.
fn receive_signals(reloads: bool) -> Result<SignalFd, DaemonError> {
    let failed = |errno: nix::Error| DaemonError::Signals(errno.into());
    let mut ours: SigSet = [Signal::SIGTERM, Signal::SIGINT].into_iter().collect();
    if reloads {
        ours.add(Signal::SIGHUP);
    }
    ours.thread_block().map_err(failed)?;
    SignalFd::with_flags(&ours, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).map_err(failed)
}
