//! The user-space plane: the same core as in eBPF, fed by packet sockets.
//!
//! It needs no eBPF, and in a network namespace of its own no right outside of
//! it, so it runs where the other plane cannot. In return forwarding is this
//! process's work, and ends with it.
//!
//! One thread (the worker) owns tables and ports; [`UserPlane`] is the handle
//! by which others ask it. The host must not have the virtual addresses: the
//! plane answers ARP and neighbour discovery for them, and its kernel must not
//! forward between the ports, which the plane sees to.

mod arp;
mod forwarding;
mod nd;
mod port;
mod report;
mod selection;
mod virtual_addrs;
mod worker;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use ipvs_core::addr::Family;
use ipvs_core::command::{Command, CommandError};
use ipvs_core::drain::DrainStatus;
use ipvs_core::mark::MarkRule;
use ipvs_core::service::ServiceKey;
use ipvs_core::settings::Settings;
use ipvs_core::snapshot::{ConnStatus, Control, DestStatus, Refused, ServiceStatus, Timeouts};
use ipvs_core::stats::{Counters, Rates};
use ipvs_core::sync::SyncDaemon;
use ipvs_core::sysctl::{self, SysctlError};
use ipvs_core::verdict::Reason;
use rustix::event::{EventfdFlags, eventfd};

use crate::firewall::{self, Firewall, Way};
use crate::measure::{Ground, Interface, Measures};
use crate::plane::Plane;
use crate::rtnetlink::Neighbour;
use crate::store::{Limits, Store as _};
use worker::{Request, Worker};

pub use forwarding::ForwardingError;
pub use port::PortCounters;
pub use selection::Selection;

/// What a plane is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// The interfaces that are its ports.
    pub ports: Selection,
    /// Capacities of its tables.
    pub limits: Limits,
    /// Whether it announces the virtual addresses and answers ARP and neighbour
    /// discovery for them. Not, if a router sends their packets here, or while
    /// another director has them.
    pub answers_for_vips: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { ports: Selection::All, limits: Limits::default(), answers_for_vips: true }
    }
}

/// Why the plane cannot start, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// No right to do what a director does.
    #[error(
        "no right to {action}: the user-space plane needs CAP_NET_RAW and CAP_NET_ADMIN in this \
         network namespace; run as root, give the program both capabilities \
         (`setcap cap_net_raw,cap_net_admin+ep`), or start it in a user namespace \
         (`unshare --user --map-root-user --net`)"
    )]
    NotPermitted {
        /// What was refused.
        action: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The kernel has no packet sockets, or lacks one of their options.
    #[error(
        "cannot open a packet socket with a ring on {port}: {source}; the kernel needs \
         CONFIG_PACKET, and to be Linux 4.20 or newer"
    )]
    Port {
        /// The interface.
        port: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// No interface has this name.
    #[error("there is no interface {0} in this network namespace")]
    NoSuchInterface(String),
    /// The interface cannot be a port.
    #[error("interface {name} cannot be a port: {reason}")]
    NoPort {
        /// Its name.
        name: String,
        /// Why.
        reason: &'static str,
    },
    /// The kernel forwards packets itself.
    #[error(transparent)]
    Forwarding(#[from] ForwardingError),
    /// The kernel does not say which interfaces, addresses and routes there are.
    #[error("the kernel does not answer on rtnetlink: {0}")]
    Netlink(#[source] io::Error),
    /// There is no memory for the tables.
    #[error("no memory for a table of {0} connections")]
    Memory(u32),
    /// A thread could not be started.
    #[error("cannot start the plane's thread: {0}")]
    Thread(#[source] io::Error),
}

impl StartError {
    fn port(port: &str, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::PermissionDenied => {
                Self::NotPermitted { action: format!("open a packet socket on {port}"), source }
            }
            _ => Self::Port { port: port.to_owned(), source },
        }
    }

    fn netlink(source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::PermissionDenied => {
                Self::NotPermitted { action: "have the kernel ask for neighbours".into(), source }
            }
            _ => Self::Netlink(source),
        }
    }
}

/// What one port has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortStatus {
    /// The interface's name.
    pub name: String,
    /// What it has counted.
    pub counters: PortCounters,
}

/// The handle of a user-space plane; the plane ends when it is dropped.
#[derive(Debug)]
pub struct UserPlane {
    /// `None` once it is being dropped.
    requests: Option<Sender<Request>>,
    wake: Arc<OwnedFd>,
    worker: Option<JoinHandle<()>>,
    table_size: u32,
    firewall: Firewall,
}

impl UserPlane {
    /// Starts a plane in the calling thread's network namespace.
    pub fn start(options: &Options) -> Result<Self, StartError> {
        let worker = Worker::new(options)?;
        let flags = EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC;
        let wake = eventfd(0, flags).map_err(|error| StartError::Thread(error.into()))?;
        let wake = Arc::new(wake);
        let (requests, inbox) = channel();
        let woken = Arc::clone(&wake);
        let handle = thread::Builder::new()
            .name("user-plane".to_owned())
            .spawn(move || worker.run(&inbox, &woken))
            .map_err(StartError::Thread)?;
        Ok(Self {
            requests: Some(requests),
            wake,
            worker: Some(handle),
            table_size: options.limits.conns,
            firewall: Firewall::listen(),
        })
    }

    /// Has the worker do something after the frames that have come in before,
    /// and returns the outcome; `None` if the worker is gone.
    fn ask<R: Send + 'static>(
        &self,
        what: impl FnOnce(&mut Worker) -> R + Send + 'static,
    ) -> Option<R> {
        let (answer, outcome) = sync_channel(1);
        let request: Request = Box::new(move |worker| {
            // The other end waits for it, below.
            let _ = answer.send(what(worker));
        });
        self.requests.as_ref()?.send(request).ok()?;
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
        outcome.recv().ok()
    }

    /// Whether the worker is there; if not, nothing is forwarded any more.
    pub fn is_running(&self) -> bool {
        self.ask(|_| ()).is_some()
    }

    /// Returns when every frame that had come in at the time of the call is dealt with.
    pub fn settle(&self) {
        self.ask(|_| ());
    }

    /// Changes settings.
    pub fn change_settings(&self, change: impl FnOnce(&mut Settings) + Send + 'static) {
        self.ask(|worker| {
            let Ok(()) = worker.registry.change_settings(change);
        });
    }

    /// The names of the ports, and the families that there are services of.
    fn ports_and_families(&self) -> (Vec<String>, Vec<Family>) {
        let asked = self.ask(|worker| {
            let names = worker.ports.all.iter().map(|port| port.link.name.clone());
            (names.collect(), firewall::families(worker.registry.settings()))
        });
        asked.unwrap_or_default()
    }

    /// Frames that have come in by a port and are dealt with; 0 if there is no
    /// such port.
    pub fn frames_seen(&self, port: &str) -> u64 {
        let ports = self.ports();
        ports.iter().find(|status| status.name == port).map_or(0, |status| status.counters.seen)
    }

    /// The ports.
    pub fn ports(&self) -> Vec<PortStatus> {
        self.ask(|worker| {
            let ports = worker.ports.all.iter_mut().map(|port| {
                port.count_overruns();
                PortStatus { name: port.link.name.clone(), counters: port.counters() }
            });
            ports.collect()
        })
        .unwrap_or_default()
    }
}

/// No firewall sees what comes in by a packet socket.
fn ways(ports: &[String]) -> Vec<(&str, Way)> {
    ports.iter().map(|name| (name.as_str(), Way::Past)).collect()
}

/// The worker keeps its own time and hears of the host's changes by itself, so
/// a daemon need not call [`tick`](Plane::tick) and
/// [`host_changed`](Plane::host_changed) for them.
impl Plane for UserPlane {
    fn report(&self) -> Vec<String> {
        let Some(mut lines) = self.ask(|worker| worker.report()) else {
            return vec!["the plane has stopped: nothing is forwarded".to_owned()];
        };
        let (ports, families) = self.ports_and_families();
        lines.extend(self.firewall.report(&ways(&ports), &families));
        lines
    }

    fn tick(&mut self) {
        self.ask(Worker::catch_up);
        let (ports, families) = self.ports_and_families();
        self.firewall.follow(&ways(&ports), &families);
    }

    fn set_ftp_ports(&mut self, ports: [u16; 8]) {
        self.change_settings(move |settings| settings.ftp_ports = ports);
    }

    fn host_changed(&mut self) {
        self.ask(Worker::refresh);
    }

    fn neighbours_changed(&mut self, _: &[Neighbour]) {
        self.host_changed();
    }

    fn shift_clock(&mut self, by: Duration) {
        self.ask(move |worker| worker.shift_clock(by));
    }

    fn until_look(&mut self) -> Duration {
        self.ask(|worker| worker.registry.until_look()).unwrap_or_default()
    }

    fn sweep(&mut self) {
        self.ask(|worker| worker.registry.store_mut().sweep());
    }

    fn measure(&mut self) -> Measures {
        self.ask(|worker| worker.registry.measure()).unwrap_or_default()
    }

    fn ground(&mut self) -> Ground {
        let (ports, _) = self.ports_and_families();
        let reason = || "by a packet socket with a ring".to_owned();
        let port = |name| Interface { name, mode: "user", reason: reason() };
        let interfaces = ports.into_iter().map(port).collect();
        Ground { plane: "user", interfaces, ..Ground::default() }
    }

    fn reasons(&mut self) -> Vec<(Reason, u64)> {
        let counted = self.ask(|worker| {
            let tables = worker.registry.store();
            let all = Reason::ALL.iter().map(|reason| (*reason, tables.counted(*reason)));
            all.filter(|(_, count)| *count != 0).collect()
        });
        counted.unwrap_or_default()
    }
}

impl Drop for UserPlane {
    fn drop(&mut self) {
        self.ask(Worker::stop);
        self.requests = None;
        if let Some(worker) = self.worker.take() {
            // Its panic was reported where it happened.
            let _ = worker.join();
        }
    }
}

impl Control for UserPlane {
    fn apply(&mut self, commands: &[Command]) -> Result<(), Refused> {
        let commands = commands.to_vec();
        self.ask(move |worker| worker.apply(&commands))
            .unwrap_or(Err(Refused { position: 0, error: CommandError::Plane }))
    }

    fn apply_each(&mut self, commands: &[Command], each: &mut dyn FnMut(Result<(), CommandError>)) {
        let asked = commands.to_vec();
        let outcomes = self.ask(move |worker| worker.apply_each(&asked)).unwrap_or_default();
        let gone = std::iter::repeat(Err(CommandError::Plane));
        outcomes.into_iter().chain(gone).take(commands.len()).for_each(each);
    }

    fn services(&mut self, each: &mut dyn FnMut(ServiceStatus)) {
        let services = self.ask(|worker| {
            let mut services = Vec::new();
            worker.registry.services(&mut |service| services.push(service));
            services
        });
        services.into_iter().flatten().for_each(each);
    }

    fn service(&mut self, key: &ServiceKey) -> Option<ServiceStatus> {
        let key = *key;
        self.ask(move |worker| worker.registry.service(&key)).flatten()
    }

    fn dests(&mut self, key: &ServiceKey, each: &mut dyn FnMut(DestStatus)) -> bool {
        let key = *key;
        let dests = self.ask(move |worker| {
            let mut dests = Vec::new();
            worker.registry.dests(&key, &mut |dest| dests.push(dest)).then_some(dests)
        });
        let Some(dests) = dests.flatten() else { return false };
        dests.into_iter().for_each(each);
        true
    }

    fn drains(&mut self, each: &mut dyn FnMut(DrainStatus)) {
        let drains = self.ask(|worker| {
            let mut drains = Vec::new();
            worker.registry.drains(&mut |drain| drains.push(drain));
            drains
        });
        drains.into_iter().flatten().for_each(each);
    }

    fn connections(&mut self, each: &mut dyn FnMut(ConnStatus)) {
        let conns = self.ask(|worker| {
            let mut conns = Vec::new();
            worker.registry.connections(&mut |conn| conns.push(conn));
            conns
        });
        conns.into_iter().flatten().for_each(each);
    }

    fn mark_rules(&mut self, each: &mut dyn FnMut(&MarkRule)) {
        let rules = self.ask(|worker| worker.registry.mark_rules().to_vec());
        rules.unwrap_or_default().iter().for_each(each);
    }

    fn sync_daemons(&mut self, each: &mut dyn FnMut(&SyncDaemon)) {
        let daemons = self.ask(|worker| worker.registry.sync_daemons().to_vec());
        daemons.unwrap_or_default().iter().for_each(each);
    }

    fn timeouts(&mut self) -> Timeouts {
        let nothing = Timeouts { tcp: 0, tcp_fin: 0, udp: 0 };
        self.ask(|worker| worker.registry.timeouts()).unwrap_or(nothing)
    }

    fn statistics(&mut self) -> (Counters, Rates) {
        self.ask(|worker| worker.registry.statistics()).unwrap_or_default()
    }

    fn cpu_counters(&mut self, each: &mut dyn FnMut(Counters)) {
        let cpus = self.ask(|worker| {
            let mut cpus = Vec::new();
            worker.registry.cpu_counters(&mut |counters| cpus.push(counters));
            cpus
        });
        cpus.into_iter().flatten().for_each(each);
    }

    fn sysctls(&mut self, each: &mut dyn FnMut(&'static str, sysctl::Value)) {
        let settings = self.ask(|worker| {
            let mut settings = Vec::new();
            worker.registry.sysctls(&mut |name, value| settings.push((name, value)));
            settings
        });
        settings.into_iter().flatten().for_each(|(name, value)| each(name, value));
    }

    fn set_sysctl(&mut self, name: &str, text: &str) -> Result<(), SysctlError> {
        let (name, text) = (name.to_owned(), text.to_owned());
        self.ask(move |worker| worker.registry.set_sysctl(&name, &text))
            .unwrap_or(Err(SysctlError::Plane))
    }

    fn ftp_ports(&mut self) -> [u16; 8] {
        self.ask(|worker| worker.registry.ftp_ports()).unwrap_or_default()
    }

    fn table_size(&self) -> u32 {
        self.table_size
    }
}
