//! The eBPF plane: programs and maps in the kernel, pinned so that they go on
//! without a daemon, and driven from here.
//!
//! * [`object`] loads the programs, pins them, and finds them again.
//! * [`attach`] puts them on interfaces.
//! * [`door`] is a pair of interfaces between the host's stack and the plane.
//! * `ground` says what is taken of the kernel.
//! * `lead` has the host route packets to the door, past its firewall.
//! * `neighbours` has the kernel keep those resolved that destinations are reached by.
//! * `slow` is a thread that does what the programs cannot.
//! * `tracking` keeps connection tracking from taking what is led for something else.
//! * `route_mtu` tells the programs what MTU routes say.
//! * `store` reads and writes the maps, arrays as mapped memory.

pub mod attach;
pub mod door;
mod error;
mod ground;
mod lead;
mod mapped;
mod neighbours;
pub mod object;
mod route_mtu;
mod slow;
mod store;
mod tracking;

use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::time::Duration;

use ipvs_core::command::{Command, CommandError};
use ipvs_core::dest::{Dest, DestId};
use ipvs_core::drain::DrainStatus;
use ipvs_core::mark::MarkRule;
use ipvs_core::service::ServiceKey;
use ipvs_core::settings::Settings;
use ipvs_core::snapshot::{ConnStatus, Control, DestStatus, Refused, ServiceStatus, Timeouts};
use ipvs_core::stats::{Counters, Rates};
use ipvs_core::sync::SyncDaemon;
use ipvs_core::sysctl::{self, SysctlError};
use ipvs_core::verdict::Reason;

pub use self::attach::{AttachMode, Attached};
use self::door::{Door, DoorError};
pub use self::error::StartError;
use self::lead::Lead;
use self::neighbours::Neighbours;
use self::object::Pins;
use self::route_mtu::RouteMtus;
use self::slow::SlowPath;
use self::store::BpfStore;
use crate::firewall::{self, Firewall, Way};
use crate::measure::{Ground, Measures};
use crate::plane::Plane;
use crate::registry::Registry;
use crate::rtnetlink::{Neighbour, NeighbourState, Rtnetlink};
use crate::store::{Limits, Store};

/// Destinations whose way is looked at in one go, after the host's routes have changed.
const SHARE: usize = 1000;

/// What to run, and where.
#[derive(Clone, Debug)]
pub struct Options {
    /// Directory for the pins, on a BPF file system; made and mounted if needed.
    pub pins: std::path::PathBuf,
    /// Interfaces by name, and how to attach to each; none means all that
    /// carry frames.
    pub interfaces: Vec<(String, AttachMode)>,
    /// Sizes of the tables; those that are pinned keep theirs.
    pub limits: Limits,
}

impl Options {
    fn needs_door(&self) -> bool {
        self.interfaces.iter().any(|(_, mode)| *mode == AttachMode::Netfilter)
    }
}

/// The eBPF plane of this network namespace.
#[derive(Debug)]
pub struct BpfPlane {
    registry: Registry<BpfStore>,
    attached: Vec<Attached>,
    adopted: bool,
    pins: Pins,
    neighbours: Neighbours,
    /// Destinations have left their services.
    removed: bool,
    route_mtus: RouteMtus,
    door: Result<Door, DoorError>,
    lead: Lead,
    firewall: Firewall,
    untracked: io::Result<()>,
    slow: Result<SlowPath, StartError>,
}

impl BpfPlane {
    /// Loads the programs and attaches them, or takes over those that an
    /// earlier daemon pinned.
    pub fn start(options: &Options) -> Result<Self, StartError> {
        let pins = Pins::at(&options.pins)?;
        let adopted = pins.are_there();
        let maps = if adopted { pins.open()? } else { pins.load(&options.limits)? };
        let mut store = BpfStore::new(maps)?;
        let registry = if adopted {
            let found = store.found()?;
            Registry::adopt(store, found)
        } else {
            Registry::new(store).map_err(StartError::map)?
        };
        let door = match open_door() {
            Err(error) if options.needs_door() => return Err(StartError::NoDoor(error)),
            door => door,
        };
        let attached = attach::attach_all(&pins, &options.interfaces)?;
        let led = attached.iter().filter(|it| it.mode == AttachMode::Netfilter);
        let lead = Lead::new(led.map(|it| it.interface.clone()).collect());
        let lead = lead.map_err(StartError::Netlink)?;
        let route_mtus = RouteMtus::open(&pins).map_err(StartError::map)?;
        let firewall = Firewall::listen();
        let slow = pins.open().and_then(SlowPath::start);
        if let Err(error) = &slow {
            tracing::warn!(%error, "there is no slow path: fragments are lost");
        }
        let mut plane = Self {
            registry,
            attached,
            adopted,
            pins,
            neighbours: Neighbours::new(),
            removed: false,
            route_mtus,
            door,
            lead,
            firewall,
            untracked: Ok(()),
            slow,
        };
        plane.registry.store_mut().sweep();
        plane.host_changed();
        plane.watch_firewall();
        Ok(plane)
    }

    /// Whether this plane was found running.
    pub fn was_adopted(&self) -> bool {
        self.adopted
    }

    /// The host door, or why there is none.
    pub const fn door(&self) -> Result<Door, &DoorError> {
        match &self.door {
            Ok(door) => Ok(*door),
            Err(error) => Err(error),
        }
    }

    /// Returns when every packet that the programs left to the slow path before is dealt with.
    pub fn settle(&self) {
        if let Ok(slow) = &self.slow {
            slow.settle();
        }
    }

    /// Changes settings.
    pub fn change_settings(
        &mut self,
        change: impl FnOnce(&mut Settings),
    ) -> Result<(), StartError> {
        self.registry.change_settings(change).map_err(StartError::map)
    }

    /// Detaches from every interface and removes the pins: nothing is left.
    pub fn detach(self) -> Result<(), StartError> {
        Self::detach_at(self.pins.directory())
    }

    /// Removes what is pinned in `directory`, whichever version pinned it.
    pub fn detach_at(directory: &Path) -> Result<(), StartError> {
        let mut netlink = Rtnetlink::open().map_err(StartError::Netlink)?;
        // First, so that no packet is led to where nobody takes it.
        lead::remove(&mut netlink).map_err(StartError::Netlink)?;
        if let Err(error) = tracking::remove() {
            tracing::debug!(%error, "there is no nftables, or no right to it");
        }
        Pins::at(directory)?.remove()?;
        Door::remove(&mut netlink).map_err(StartError::Netlink)
    }

    /// Has the host lead to the door what is for the services that there are.
    fn lead_packets(&mut self) {
        if !self.lead.is_idle() {
            let door = self.door.as_ref().map_or(0, |door| door.host);
            let ports = self.registry.settings().ftp_ports;
            self.lead.follow(door, self.registry.service_keys(), &ports);
        }
    }

    /// Says which rules of the host's firewall are passed by.
    fn watch_firewall(&mut self) {
        let families = firewall::families(self.registry.settings());
        self.firewall.follow(&ways(&self.attached), &families);
        let leads = self.lead.leads() && !families.is_empty();
        let outcome = match self.firewall.tracking() {
            Some((tracks, false)) if leads && tracks => tracking::make(),
            Some((tracks, true)) if !(leads && tracks) => tracking::remove(),
            _ => return,
        };
        self.untracked = outcome.map_err(|error| {
            tracing::error!(%error, "connection tracking finds what is led invalid");
            error
        });
    }

    /// Does what the host has to do for what commands have changed.
    fn follow_commands<'c>(&mut self, commands: impl Iterator<Item = &'c Command> + Clone) {
        use Command::{AddService, DeleteDest, DeleteService, Flush};
        let touched = commands.clone().filter_map(|command| match command {
            Command::AddDest(service, key, _) | Command::EditDest(service, key, _) => {
                self.registry.listed_dest(service, key)
            }
            _ => None,
        });
        let touched: Vec<(DestId, Dest)> = touched.collect();
        if !touched.is_empty() {
            self.follow(&touched);
        }
        let mut leads = false;
        for command in commands {
            leads |= matches!(command, AddService(..) | DeleteService(..) | Flush);
            self.removed |= matches!(command, DeleteDest(..) | DeleteService(..) | Flush);
        }
        if leads {
            self.lead_packets();
            self.watch_firewall();
        }
    }

    /// Has the kernel keep the neighbours of these destinations resolved.
    fn follow(&mut self, dests: &[(DestId, Dest)]) {
        let Self { registry, neighbours, .. } = self;
        let store = registry.store_mut();
        for (id, dest) in dests {
            let (family, addr) = (dest.key.family(), dest.key.addr);
            // The registry has just asked for it, too.
            let way = store.way(family, addr);
            neighbours.follow(*id, family, addr, way, store.netlink());
        }
        store.forget_ways();
    }

    /// Lets the neighbours go that no destination needs any more.
    fn release_neighbours(&mut self) {
        if std::mem::take(&mut self.removed) {
            let listed: HashSet<DestId> = self.registry.listed_dests().map(|(id, _)| id).collect();
            let Self { registry, neighbours, .. } = self;
            neighbours.retain(|id| listed.contains(&id), registry.store_mut().netlink());
        }
    }

    /// Lets no next hop be used that was learnt before.
    fn forget_hops(&mut self) {
        let door = self.door.as_ref().map_or(0, |door| door.host);
        let changed = self.registry.change_settings(|settings| {
            settings.door = door;
            settings.route_generation = settings.route_generation.wrapping_add(1);
        });
        if let Err(error) = changed {
            tracing::warn!(%error, "a change of routes is followed within a second, not at once");
        }
    }
}

/// Which way packets come by each interface.
fn ways(attached: &[Attached]) -> Vec<(&str, Way)> {
    let way = |mode| if mode == AttachMode::Netfilter { Way::Through } else { Way::Past };
    attached.iter().map(|it| (it.interface.as_str(), way(it.mode))).collect()
}

fn open_door() -> Result<Door, DoorError> {
    Door::open(&mut Rtnetlink::open()?)
}

impl Control for BpfPlane {
    fn apply(&mut self, commands: &[Command]) -> Result<(), Refused> {
        self.registry.store_mut().forget_ways();
        self.registry.apply(commands)?;
        self.follow_commands(commands.iter());
        Ok(())
    }

    fn apply_each(&mut self, commands: &[Command], each: &mut dyn FnMut(Result<(), CommandError>)) {
        self.registry.store_mut().forget_ways();
        let mut outcomes = Vec::with_capacity(commands.len());
        self.registry.apply_each(commands, &mut |outcome| outcomes.push(outcome));
        let done = commands.iter().zip(&outcomes).filter(|(_, outcome)| outcome.is_ok());
        self.follow_commands(done.map(|(command, _)| command));
        outcomes.into_iter().for_each(each);
    }

    fn services(&mut self, each: &mut dyn FnMut(ServiceStatus)) {
        self.registry.services(each);
    }

    fn service(&mut self, key: &ServiceKey) -> Option<ServiceStatus> {
        self.registry.service(key)
    }

    fn dests(&mut self, key: &ServiceKey, each: &mut dyn FnMut(DestStatus)) -> bool {
        self.registry.dests(key, each)
    }

    fn drains(&mut self, each: &mut dyn FnMut(DrainStatus)) {
        self.registry.drains(each);
    }

    fn connections(&mut self, each: &mut dyn FnMut(ConnStatus)) {
        self.registry.connections(each);
    }

    fn mark_rules(&mut self, each: &mut dyn FnMut(&MarkRule)) {
        Control::mark_rules(&mut self.registry, each);
    }

    fn sync_daemons(&mut self, each: &mut dyn FnMut(&SyncDaemon)) {
        Control::sync_daemons(&mut self.registry, each);
    }

    fn timeouts(&mut self) -> Timeouts {
        self.registry.timeouts()
    }

    fn statistics(&mut self) -> (Counters, Rates) {
        self.registry.statistics()
    }

    fn cpu_counters(&mut self, each: &mut dyn FnMut(Counters)) {
        self.registry.cpu_counters(each);
    }

    fn sysctls(&mut self, each: &mut dyn FnMut(&'static str, sysctl::Value)) {
        self.registry.sysctls(each);
    }

    fn set_sysctl(&mut self, name: &str, text: &str) -> Result<(), SysctlError> {
        self.registry.set_sysctl(name, text)
    }

    fn ftp_ports(&mut self) -> [u16; 8] {
        self.registry.ftp_ports()
    }

    fn table_size(&self) -> u32 {
        self.registry.table_size()
    }
}

impl Plane for BpfPlane {
    fn report(&self) -> Vec<String> {
        let origin = if self.adopted { "found running" } else { "loaded" };
        let pins = format!("eBPF programs {origin}, pinned in {}", self.pins.directory().display());
        let mut lines = vec![pins];
        lines.extend(self.attached.iter().map(ToString::to_string));
        lines.extend(self.lead.report());
        lines.extend(self.neighbours.report());
        lines.extend(self.untracked.as_ref().err().map(|error| {
            format!("the host's connection tracking finds packets for services invalid: {error}")
        }));
        let families = firewall::families(self.registry.settings());
        lines.extend(self.firewall.report(&ways(&self.attached), &families));
        lines.extend(self.route_mtus.report());
        match &self.door {
            Ok(_) => lines.extend(Door::hindrance()),
            Err(error) => lines.push(format!("no host door: {error}")),
        }
        match &self.slow {
            Ok(slow) => lines.extend(slow.report()),
            Err(error) => lines.push(format!("no slow path, fragments are lost: {error}")),
        }
        lines
    }

    fn tick(&mut self) {
        self.registry.tick();
        self.release_neighbours();
        self.watch_firewall();
    }

    fn set_ftp_ports(&mut self, ports: [u16; 8]) {
        if let Err(error) = self.registry.change_settings(|settings| settings.ftp_ports = ports) {
            tracing::error!(%error, "the ports of FTP could not be set");
        }
        self.lead_packets();
    }

    fn host_changed(&mut self) {
        // Somebody may have removed it.
        self.door = open_door();
        let door = self.door.as_ref().map_or(0, |door| door.host);
        // Before the generation of routes, which has programs ask anew.
        self.route_mtus.follow();
        let changed = self.registry.change_settings(|settings| {
            settings.door = door;
            settings.route_generation = settings.route_generation.wrapping_add(1);
        });
        if let Err(error) = changed {
            tracing::warn!(%error, "a change of routes is followed within a second, not at once");
        }
        if let Err(error) = self.registry.refresh_marks() {
            tracing::warn!(%error, "mark rules do not follow a changed interface");
        }
        self.lead_packets();
        if let Ok(slow) = &self.slow {
            slow.refresh();
        }
        self.registry.routes_changed();
        self.go_on();
    }

    fn neighbours_changed(&mut self, changed: &[Neighbour]) {
        self.forget_hops();
        let Self { registry, neighbours, .. } = self;
        for neighbour in changed.iter().filter(|it| it.state == NeighbourState::Unknown) {
            let key = (neighbour.ifindex, neighbour.family, neighbour.addr);
            neighbours.lost(key, registry.store_mut().netlink());
        }
    }

    fn go_on(&mut self) -> bool {
        let settled = self.registry.settle_some(SHARE);
        self.follow(&settled);
        self.registry.is_unsettled()
    }

    fn shift_clock(&mut self, by: Duration) {
        let nanos = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        let moved = self.registry.change_settings(|settings| {
            settings.set_clock_offset(settings.clock_offset().wrapping_add(nanos));
        });
        if let Err(error) = moved {
            tracing::error!(%error, "the clock could not be moved");
        }
        self.registry.store_mut().sweep();
        if let Ok(slow) = &self.slow {
            slow.catch_up();
        }
    }

    fn until_look(&mut self) -> Duration {
        self.registry.until_look()
    }

    fn sweep(&mut self) {
        self.registry.store_mut().sweep();
    }

    fn measure(&mut self) -> Measures {
        self.registry.measure()
    }

    fn ground(&mut self) -> Ground {
        Ground {
            plane: "bpf",
            interfaces: self.attached.iter().map(ground::interface).collect(),
            programs: ground::programs(&self.pins),
            maps: ground::maps(&self.pins),
            neighbours: Some(self.neighbours.count()),
        }
    }

    fn reasons(&mut self) -> Vec<(Reason, u64)> {
        self.registry.store_mut().reasons()
    }
}
