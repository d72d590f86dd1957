//! What the control side shows: services, destinations and connections as
//! plain values, taken from a data plane at one moment.

use crate::addr::{Addr, Family};
use crate::command::{Command, CommandError};
use crate::dest::{DestKey, DestSpec};
use crate::drain::DrainStatus;
use crate::engine;
use crate::mark::MarkRule;
use crate::name::Name;
use crate::service::{ServiceKey, ServiceSpec};
use crate::stats::{Counters, Rates};
use crate::sync::SyncDaemon;
use crate::sysctl::{self, SysctlError};
use crate::verdict::Reason;

/// A service as `ipvsadm -L` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceStatus {
    /// Its key.
    pub key: ServiceKey,
    /// Its configuration.
    pub spec: ServiceSpec,
    /// Totals since the zero point.
    pub counters: Counters,
    /// Rates.
    pub rates: Rates,
}

/// A destination as `ipvsadm -L` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DestStatus {
    /// Its key.
    pub key: DestKey,
    /// Its configuration.
    pub spec: DestSpec,
    /// Connections counted active.
    pub active: u32,
    /// Connections counted inactive.
    pub inactive: u32,
    /// Persistence templates.
    pub persistent: u32,
    /// Totals since the zero point.
    pub counters: Counters,
    /// Rates.
    pub rates: Rates,
}

/// A connection or persistence template as `ipvsadm -Lc` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnStatus {
    /// Family of client and virtual address.
    pub family: Family,
    /// IANA protocol number; 0 for the template of a firewall-mark service.
    pub protocol: u8,
    /// Client address; for a template, masked.
    pub client: Addr,
    /// Client port; 0 for a template.
    pub client_port: u16,
    /// Virtual address; the mark in the first four octets, big-endian, for the
    /// template of a firewall-mark service.
    pub virtual_addr: Addr,
    /// Virtual port.
    pub virtual_port: u16,
    /// Family of the destination address.
    pub dest_family: Family,
    /// Destination address.
    pub dest: Addr,
    /// Destination port.
    pub dest_port: u16,
    /// State as the kernel prints it: `ESTABLISHED`, `UDP`, `NONE`, …
    pub state: &'static str,
    /// Milliseconds until the connection expires.
    pub expires_ms: u64,
    /// The kernel's connection flags (`IP_VS_CONN_F_*`), forwarding method in the low three bits.
    pub flags: u32,
    /// The firewall mark it was made under; 0 for none.
    pub fwmark: u32,
    /// A template's persistence engine and what it keeps.
    pub engine: Option<(Name, engine::Data)>,
}

/// The timeouts that `ipvsadm --set` changes, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP in state ESTABLISHED.
    pub tcp: u32,
    /// TCP in state `FIN_WAIT`.
    pub tcp_fin: u32,
    /// UDP.
    pub udp: u32,
}

/// What the control side asks of a director, whichever plane it drives.
pub trait Control {
    /// Applies `commands` in order, all or none; on refusal returns the
    /// position of the one at fault and why.
    fn apply(&mut self, commands: &[Command]) -> Result<(), Refused>;

    /// Applies `commands` in order, each whatever became of those before it, and calls
    /// `each` with what became of it.
    fn apply_each(&mut self, commands: &[Command], each: &mut dyn FnMut(Result<(), CommandError>)) {
        for command in commands {
            each(self.apply(core::slice::from_ref(command)).map_err(|refused| refused.error));
        }
    }

    /// Applies as [`apply`](Self::apply) does, on trial: what there was before is restored after
    /// so many seconds, unless the trial is [ended](Self::end_trial) before.
    fn apply_on_trial(&mut self, commands: &[Command], seconds: u32) -> Result<(), TrialError> {
        let _ = (commands, seconds);
        Err(TrialError::Unsupported)
    }

    /// Applies as [`apply`](Self::apply) does, or on trial for so many seconds, and has checked
    /// from then on what `checks` says, the text of a configuration file.
    fn apply_checked(
        &mut self,
        commands: &[Command],
        checks: &str,
        trial: Option<u32>,
    ) -> Result<(), TrialError> {
        let _ = (commands, checks, trial);
        Err(TrialError::Unsupported)
    }

    /// Calls `each` for all that is known of the health of destinations: what is checked first,
    /// if anything is.
    fn health(&mut self, each: &mut dyn FnMut(Health<'_>)) {
        let _ = each;
    }

    /// Whether something is on trial.
    fn is_on_trial(&self) -> bool {
        false
    }

    /// Ends the trial: what was applied is kept, or what there was before is restored.
    fn end_trial(&mut self, keep: bool) -> Result<(), TrialError> {
        let _ = keep;
        Err(TrialError::None)
    }

    /// Counts what was changed: while it is the same, all that can be edited is the same.
    fn generation(&self) -> u64 {
        0
    }

    /// Calls `each` for every service, in no particular order.
    fn services(&mut self, each: &mut dyn FnMut(ServiceStatus));

    /// One service, if there is one with this key.
    fn service(&mut self, key: &ServiceKey) -> Option<ServiceStatus>;

    /// Calls `each` for every destination of the service, newest first, and
    /// returns whether there is such a service.
    fn dests(&mut self, key: &ServiceKey, each: &mut dyn FnMut(DestStatus)) -> bool;

    /// Calls `each` for every destination that is drained, in no particular order.
    fn drains(&mut self, each: &mut dyn FnMut(DrainStatus)) {
        let _ = each;
    }

    /// Calls `each` for every connection and template, in no particular order.
    fn connections(&mut self, each: &mut dyn FnMut(ConnStatus));

    /// The timeouts in force.
    fn timeouts(&mut self) -> Timeouts;

    /// Calls `each` for every sync daemon that runs, the master first.
    fn sync_daemons(&mut self, each: &mut dyn FnMut(&SyncDaemon)) {
        let _ = each;
    }

    /// Totals since the zero point and rates, of all services together.
    fn statistics(&mut self) -> (Counters, Rates) {
        (Counters::default(), Rates::default())
    }

    /// Calls `each` with what every CPU has counted, whatever the zero point.
    fn cpu_counters(&mut self, each: &mut dyn FnMut(Counters)) {
        each(Counters::default());
    }

    /// Calls `each` for every setting of `net.ipv4.vs`, sorted by name.
    fn sysctls(&mut self, each: &mut dyn FnMut(&'static str, sysctl::Value)) {
        let _ = each;
    }

    /// Changes the setting of this name to what `text` says.
    fn set_sysctl(&mut self, name: &str, text: &str) -> Result<(), SysctlError> {
        let _ = (name, text);
        Err(SysctlError::Unknown)
    }

    /// The virtual ports of FTP, behind which 0 may stand: masqueraded connections to them
    /// are helped.
    fn ftp_ports(&mut self) -> [u16; 8] {
        [0; 8]
    }

    /// Size of the connection table, in entries, as `ipvsadm` prints in its first line.
    fn table_size(&self) -> u32;

    /// Calls `each` for every mark rule, in the order in which packets meet them.
    fn mark_rules(&mut self, each: &mut dyn FnMut(&MarkRule)) {
        let _ = each;
    }

    /// Calls `each` with every line of words that an administrator should
    /// know: how packets get in, and why this way.
    fn describe(&mut self, each: &mut dyn FnMut(&str)) {
        let _ = each;
    }

    /// Calls `each` for every interface that packets come in by: its name, how they are
    /// taken from it, and why so.
    fn interfaces(&mut self, each: &mut dyn FnMut(&str, &str, &str)) {
        let _ = each;
    }

    /// Calls `each` for every table that may become full: what it holds, how many there
    /// are, and how many there may be.
    fn tables(&mut self, each: &mut dyn FnMut(&str, u64, u64)) {
        let _ = each;
    }

    /// Calls `each` for everything that is wrong, with what to do about it.
    fn problems(&mut self, each: &mut dyn FnMut(&str)) {
        let _ = each;
    }

    /// Calls `each` for every reason under which packets were counted.
    fn packets_by_reason(&mut self, each: &mut dyn FnMut(Reason, u64)) {
        let _ = each;
    }
}

/// Something that is known of the health of destinations.
#[derive(Clone, Copy, Debug)]
pub enum Health<'a> {
    /// All that is checked, as the text of a configuration file.
    Checks(&'a str),
    /// Whether a service has its quorum.
    Quorum(ServiceKey, bool),
    /// How a destination stands.
    Standing {
        /// Of this service.
        service: ServiceKey,
        /// Which.
        dest: DestKey,
        /// Whether it is up.
        up: bool,
        /// The weight that it asks for, if it does.
        asks: Option<AsksFor>,
    },
    /// A destination has come up lately.
    Warming {
        /// Of this service.
        service: ServiceKey,
        /// Which.
        dest: DestKey,
        /// How many percent of its weight it has so far.
        percent: u32,
    },
    /// How one of the checks of a destination stands.
    Check(CheckStatus<'a>),
}

/// The weight that a destination asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AsksFor {
    /// So many percent of the one that it is configured with.
    Percent(u32),
    /// This.
    Weight(u32),
}

/// A check of a destination.
#[derive(Clone, Copy, Debug)]
pub struct CheckStatus<'a> {
    /// Of a destination of this service.
    pub service: ServiceKey,
    /// Which.
    pub dest: DestKey,
    /// What is checked, in words.
    pub check: &'a str,
    /// `up`, `down`, `held` (down, having gone down too often) or `unchecked`.
    pub state: &'a str,
    /// Since when it stands so, in milliseconds; `None` where that is not known.
    pub since: Option<u64>,
    /// The last result: `passed`, or why not; empty before there is one.
    pub outcome: &'a str,
    /// Its age, in milliseconds.
    pub age: u64,
    /// The time it took, in microseconds.
    pub took: u64,
    /// How often it has passed.
    pub passes: u64,
    /// How often it has failed.
    pub failures: u64,
}

/// A refused list of commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("command {position}: {error}")]
pub struct Refused {
    /// Position in the list, from 0.
    pub position: usize,
    /// Why.
    pub error: CommandError,
}

/// Why there is no trial, or it has not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrialError {
    /// The director does not do that (`EOPNOTSUPP`).
    #[error("there are no trials here")]
    Unsupported,
    /// One is under way (`EINPROGRESS`).
    #[error("a trial is under way")]
    UnderWay,
    /// None is under way (`ENOENT`).
    #[error("nothing is on trial")]
    None,
    /// What is to be checked makes no sense (`EINVAL`); the daemon's log says why.
    #[error("what is to be checked makes no sense")]
    BadChecks,
    /// The way back cannot be kept (`EIO`); the daemon's log says why.
    #[error("the way back cannot be kept")]
    NoWayBack,
    /// An edit was refused; nothing was changed.
    #[error(transparent)]
    Refused(#[from] Refused),
}
