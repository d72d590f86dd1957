//! What has to be done so that one director has what another one has, each edit with the
//! line that would ask for it.

use std::fmt::Write as _;

use ipvs_core::command::{Command, TimeoutEdit};
use ipvs_core::dest::ForwardingMethod;
use ipvs_core::service::{ServiceFlags, ServiceKey};
use ipvs_core::snapshot::{DestStatus, ServiceStatus};
use ipvs_core::sync::{SyncDaemon, SyncState};
use ipvs_core::sysctl::{self, PREFIX, Sysctl, Value};

use super::Held;
use crate::adm::save_lines;

/// An edit.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) edit: Command,
    /// As `ipvsadm -R` reads it; a setting, which it does not know, as a comment.
    pub(super) line: String,
}

/// Edits, in order.
#[derive(Clone, Debug, Default)]
pub(super) struct Steps {
    pub(super) all: Vec<Step>,
    /// Settings among them.
    pub(super) settings: usize,
    /// What there is no edit for, in words.
    pub(super) left_out: Vec<String>,
}

impl Steps {
    /// What makes `target` hold what `source` holds.
    pub(super) fn between(source: &Held, target: &Held) -> Self {
        let mut steps = Self::default();
        if !target.services.is_empty() {
            steps.push(Command::Flush, "-C".into());
        }
        for state in target.sync.iter().filter_map(|it| SyncState::from_number(it.state)) {
            steps.push(Command::StopSync(state), format!("--stop-daemon {}", name(state)));
        }
        steps.settings(source, target);
        let wanted = source.timeouts;
        if wanted != target.timeouts {
            let edit = TimeoutEdit { tcp: wanted.tcp, tcp_fin: wanted.tcp_fin, udp: wanted.udp };
            let line = format!("--set {} {} {}", edit.tcp, edit.tcp_fin, edit.udp);
            steps.push(Command::SetTimeouts(edit), line);
        }
        for (service, dests) in &source.services {
            steps.service(service);
            // The newest is added last.
            for dest in dests.iter().rev() {
                steps.dest(&service.key, dest);
            }
        }
        for daemon in &source.sync {
            if let Some(state) = SyncState::from_number(daemon.state) {
                steps.push(Command::StartSync(*daemon), sync_line(state, daemon));
            }
        }
        steps
    }

    fn push(&mut self, edit: Command, line: String) {
        self.all.push(Step { edit, line });
    }

    fn settings(&mut self, source: &Held, target: &Held) {
        let read = |settings: &[(String, String)], of: &Sysctl| -> Option<Value> {
            let (_, text) = settings.iter().find(|(name, _)| name == of.name)?;
            of.read(text).ok()
        };
        for (name, text) in &source.settings {
            let Some(sysctl) = sysctl::find(name) else {
                self.left_out.push(format!("{PREFIX}{name} = {text}, which is not known here"));
                continue;
            };
            match sysctl.read(text) {
                Ok(value) if read(&target.settings, sysctl) != Some(value) => {
                    self.settings += 1;
                    let line = format!("# {PREFIX}{name} = {text}");
                    self.push(Command::SetSysctl(sysctl, value), line);
                }
                Ok(_) => {}
                Err(error) => self.left_out.push(format!("{PREFIX}{name} = {text}: {error}")),
            }
        }
    }

    fn service(&mut self, status: &ServiceStatus) {
        let mut spec = status.spec;
        // Says that it is in a table, which is not for a user to say.
        spec.flags &= !ServiceFlags::HASHED;
        self.push(Command::AddService(status.key, spec), save_lines::service(status));
    }

    fn dest(&mut self, service: &ServiceKey, status: &DestStatus) {
        let mut spec = status.spec;
        if !matches!(spec.forwarding(), ForwardingMethod::Masquerade | ForwardingMethod::Tunnel) {
            // A local one is found out again, as with `ipvsadm -S`.
            spec.method = ForwardingMethod::DirectRoute as u8;
        }
        self.push(Command::AddDest(*service, status.key, spec), save_lines::dest(service, status));
    }
}

const fn name(state: SyncState) -> &'static str {
    match state {
        SyncState::Master => "master",
        SyncState::Backup => "backup",
    }
}

fn sync_line(state: SyncState, daemon: &SyncDaemon) -> String {
    let mut line = format!(
        "--start-daemon {} --mcast-interface {} --syncid {}",
        name(state),
        daemon.interface,
        daemon.sync_id
    );
    // What a text takes is no failure.
    if daemon.max_len != 0 {
        let _ = write!(line, " --sync-maxlen {}", daemon.max_len);
    }
    if let Some(group) = daemon.group {
        let _ = write!(line, " --mcast-group {group}");
    }
    if daemon.port != 0 {
        let _ = write!(line, " --mcast-port {}", daemon.port);
    }
    if daemon.ttl != 0 {
        let _ = write!(line, " --mcast-ttl {}", daemon.ttl);
    }
    line
}
