//! Edits of the configuration as plain values, and why one is refused.

use crate::dest::{DestKey, DestSpec};
use crate::drain::Drain;
use crate::mark::MarkRule;
use crate::service::{ServiceKey, ServiceSpec};
use crate::sync::{SyncDaemon, SyncState};
use crate::sysctl::{Sysctl, Value};

/// One edit. A list of them is applied wholly or not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// `ipvsadm -A`: adds a virtual service.
    AddService(ServiceKey, ServiceSpec),
    /// `ipvsadm -E`: replaces everything but the key.
    EditService(ServiceKey, ServiceSpec),
    /// `ipvsadm -D`: deletes the service and its destinations; connections stay.
    DeleteService(ServiceKey),
    /// `ipvsadm -a`: puts a destination at the head of the service's list.
    AddDest(ServiceKey, DestKey, DestSpec),
    /// `ipvsadm -e`: replaces everything but the key, in place.
    EditDest(ServiceKey, DestKey, DestSpec),
    /// `ipvsadm -d`: takes the destination off the list; its connections stay.
    DeleteDest(ServiceKey, DestKey),
    /// `ipvs drain`: nothing new goes to the destination; its connections may finish. One that
    /// is drained already is from now on drained so.
    DrainDest(ServiceKey, DestKey, Drain),
    /// `ipvs undrain`: the destination is as its weight says again.
    UndrainDest(ServiceKey, DestKey),
    /// `ipvsadm -Z`: takes the present counters as the new zero point, of one
    /// service and its destinations or of everything.
    Zero(Option<ServiceKey>),
    /// `ipvsadm -C`: deletes every service.
    Flush,
    /// `ipvsadm --set`: changes the timeouts that are not zero.
    SetTimeouts(TimeoutEdit),
    /// `ipvsadm --start-daemon`: starts a sync daemon.
    StartSync(SyncDaemon),
    /// `ipvsadm --stop-daemon`: stops a sync daemon.
    StopSync(SyncState),
    /// `ipvs mark add`: adds a rule to the end of the list.
    AddMarkRule(MarkRule),
    /// `ipvs mark del`: takes the rule off the list.
    DeleteMarkRule(MarkRule),
    /// `ipvs mark flush`: takes every rule off the list.
    FlushMarkRules,
    /// `ipvs sysctl NAME=VALUE`: changes a setting of `net.ipv4.vs`.
    SetSysctl(&'static Sysctl, Value),
}

/// The three timeouts of `ipvsadm --set`, in seconds; 0 leaves one as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimeoutEdit {
    /// TCP sessions in state ESTABLISHED.
    pub tcp: u32,
    /// TCP sessions in state `FIN_WAIT`.
    pub tcp_fin: u32,
    /// UDP connections.
    pub udp: u32,
}

/// Why a command was refused. Nothing was changed.
///
/// Each variant stands for one errno, the kernel's own where it refuses the
/// same request, so that `ipvsadm` prints the words its users know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// A service with this key is there (`EEXIST`).
    #[error("service already exists")]
    ServiceExists,
    /// No service has this key (`ESRCH`).
    #[error("no such service")]
    NoSuchService,
    /// No scheduler has this name (`ENOENT`).
    #[error("scheduler not found")]
    UnknownScheduler,
    /// No persistence engine has this name (`ENOENT`).
    #[error("persistence engine not found")]
    UnknownPersistenceEngine,
    /// The service has this destination (`EEXIST`).
    #[error("destination already exists")]
    DestExists,
    /// The service has no such destination (`ENOENT`).
    #[error("no such destination")]
    NoSuchDest,
    /// The destination is not drained (`ENODATA`).
    #[error("destination is not drained")]
    NotDrained,
    /// A sync daemon of this kind runs (`EEXIST`).
    #[error("sync daemon already runs")]
    SyncRuns,
    /// No sync daemon of this kind runs (`ESRCH`).
    #[error("no such sync daemon runs")]
    NoSync,
    /// The host has no interface of this name (`ENODEV`).
    #[error("no such interface")]
    NoInterface,
    /// This mark rule is there (`EEXIST`).
    #[error("mark rule already exists")]
    MarkRuleExists,
    /// There is no such mark rule (`ENOENT`).
    #[error("no such mark rule")]
    NoSuchMarkRule,
    /// A value is outside its range (`ERANGE`): negative weight, or a lower
    /// threshold above the upper one.
    #[error("value out of range")]
    OutOfRange,
    /// A value makes no sense here (`EINVAL`): an IPv6 prefix length outside
    /// 1..=128, a gue tunnel without port, an address that is not unicast, or
    /// a destination of the other family without a tunnel; or a value that a
    /// setting cannot have.
    #[error("invalid argument")]
    Invalid,
    /// An address family that is neither IPv4 nor IPv6 (`EAFNOSUPPORT`).
    #[error("address family not supported")]
    FamilyNotSupported,
    /// A table of the data plane is at its configured limit (`ENOMEM`).
    #[error("table is full: at most {limit} {what}")]
    Full {
        /// What the table holds.
        what: &'static str,
        /// The configured limit, in entries.
        limit: u32,
    },
    /// The data plane could not be changed (`EIO`); the daemon's log says why.
    #[error("the data plane refused the change")]
    Plane,
}
