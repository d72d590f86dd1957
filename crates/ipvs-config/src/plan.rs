//! The way from what runs to what is wanted.

use std::collections::{HashMap, HashSet};
use std::fmt;

use ipvs_core::command::{Command, TimeoutEdit};
use ipvs_core::dest::DestKey;
use ipvs_core::mark::MarkRule;
use ipvs_core::service::ServiceKey;
use ipvs_core::sync::SyncState;
use ipvs_core::sysctl::{Sysctl, Value};

use crate::health::{Checked, Standings, effective};
use crate::read::{Service, Wanted};
use crate::running::{Running, RunningService, is_as_wanted, said};
use crate::{rule, sync, words};

/// One step of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// An edit, and how many live connections belong to what it is about.
    Edit(Command, u64),
    /// A setting, its present value and the new one.
    Setting(&'static Sysctl, String, Value),
    /// What is checked of the service is another.
    Checks(ServiceKey, char),
}

impl Change {
    /// The edit that makes it; `None` for [`Checks`](Self::Checks), which stand behind all edits
    /// of a plan.
    pub const fn edit(&self) -> Option<Command> {
        match self {
            Self::Edit(edit, _) => Some(*edit),
            Self::Setting(sysctl, _, value) => Some(Command::SetSysctl(sysctl, *value)),
            Self::Checks(..) => None,
        }
    }
}

/// What must change so that what runs is what is wanted; empty if it is.
/// What is to go goes first, so that it leaves room.
pub fn plan(wanted: &Wanted, running: &Running) -> Vec<Change> {
    let mut changes = Vec::new();
    for (sysctl, value) in &wanted.settings {
        let present = running.settings.iter().find(|(other, _)| other == sysctl.name);
        let present = present.map_or("", |(_, value)| value.as_str());
        if !is_same_setting(sysctl.name, present, &value.to_string()) {
            changes.push(Change::Setting(sysctl, present.to_owned(), *value));
        }
    }
    let timeout = |wanted, present| if wanted == present { 0 } else { wanted };
    let timeouts = TimeoutEdit {
        tcp: timeout(wanted.timeouts.tcp, running.timeouts.tcp),
        tcp_fin: timeout(wanted.timeouts.tcp_fin, running.timeouts.tcp_fin),
        udp: timeout(wanted.timeouts.udp, running.timeouts.udp),
    };
    if timeouts != TimeoutEdit::default() {
        changes.push(Change::Edit(Command::SetTimeouts(timeouts), 0));
    }
    stop_sync(wanted, running, &mut changes);
    change_marks(&wanted.marks, &running.marks, &mut changes);
    let shall_be: HashSet<_> = wanted.services.iter().map(|service| &service.key).collect();
    for service in running.services.iter().filter(|service| !shall_be.contains(&service.key)) {
        changes.push(Change::Edit(Command::DeleteService(service.key), connections(service)));
    }
    let present = running.by_key();
    for service in &wanted.services {
        let present = present.get(&service.key).copied();
        change_service(service, present, &running.checked.standings, &mut changes);
    }
    // Last: there is none beside a destination of the other family.
    for daemon in &wanted.sync {
        if !running.sync.iter().any(|other| sync::is_as_wanted(other, daemon)) {
            changes.push(Change::Edit(Command::StartSync(*daemon), 0));
        }
    }
    change_checks(wanted, running, &mut changes);
    changes
}

/// The checks of a service go with it.
fn change_checks(wanted: &Wanted, running: &Running, changes: &mut Vec<Change>) {
    let checked = Checked::of(&wanted.services);
    for service in &wanted.services {
        let present = running.checked.service(&service.key);
        let service = checked.service(&service.key).unwrap_or(service);
        let is_same = match present {
            Some(present) => present.health == service.health && present.dests == service.dests,
            None => service.health.is_none(),
        };
        if !is_same {
            let sign = match (present.is_some(), service.health.is_none()) {
                (false, _) => '+',
                (true, false) => '~',
                (true, true) => '-',
            };
            changes.push(Change::Checks(service.key, sign));
        }
    }
    let shall_be: HashSet<_> = wanted.services.iter().map(|service| &service.key).collect();
    let gone = running.checked.services.keys().filter(|key| !shall_be.contains(key));
    changes.extend(gone.map(|key| Change::Checks(*key, '-')));
}

/// Stops the sync daemons that are not wanted, or not as they are.
fn stop_sync(wanted: &Wanted, running: &Running, changes: &mut Vec<Change>) {
    for daemon in &running.sync {
        if !wanted.sync.iter().any(|other| sync::is_as_wanted(daemon, other))
            && let Some(state) = SyncState::from_number(daemon.state)
        {
            changes.push(Change::Edit(Command::StopSync(state), 0));
        }
    }
}

/// Rules are added at the end only: those stay that are the beginning of what is wanted.
fn change_marks(wanted: &[MarkRule], running: &[MarkRule], changes: &mut Vec<Change>) {
    let mut missing = wanted;
    for rule in running.iter().map(|rule| rule.named()) {
        match missing.split_first() {
            Some((first, rest)) if *first == rule => missing = rest,
            _ => changes.push(Change::Edit(Command::DeleteMarkRule(rule), 0)),
        }
    }
    changes.extend(missing.iter().map(|rule| Change::Edit(Command::AddMarkRule(*rule), 0)));
}

fn change_service(
    service: &Service,
    present: Option<&RunningService>,
    standings: &Standings,
    changes: &mut Vec<Change>,
) {
    let key = service.key;
    match present {
        None => changes.push(Change::Edit(Command::AddService(key, service.spec), 0)),
        Some(present) if said(&key, &present.spec) != service.spec => {
            let edit = Command::EditService(key, service.spec);
            changes.push(Change::Edit(edit, connections(present)));
        }
        Some(_) => {}
    }
    let dests = present.map_or(&[][..], |present| &present.dests);
    let weights: HashMap<_, _> = dests.iter().map(|(dest, spec, _)| (*dest, spec.weight)).collect();
    let runs_with = |dest: &DestKey| weights.get(dest).copied();
    let wanted = effective(service, standings, &runs_with).dests;
    let shall_be: HashSet<_> = wanted.iter().map(|(dest, _)| dest).collect();
    for (dest, _, count) in dests.iter().filter(|(dest, ..)| !shall_be.contains(dest)) {
        changes.push(Change::Edit(Command::DeleteDest(key, *dest), *count));
    }
    let present: HashMap<_, _> = dests.iter().map(|(dest, spec, n)| (dest, (spec, n))).collect();
    for (dest, spec) in &wanted {
        match present.get(dest) {
            None => changes.push(Change::Edit(Command::AddDest(key, *dest, *spec), 0)),
            Some((present, count)) if !is_as_wanted(present, spec) => {
                changes.push(Change::Edit(Command::EditDest(key, *dest, *spec), **count));
            }
            Some(_) => {}
        }
    }
}

/// Whether both values mean the same. The director moves its automatic defences
/// between 1 (at rest) and 2 (at work) by itself, so one asks for no change of the other.
fn is_same_setting(name: &str, a: &str, b: &str) -> bool {
    let automatic = |value| matches!(value, "1" | "2");
    let defence = matches!(name, "drop_entry" | "drop_packet" | "secure_tcp");
    a == b || (defence && automatic(a) && automatic(b))
}

fn connections(service: &RunningService) -> u64 {
    service.dests.iter().map(|(.., count)| count).sum()
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (edit, touched) = match self {
            Self::Setting(sysctl, old, new) => {
                let (name, new) = (sysctl.name, new.to_string());
                return write!(f, "~ setting {name}: {old:?} becomes {new:?}");
            }
            Self::Checks(key, sign) => {
                return write!(f, "{sign} checks of {}", words::service(key));
            }
            Self::Edit(edit, touched) => (edit, touched),
        };
        match edit {
            Command::AddService(key, spec) => {
                write!(f, "+ service {}, scheduler {}", words::service(key), spec.scheduler)
            }
            Command::EditService(key, spec) => {
                write!(f, "~ service {}, scheduler {}", words::service(key), spec.scheduler)
            }
            Command::DeleteService(key) => write!(f, "- service {}", words::service(key)),
            Command::AddDest(key, dest, spec) => {
                let (key, dest) = (words::service(key), words::dest(dest));
                write!(f, "+ destination {dest}, weight {}, of {key}", spec.weight)
            }
            Command::EditDest(key, dest, spec) => {
                let (key, dest) = (words::service(key), words::dest(dest));
                write!(f, "~ destination {dest}, weight {}, of {key}", spec.weight)
            }
            Command::DeleteDest(key, dest) => {
                let (key, dest) = (words::service(key), words::dest(dest));
                write!(f, "- destination {dest} of {key}")
            }
            Command::SetTimeouts(edit) => {
                write!(f, "~ timeouts")?;
                let parts = [("tcp", edit.tcp), ("tcp_fin", edit.tcp_fin), ("udp", edit.udp)];
                parts
                    .iter()
                    .filter(|(_, seconds)| *seconds != 0)
                    .try_for_each(|(name, seconds)| write!(f, " {name} {seconds} s"))
            }
            Command::AddMarkRule(rule) => write!(f, "+ mark rule {}", rule::shown(rule)),
            Command::DeleteMarkRule(rule) => write!(f, "- mark rule {}", rule::shown(rule)),
            Command::StartSync(daemon) => {
                let (state, interface) = (sync::shown(daemon.state), daemon.interface);
                write!(f, "+ sync daemon {state} on {interface}, id {}", daemon.sync_id)
            }
            Command::StopSync(state) => write!(f, "- sync daemon {}", sync::shown(state.number())),
            other => write!(f, "~ {other:?}"),
        }?;
        match touched {
            0 => Ok(()),
            1 => f.write_str(" (1 connection)"),
            many => write!(f, " ({many} connections)"),
        }
    }
}
