//! The plane that this daemon drives, as clients see it.

use ipvs_core::command::{Command, CommandError};
use ipvs_core::mark::MarkRule;
use ipvs_core::service::ServiceKey;
use ipvs_core::snapshot::{ConnStatus, Control, DestStatus, Refused, ServiceStatus, Timeouts};
use ipvs_core::stats::{Counters, Rates};
use ipvs_core::sync::{SyncDaemon, SyncState};
use ipvs_core::sysctl::{self, SysctlError};
use ipvs_core::verdict::Reason;
use ipvs_plane::bpf::BpfPlane;
use ipvs_plane::plane::Plane;
use ipvs_plane::registry::sync;
use ipvs_plane::user::UserPlane;

use crate::pins::PinsLock;

/// One of the two planes.
#[derive(Debug)]
pub(crate) enum Driven {
    /// In the kernel.
    Bpf {
        /// The plane.
        plane: Box<BpfPlane>,
        /// What keeps other daemons from it.
        _lock: PinsLock,
    },
    /// In this process.
    User(UserPlane),
}

/// A plane and why it is this one.
#[derive(Debug)]
pub(crate) struct Director {
    pub(crate) driven: Driven,
    /// Which plane it is, and why.
    pub(crate) choice: String,
    generation: u64,
}

impl Director {
    pub(crate) const fn new(driven: Driven, choice: String) -> Self {
        Self { driven, choice, generation: 0 }
    }

    pub(crate) fn plane(&mut self) -> &mut dyn Plane {
        match &mut self.driven {
            Driven::Bpf { plane, .. } => plane.as_mut(),
            Driven::User(plane) => plane,
        }
    }

    /// Whether packets are still balanced.
    pub(crate) fn is_running(&self) -> bool {
        match &self.driven {
            Driven::Bpf { .. } => true,
            Driven::User(plane) => plane.is_running(),
        }
    }

    /// Whether somebody has to tell the plane what happens to the host.
    pub(crate) fn needs_news(&self) -> bool {
        matches!(self.driven, Driven::Bpf { .. })
    }

    /// All that there is to say of the plane, line by line.
    pub(crate) fn words(&mut self) -> Vec<String> {
        let mut lines = vec![self.choice.clone()];
        lines.extend(self.plane().report());
        self.plane().sync_daemons(&mut |daemon| {
            let master = daemon.state == SyncState::Master.number();
            let kind = if master { "master" } else { "backup" };
            let interface = daemon.interface;
            lines.push(format!("{kind} sync daemon on {interface}: it {}", sync::NO_MESSAGES));
        });
        lines
    }
}

impl Control for Director {
    fn apply(&mut self, commands: &[Command]) -> Result<(), Refused> {
        self.plane().apply(commands)?;
        self.generation += 1;
        Ok(())
    }

    fn apply_each(&mut self, commands: &[Command], each: &mut dyn FnMut(Result<(), CommandError>)) {
        self.generation += 1;
        self.plane().apply_each(commands, each);
    }

    fn generation(&self) -> u64 {
        self.generation
    }

    fn services(&mut self, each: &mut dyn FnMut(ServiceStatus)) {
        self.plane().services(each);
    }

    fn service(&mut self, key: &ServiceKey) -> Option<ServiceStatus> {
        self.plane().service(key)
    }

    fn dests(&mut self, key: &ServiceKey, each: &mut dyn FnMut(DestStatus)) -> bool {
        self.plane().dests(key, each)
    }

    fn connections(&mut self, each: &mut dyn FnMut(ConnStatus)) {
        self.plane().connections(each);
    }

    fn mark_rules(&mut self, each: &mut dyn FnMut(&MarkRule)) {
        self.plane().mark_rules(each);
    }

    fn sync_daemons(&mut self, each: &mut dyn FnMut(&SyncDaemon)) {
        self.plane().sync_daemons(each);
    }

    fn timeouts(&mut self) -> Timeouts {
        self.plane().timeouts()
    }

    fn statistics(&mut self) -> (Counters, Rates) {
        self.plane().statistics()
    }

    fn cpu_counters(&mut self, each: &mut dyn FnMut(Counters)) {
        self.plane().cpu_counters(each);
    }

    fn sysctls(&mut self, each: &mut dyn FnMut(&'static str, sysctl::Value)) {
        self.plane().sysctls(each);
    }

    fn set_sysctl(&mut self, name: &str, text: &str) -> Result<(), SysctlError> {
        self.plane().set_sysctl(name, text)?;
        self.generation += 1;
        Ok(())
    }

    fn ftp_ports(&mut self) -> [u16; 8] {
        self.plane().ftp_ports()
    }

    fn table_size(&self) -> u32 {
        match &self.driven {
            Driven::Bpf { plane, .. } => plane.table_size(),
            Driven::User(plane) => plane.table_size(),
        }
    }

    fn describe(&mut self, each: &mut dyn FnMut(&str)) {
        each(&format!("daemon: process {}", std::process::id()));
        self.words().iter().for_each(|line| each(line));
    }

    fn packets_by_reason(&mut self, each: &mut dyn FnMut(Reason, u64)) {
        self.plane().reasons().into_iter().for_each(|(reason, packets)| each(reason, packets));
    }
}
