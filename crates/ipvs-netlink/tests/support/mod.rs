//! A small table of services behind [`Control`], with the kernel's checks, so
//! that the bytes can be tested without a data plane.

use std::net::IpAddr;

use ipvs_core::addr::{Addr, Family};
use ipvs_core::command::{Command, CommandError};
use ipvs_core::defence;
use ipvs_core::dest::{DestKey, DestSpec, ForwardingMethod};
use ipvs_core::mark::MarkRule;
use ipvs_core::service::{ServiceKey, ServiceSpec};
use ipvs_core::settings::Settings;
use ipvs_core::snapshot::{ConnStatus, Control, DestStatus, Refused, ServiceStatus, Timeouts};
use ipvs_core::stats::{Counters, Rates};
use ipvs_core::sync::SyncDaemon;
use ipvs_core::sysctl::{self, SysctlError};
use ipvs_core::verdict::Reason;

/// Services, newest first, each with its destinations, newest first.
#[derive(Clone, Debug)]
pub(crate) struct SmallTable {
    services: Vec<(ServiceStatus, Vec<DestStatus>)>,
    timeouts: Timeouts,
    pub(crate) settings: Settings,
    /// What each CPU has counted.
    pub(crate) counted: Vec<Counters>,
    /// What `connections` shows.
    pub(crate) connections: Vec<ConnStatus>,
    /// What `describe` says.
    pub(crate) lines: Vec<&'static str>,
    /// What `packets_by_reason` says.
    pub(crate) packets: Vec<(Reason, u64)>,
    /// Mark rules.
    pub(crate) marks: Vec<MarkRule>,
    /// Sync daemons.
    pub(crate) sync: Vec<SyncDaemon>,
    generation: u64,
}

impl Default for SmallTable {
    fn default() -> Self {
        let timeouts = Timeouts { tcp: 900, tcp_fin: 120, udp: 300 };
        let (services, connections) = (Vec::new(), Vec::new());
        let (settings, counted) = (Settings::DEFAULT, vec![Counters::default()]);
        let (lines, packets, marks) = (Vec::new(), Vec::new(), Vec::new());
        let (sync, generation) = (Vec::new(), 0);
        Self {
            services,
            timeouts,
            settings,
            counted,
            connections,
            lines,
            packets,
            marks,
            sync,
            generation,
        }
    }
}

const SCHEDULERS: [&str; 15] = [
    "rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "sed", "nq", "fo", "ovf", "mh", "twos",
    "none",
];

impl SmallTable {
    fn find(&mut self, key: &ServiceKey) -> Option<&mut (ServiceStatus, Vec<DestStatus>)> {
        self.services.iter_mut().find(|(status, _)| status.key == *key)
    }

    /// On interfaces as where the transcripts were recorded.
    fn start_sync(&mut self, daemon: SyncDaemon) -> Result<(), CommandError> {
        let mtu = match daemon.interface.as_str() {
            "c0" | "s0" => 1500,
            "lo" => 65536,
            _ => return Err(CommandError::NoInterface),
        };
        if self.sync.iter().any(|it| it.state == daemon.state) {
            return Err(CommandError::SyncRuns);
        }
        if self.is_mixed() {
            return Err(CommandError::Invalid);
        }
        self.sync.push(daemon.completed(mtu));
        Ok(())
    }

    fn is_mixed(&self) -> bool {
        let mut all = self.services.iter();
        all.any(|(status, dests)| dests.iter().any(|dest| dest.key.family() != status.key.family()))
    }

    fn edit(&mut self, command: &Command) -> Result<(), CommandError> {
        match *command {
            Command::AddService(key, spec) => {
                if self.find(&key).is_some() {
                    return Err(CommandError::ServiceExists);
                }
                check_service(&key, &spec)?;
                let (counters, rates) = (Counters::default(), Rates::default());
                self.services.insert(0, (ServiceStatus { key, spec, counters, rates }, vec![]));
            }
            Command::EditService(key, spec) => {
                let (status, _) = self.find(&key).ok_or(CommandError::NoSuchService)?;
                check_service(&key, &spec)?;
                status.spec = spec;
            }
            Command::DeleteService(key) => {
                self.find(&key).ok_or(CommandError::NoSuchService)?;
                self.services.retain(|(status, _)| status.key != key);
            }
            Command::AddDest(key, dest, spec) => {
                let syncs = !self.sync.is_empty();
                let (_, dests) = self.find(&key).ok_or(CommandError::NoSuchService)?;
                check_dest(key.family(), &dest, &spec, syncs)?;
                if !is_usable(&dest) {
                    return Err(CommandError::Invalid);
                }
                if dests.iter().any(|status| status.key == dest) {
                    return Err(CommandError::DestExists);
                }
                dests.insert(0, status_of(dest, spec));
            }
            Command::EditDest(key, dest, spec) => {
                let syncs = !self.sync.is_empty();
                let (_, dests) = self.find(&key).ok_or(CommandError::NoSuchService)?;
                check_dest(key.family(), &dest, &spec, syncs)?;
                let status = dests.iter_mut().find(|status| status.key == dest);
                status.ok_or(CommandError::NoSuchDest)?.spec = spec;
            }
            Command::DeleteDest(key, dest) => {
                let (_, dests) = self.find(&key).ok_or(CommandError::NoSuchService)?;
                let at = dests.iter().position(|status| status.key == dest);
                dests.remove(at.ok_or(CommandError::NoSuchDest)?);
            }
            Command::Zero(None) => {}
            Command::Zero(Some(key)) => {
                self.find(&key).ok_or(CommandError::NoSuchService)?;
            }
            Command::Flush => self.services.clear(),
            Command::SetTimeouts(edit) => {
                let lay = |old: &mut u32, new| *old = if new == 0 { *old } else { new };
                lay(&mut self.timeouts.tcp, edit.tcp);
                lay(&mut self.timeouts.tcp_fin, edit.tcp_fin);
                lay(&mut self.timeouts.udp, edit.udp);
            }
            Command::StartSync(daemon) => self.start_sync(daemon)?,
            Command::StopSync(state) => {
                let at = self.sync.iter().position(|it| it.state == state.number());
                self.sync.remove(at.ok_or(CommandError::NoSync)?);
            }
            Command::AddMarkRule(rule) => self.marks.push(rule),
            Command::DeleteMarkRule(rule) => {
                let at = self.marks.iter().position(|it| *it == rule);
                self.marks.remove(at.ok_or(CommandError::NoSuchMarkRule)?);
            }
            Command::FlushMarkRules => self.marks.clear(),
            // This table has no packets.
            Command::DrainDest(key, dest, _) | Command::UndrainDest(key, dest) => {
                let (_, dests) = self.find(&key).ok_or(CommandError::NoSuchService)?;
                let known = dests.iter().any(|status| status.key == dest);
                return if known {
                    Err(CommandError::NotDrained)
                } else {
                    Err(CommandError::NoSuchDest)
                };
            }
            Command::SetSysctl(sysctl, value) => {
                let put = sysctl.put(&mut self.settings, value);
                put.or(Err(CommandError::Invalid))?;
                defence::adjust(&mut self.settings, u64::MAX);
            }
        }
        Ok(())
    }
}

fn status_of(key: DestKey, spec: DestSpec) -> DestStatus {
    let (counters, rates) = (Counters::default(), Rates::default());
    DestStatus { key, spec, active: 0, inactive: 0, persistent: 0, counters, rates }
}

fn check_service(key: &ServiceKey, spec: &ServiceSpec) -> Result<(), CommandError> {
    if !SCHEDULERS.contains(&spec.scheduler.as_str()) {
        return Err(CommandError::UnknownScheduler);
    }
    if !["", "sip"].contains(&spec.engine.as_str()) {
        return Err(CommandError::UnknownPersistenceEngine);
    }
    let prefix = u32::from_ne_bytes(spec.netmask);
    if key.family() == Family::V6 && !(1..=128).contains(&prefix) {
        return Err(CommandError::Invalid);
    }
    Ok(())
}

fn check_dest(
    service: Family,
    dest: &DestKey,
    spec: &DestSpec,
    syncs: bool,
) -> Result<(), CommandError> {
    let is_tunnel = spec.forwarding() == ForwardingMethod::Tunnel;
    if dest.family() != service && (syncs || !is_tunnel) {
        return Err(CommandError::Invalid);
    }
    if spec.weight < 0 || spec.lower > spec.upper {
        return Err(CommandError::OutOfRange);
    }
    if spec.tunnel_type == 1 && spec.tunnel_port == 0 {
        return Err(CommandError::Invalid);
    }
    Ok(())
}

/// Whether a packet could go there, with the two broadcast addresses of the
/// networks that the transcripts were recorded in.
fn is_usable(dest: &DestKey) -> bool {
    match dest.addr.to_ip(dest.family()) {
        IpAddr::V4(ip) => {
            let local = [[10, 1, 0, 255], [192, 0, 2, 255]].map(Addr::v4);
            !ip.is_unspecified()
                && !ip.is_multicast()
                && !ip.is_broadcast()
                && !local.contains(&dest.addr)
        }
        IpAddr::V6(ip) => {
            !ip.is_unspecified()
                && !ip.is_multicast()
                && !ip.is_unicast_link_local()
                && ip.to_ipv4_mapped().is_none()
        }
    }
}

impl Control for SmallTable {
    fn apply(&mut self, commands: &[Command]) -> Result<(), Refused> {
        let before = self.clone();
        self.generation += 1;
        for (position, command) in commands.iter().enumerate() {
            if let Err(error) = self.edit(command) {
                *self = before;
                return Err(Refused { position, error });
            }
        }
        Ok(())
    }

    fn generation(&self) -> u64 {
        self.generation
    }

    fn services(&mut self, each: &mut dyn FnMut(ServiceStatus)) {
        self.services.iter().for_each(|(status, _)| each(*status));
    }

    fn service(&mut self, key: &ServiceKey) -> Option<ServiceStatus> {
        self.find(key).map(|(status, _)| *status)
    }

    fn dests(&mut self, key: &ServiceKey, each: &mut dyn FnMut(DestStatus)) -> bool {
        let Some((_, dests)) = self.find(key) else { return false };
        for status in dests {
            each(*status);
        }
        true
    }

    fn connections(&mut self, each: &mut dyn FnMut(ConnStatus)) {
        self.connections.iter().for_each(|status| each(*status));
    }

    fn sync_daemons(&mut self, each: &mut dyn FnMut(&SyncDaemon)) {
        self.sync.iter().for_each(each);
    }

    fn mark_rules(&mut self, each: &mut dyn FnMut(&MarkRule)) {
        self.marks.iter().for_each(each);
    }

    fn timeouts(&mut self) -> Timeouts {
        self.timeouts
    }

    fn statistics(&mut self) -> (Counters, Rates) {
        let total = self.counted.iter().copied().fold(Counters::default(), Counters::plus);
        (total, Rates::default())
    }

    fn cpu_counters(&mut self, each: &mut dyn FnMut(Counters)) {
        self.counted.iter().copied().for_each(each);
    }

    fn sysctls(&mut self, each: &mut dyn FnMut(&'static str, sysctl::Value)) {
        for it in &sysctl::ALL {
            each(it.name, it.get(&self.settings));
        }
    }

    fn set_sysctl(&mut self, name: &str, text: &str) -> Result<(), SysctlError> {
        sysctl::find(name).ok_or(SysctlError::Unknown)?.set(&mut self.settings, text)?;
        self.generation += 1;
        defence::adjust(&mut self.settings, u64::MAX);
        Ok(())
    }

    fn ftp_ports(&mut self) -> [u16; 8] {
        self.settings.ftp_ports
    }

    fn table_size(&self) -> u32 {
        4096
    }

    fn interfaces(&mut self, each: &mut dyn FnMut(&str, &str, &str)) {
        each("eth0", "xdp", "a network card");
    }

    fn tables(&mut self, each: &mut dyn FnMut(&str, u64, u64)) {
        each("connections", 3, 4096);
    }

    fn problems(&mut self, each: &mut dyn FnMut(&str)) {
        each("no way");
    }

    fn describe(&mut self, each: &mut dyn FnMut(&str)) {
        self.lines.iter().for_each(|line| each(line));
    }

    fn packets_by_reason(&mut self, each: &mut dyn FnMut(Reason, u64)) {
        self.packets.iter().for_each(|(reason, packets)| each(*reason, *packets));
    }
}
