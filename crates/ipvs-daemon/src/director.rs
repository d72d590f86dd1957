//! The plane that this daemon drives, as clients see it.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::time::{Duration, Instant};

use ipvs_config::health::Checked;
use ipvs_config::{Change, Running, Wanted};
use ipvs_core::command::{Command, CommandError};
use ipvs_core::drain::DrainStatus;
use ipvs_core::mark::MarkRule;
use ipvs_core::service::ServiceKey;
use ipvs_core::snapshot::{
    self, ConnStatus, Control, DestStatus, Refused, ServiceStatus, Timeouts, TrialError,
};
use ipvs_core::stats::{Counters, Rates};
use ipvs_core::sync::{SyncDaemon, SyncState};
use ipvs_core::sysctl::{self, SysctlError};
use ipvs_core::verdict::Reason;
use ipvs_plane::bpf::BpfPlane;
use ipvs_plane::plane::Plane;
use ipvs_plane::registry::sync;
use ipvs_plane::user::UserPlane;

use crate::health::Health;
use crate::pins::PinsLock;
use crate::problems;
use crate::trial::{Trial, WayBack};

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
    trial: Option<Trial>,
    /// Where the plane outlives the daemon.
    way_back: Option<WayBack>,
    health: Health,
}

impl Director {
    pub(crate) fn new(driven: Driven, choice: String) -> Self {
        let health = Health::default();
        Self { driven, choice, generation: 0, trial: None, way_back: None, health }
    }

    /// What is checked, and how it stands.
    pub(crate) const fn checks(&self) -> &Health {
        &self.health
    }

    /// Lets what has been found of the health of destinations have its consequences.
    pub(crate) fn look_after_health(&mut self) {
        self.see_drains();
        for (key, refused) in self.health.turned() {
            let mut dests = Vec::new();
            if !self.plane().dests(&key, &mut |dest| dests.push((dest.key, dest.spec))) {
                continue;
            }
            let edits = self.health.edits(&key, refused, &dests);
            if !edits.is_empty()
                && let Err(refused) = self.apply(&edits)
            {
                tracing::error!("{}: {}", ipvs_config::words::service(&key), refused.error);
                self.health.unsettled(key);
            }
        }
    }

    /// Whether something was found of the health of destinations that had no consequences yet.
    pub(crate) fn retry_health(&mut self, now: Instant) {
        self.health.go_on_warming(now);
        if self.health.is_unsettled() {
            self.look_after_health();
        }
    }

    fn see_drains(&mut self) {
        let mut drained = HashSet::new();
        self.plane().drains(&mut |drain| {
            drained.insert((drain.service, drain.dest));
        });
        self.health.see_drains(drained);
    }

    /// What runs, with what is checked of it.
    fn running(&mut self) -> Running {
        self.see_drains();
        Running::of(self).with(self.health.checked().clone())
    }

    /// Has these checked from now on.
    fn check(&mut self, wanted: &Wanted) {
        let checked = Checked::of(&wanted.services);
        let mut weights = HashMap::new();
        for key in checked.services.keys() {
            self.plane().dests(key, &mut |dest| {
                weights.insert((*key, dest.key), dest.spec.weight);
            });
        }
        if self.health.set(checked, &weights) {
            self.generation += 1;
        }
    }

    /// Whether the plane was there before this daemon.
    pub(crate) fn was_adopted(&self) -> bool {
        match &self.driven {
            Driven::Bpf { plane, .. } => plane.was_adopted(),
            Driven::User(_) => false,
        }
    }

    /// Goes on with the trial of an earlier daemon, whose socket was this one; says so.
    pub(crate) fn resume_trial(&mut self, socket: &Path, now: Instant) {
        if matches!(self.driven, Driven::User(_)) {
            return;
        }
        let way_back = WayBack::beside(socket);
        match way_back.left_behind(now) {
            Ok(Some(trial)) if self.was_adopted() => {
                let left = trial.left(now);
                tracing::warn!("what was applied is on trial, for {left} s more");
                self.trial = Some(trial);
            }
            Ok(_) => way_back.forget(),
            Err(error) => tracing::error!("a trial was left behind, but not how: {error}"),
        }
        self.way_back = Some(way_back);
    }

    /// When the trial is over.
    pub(crate) fn trial_deadline(&self) -> Option<Instant> {
        self.trial.as_ref().map(|trial| trial.until)
    }

    /// Restores what there was before a trial that nobody has confirmed.
    pub(crate) fn look_after_trial(&mut self, now: Instant) {
        if self.trial_deadline().is_some_and(|until| until <= now) {
            tracing::warn!("nobody has confirmed what was applied: it is rolled back");
            // What fails is logged.
            let _ = self.end_trial(false);
        }
    }

    /// Makes what runs what is wanted, all or nothing; how much had to be changed.
    pub(crate) fn make(&mut self, wanted: &Wanted) -> Result<usize, String> {
        let changes = ipvs_config::plan(wanted, &self.running());
        let edits: Vec<_> = changes.iter().filter_map(Change::edit).collect();
        if !edits.is_empty() {
            self.apply(&edits).map_err(|refused| {
                let change = changes.get(refused.position).map(ToString::to_string);
                format!("{}: {}", change.unwrap_or_default(), refused.error)
            })?;
        }
        self.check(wanted);
        for change in &changes {
            tracing::info!("{change}");
        }
        Ok(changes.len())
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

    /// Which plane it is, and why, in a line.
    pub(crate) fn choice(&self) -> &str {
        &self.choice
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
        for command in commands {
            if let Command::DrainDest(key, ..) | Command::UndrainDest(key, _) = command {
                self.health.drained(*key);
            }
        }
        Ok(())
    }

    fn apply_each(&mut self, commands: &[Command], each: &mut dyn FnMut(Result<(), CommandError>)) {
        self.generation += 1;
        self.plane().apply_each(commands, each);
    }

    fn apply_checked(
        &mut self,
        commands: &[Command],
        checks: &str,
        trial: Option<u32>,
    ) -> Result<(), TrialError> {
        let wanted = ipvs_config::read("what is to be checked", checks).map_err(|error| {
            tracing::error!("{error} (nothing was changed)");
            TrialError::BadChecks
        })?;
        match trial {
            None => self.apply(commands)?,
            Some(seconds) => self.apply_on_trial(commands, seconds)?,
        }
        self.check(&wanted);
        Ok(())
    }

    fn health(&mut self, each: &mut dyn FnMut(snapshot::Health<'_>)) {
        self.health.tell(each);
    }

    fn apply_on_trial(&mut self, commands: &[Command], seconds: u32) -> Result<(), TrialError> {
        if self.is_on_trial() {
            return Err(TrialError::UnderWay);
        }
        let now = Instant::now();
        let before = self.running().wanted();
        let trial = Trial { until: now + Duration::from_secs(seconds.into()), before };
        if let Some(way_back) = &self.way_back {
            way_back.keep(&trial, now).map_err(|error| {
                tracing::error!(%error, "cannot keep {}", way_back.path().display());
                TrialError::NoWayBack
            })?;
        }
        let made = self.apply(commands);
        if made.is_ok() {
            self.trial = Some(trial);
        } else if let Some(way_back) = &self.way_back {
            way_back.forget();
        }
        Ok(made?)
    }

    fn is_on_trial(&self) -> bool {
        self.trial.is_some()
    }

    fn end_trial(&mut self, keep: bool) -> Result<(), TrialError> {
        let trial = self.trial.take().ok_or(TrialError::None)?;
        if !keep && let Err(why) = self.make(&trial.before) {
            let file = self.way_back.as_ref().map(|way_back| way_back.path().display());
            let file = file.map(|file| format!("; {file} has it")).unwrap_or_default();
            tracing::error!("what ran before cannot be restored: {why}{file}");
            return Err(TrialError::NoWayBack);
        }
        if let Some(way_back) = &self.way_back {
            way_back.forget();
        }
        Ok(())
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

    fn drains(&mut self, each: &mut dyn FnMut(DrainStatus)) {
        self.plane().drains(each);
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
        let version = env!("CARGO_PKG_VERSION");
        each(&format!("daemon: process {}, version {version}", std::process::id()));
        if let Some(trial) = &self.trial {
            let left = trial.left(Instant::now());
            each(&format!(
                "on trial: what was applied is rolled back in {left} s unless `ipvs confirm` comes"
            ));
        }
        self.words().iter().for_each(|line| each(line));
        let mut drains = 0;
        self.plane().drains(&mut |_| drains += 1);
        if drains > 0 {
            each(&format!("{drains} destinations are drained: see `ipvs drain`"));
        }
        self.plane().ground().describe(each);
    }

    fn interfaces(&mut self, each: &mut dyn FnMut(&str, &str, &str)) {
        for it in self.plane().ground().interfaces {
            each(&it.name, it.mode, &it.reason);
        }
    }

    fn tables(&mut self, each: &mut dyn FnMut(&str, u64, u64)) {
        for it in self.plane().measure().tables {
            each(it.name, it.entries, it.capacity);
        }
    }

    fn problems(&mut self, each: &mut dyn FnMut(&str)) {
        let measures = self.plane().measure();
        let forwards = |family| match self.driven {
            Driven::Bpf { .. } => problems::forwards(family),
            // It has the host's forwarding turned off.
            Driven::User(_) => true,
        };
        let is_checked = |key: &ServiceKey| self.health.checked().service(key).is_some();
        for problem in problems::of(&measures, is_checked, forwards) {
            each(&problem);
        }
        self.health.problems(each);
    }

    fn packets_by_reason(&mut self, each: &mut dyn FnMut(Reason, u64)) {
        self.plane().reasons().into_iter().for_each(|(reason, packets)| each(reason, packets));
    }
}
