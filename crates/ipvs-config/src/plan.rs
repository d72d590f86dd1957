//! The way from what runs to what is wanted.

use std::fmt;

use ipvs_core::command::{Command, TimeoutEdit};
use ipvs_core::dest::{DestKey, DestSpec};
use ipvs_core::service::{ServiceFlags, ServiceKey, ServiceSpec};
use ipvs_core::snapshot::Timeouts;
use ipvs_core::sysctl::{Sysctl, Value};

use crate::read::Wanted;
use crate::words;

/// A service that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunningService {
    /// Its key.
    pub key: ServiceKey,
    /// Its configuration.
    pub spec: ServiceSpec,
    /// Its destinations, each with its connections.
    pub dests: Vec<(DestKey, DestSpec, u64)>,
}

/// What runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    /// All services.
    pub services: Vec<RunningService>,
    /// The timeouts in force.
    pub timeouts: Timeouts,
    /// All settings of `net.ipv4.vs`, as text.
    pub settings: Vec<(String, String)>,
}

/// One step of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// An edit, and how many live connections belong to what it is about.
    Edit(Command, u64),
    /// A setting, its present value and the new one.
    Setting(&'static Sysctl, String, Value),
}

impl Change {
    /// The edit that makes it.
    pub const fn edit(&self) -> Command {
        match self {
            Self::Edit(edit, _) => *edit,
            Self::Setting(sysctl, _, value) => Command::SetSysctl(sysctl, *value),
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
    for service in &running.services {
        if !wanted.services.iter().any(|other| other.key == service.key) {
            changes.push(Change::Edit(Command::DeleteService(service.key), connections(service)));
        }
    }
    for service in &wanted.services {
        let key = service.key;
        let present = running.services.iter().find(|other| other.key == key);
        match present {
            None => changes.push(Change::Edit(Command::AddService(key, service.spec), 0)),
            Some(present) if said(&present.spec) != service.spec => {
                let edit = Command::EditService(key, service.spec);
                changes.push(Change::Edit(edit, connections(present)));
            }
            Some(_) => {}
        }
        let dests = present.map_or(&[][..], |present| &present.dests);
        for (dest, _, count) in dests {
            if !service.dests.iter().any(|(other, _)| other == dest) {
                changes.push(Change::Edit(Command::DeleteDest(key, *dest), *count));
            }
        }
        for (dest, spec) in &service.dests {
            match dests.iter().find(|(other, ..)| other == dest) {
                None => changes.push(Change::Edit(Command::AddDest(key, *dest, *spec), 0)),
                Some((_, present, count)) if present != spec => {
                    changes.push(Change::Edit(Command::EditDest(key, *dest, *spec), *count));
                }
                Some(_) => {}
            }
        }
    }
    changes
}

/// Whether both values mean the same. The director moves its automatic defences
/// between 1 (at rest) and 2 (at work) by itself, so one asks for no change of the other.
fn is_same_setting(name: &str, a: &str, b: &str) -> bool {
    let automatic = |value| matches!(value, "1" | "2");
    let defence = matches!(name, "drop_entry" | "drop_packet" | "secure_tcp");
    a == b || (defence && automatic(a) && automatic(b))
}

/// A configuration without what the director adds to it.
fn said(spec: &ServiceSpec) -> ServiceSpec {
    ServiceSpec { flags: spec.flags & !ServiceFlags::HASHED, ..*spec }
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
            other => write!(f, "~ {other:?}"),
        }?;
        match touched {
            0 => Ok(()),
            1 => f.write_str(" (1 connection)"),
            many => write!(f, " ({many} connections)"),
        }
    }
}
