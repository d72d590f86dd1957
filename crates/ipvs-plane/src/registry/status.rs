//! What the registry shows: services, destinations and connections.

use ipvs_core::command::{Command, CommandError};
use ipvs_core::conn::{Conn, ConnFlags};
use ipvs_core::dest::{Dest, DestId};
use ipvs_core::drain::DrainStatus;
use ipvs_core::engine;
use ipvs_core::mark::MarkRule;
use ipvs_core::name::Name;
use ipvs_core::proto::{self, tcp};
use ipvs_core::service::{ServiceFlags, ServiceKey};
use ipvs_core::snapshot::{ConnStatus, Control, DestStatus, Refused, ServiceStatus, Timeouts};
use ipvs_core::stats::{Counters, Rates};
use ipvs_core::sync::SyncDaemon;
use ipvs_core::sysctl::{self, SysctlError};
use ipvs_core::time::Instant;

use super::{Entry, Registry};
use crate::store::{Owner, Store};

impl<S: Store> Registry<S> {
    fn service_status(&mut self, entry: &Entry) -> ServiceStatus {
        let (counters, rates) = self.shown(Owner::Service(entry.id));
        let mut spec = entry.spec;
        spec.flags |= ServiceFlags::HASHED;
        ServiceStatus { key: entry.key, spec, counters, rates }
    }

    fn dest_status(&mut self, id: DestId) -> Option<DestStatus> {
        let dest = *self.dests.get(&id)?;
        let load = self.store.load_values(id);
        let (counters, rates) = self.shown(Owner::Dest(id));
        Some(DestStatus {
            key: dest.key,
            spec: dest.spec,
            active: load.active,
            inactive: load.inactive,
            persistent: load.persistent,
            counters,
            rates,
        })
    }
}

impl<S: Store> Control for Registry<S> {
    fn apply(&mut self, commands: &[Command]) -> Result<(), Refused> {
        Self::apply(self, commands)
    }

    fn apply_each(&mut self, commands: &[Command], each: &mut dyn FnMut(Result<(), CommandError>)) {
        Self::apply_each(self, commands, each);
    }

    fn services(&mut self, each: &mut dyn FnMut(ServiceStatus)) {
        let entries: Vec<Entry> = self.services.values().cloned().collect();
        for entry in entries {
            each(self.service_status(&entry));
        }
    }

    fn service(&mut self, key: &ServiceKey) -> Option<ServiceStatus> {
        let entry = self.services.get(key)?.clone();
        Some(self.service_status(&entry))
    }

    fn dests(&mut self, key: &ServiceKey, each: &mut dyn FnMut(DestStatus)) -> bool {
        let Some(entry) = self.services.get(key).cloned() else { return false };
        self.sweep_for_listing();
        for id in entry.dests.iter().rev() {
            if let Some(status) = self.dest_status(*id) {
                each(status);
            }
        }
        true
    }

    fn drains(&mut self, each: &mut dyn FnMut(DrainStatus)) {
        self.sweep_for_listing();
        for status in self.drain_statuses() {
            each(status);
        }
    }

    fn connections(&mut self, each: &mut dyn FnMut(ConnStatus)) {
        self.store.sweep();
        let now = self.store.now();
        let dests = &self.dests;
        let mut templates = Vec::new();
        self.store.each_conn(&mut |id, conn| {
            let status = conn_status(conn, dests.get(&conn.dest.get()), now);
            if conn.has(ConnFlags::ENGINE) {
                templates.push((id, status));
            } else {
                each(status);
            }
        });
        for (id, mut status) in templates {
            // There is one engine.
            let name = Name::from(engine::sip::NAME);
            status.engine = self.store.engine_data(id).map(|data| (name, data));
            each(status);
        }
    }

    fn mark_rules(&mut self, each: &mut dyn FnMut(&MarkRule)) {
        self.marks.rules.iter().for_each(each);
    }

    fn sync_daemons(&mut self, each: &mut dyn FnMut(&SyncDaemon)) {
        self.sync.iter().for_each(each);
    }

    fn timeouts(&mut self) -> Timeouts {
        let tcp =
            |state| self.settings.tcp_timeouts.get(usize::from(state)).copied().unwrap_or(0) / 1000;
        Timeouts {
            tcp: tcp(tcp::ESTABLISHED),
            tcp_fin: tcp(tcp::FIN_WAIT),
            udp: self.settings.udp_timeout / 1000,
        }
    }

    fn statistics(&mut self) -> (Counters, Rates) {
        self.shown(Owner::Total)
    }

    fn cpu_counters(&mut self, each: &mut dyn FnMut(Counters)) {
        // What was deleted is not known by CPU any more; the first one has it.
        let mut cpus = vec![self.store.account(Owner::Total).base];
        for id in self.services.values().flat_map(|entry| &entry.dests) {
            let counted = self.store.cpu_counter_values(*id);
            cpus.resize(cpus.len().max(counted.len()), Counters::default());
            for (sum, counted) in cpus.iter_mut().zip(counted) {
                *sum = sum.plus(counted);
            }
        }
        cpus.into_iter().for_each(each);
    }

    fn sysctls(&mut self, each: &mut dyn FnMut(&'static str, sysctl::Value)) {
        for sysctl in &sysctl::ALL {
            each(sysctl.name, sysctl.get(&self.settings));
        }
    }

    fn set_sysctl(&mut self, name: &str, text: &str) -> Result<(), SysctlError> {
        let sysctl = sysctl::find(name).ok_or(SysctlError::Unknown)?;
        let edit = Command::SetSysctl(sysctl, sysctl.read(text)?);
        self.apply(&[edit]).map_err(|refused| match refused.error {
            CommandError::Plane => SysctlError::Plane,
            _ => SysctlError::Invalid,
        })
    }

    fn ftp_ports(&mut self) -> [u16; 8] {
        self.settings.ftp_ports
    }

    fn table_size(&self) -> u32 {
        self.store.limits().conns
    }
}

fn conn_status(conn: &Conn, dest: Option<&Dest>, now: Instant) -> ConnStatus {
    let tuple = conn.tuple.get();
    let template = conn.has(ConnFlags::TEMPLATE);
    let state = if template {
        if conn.state.get() == 0 { "NONE" } else { "ASSURED" }
    } else {
        proto::state_name(tuple.protocol, conn.state.get())
    };
    ConnStatus {
        family: tuple.family(),
        protocol: tuple.protocol,
        client: tuple.source,
        client_port: if template { 0 } else { tuple.source_port },
        virtual_addr: tuple.destination,
        virtual_port: tuple.destination_port,
        dest_family: dest.map_or_else(|| tuple.family(), |dest| dest.key.family()),
        dest: dest.map_or(ipvs_core::addr::Addr::UNSPECIFIED, |dest| conn.dest_addr(dest)),
        dest_port: conn.dest_port.get(),
        state,
        expires_ms: conn.expires.get().saturating_sub(now.nanos()) / 1_000_000,
        flags: conn.flags.get() & ConnFlags::KERNEL,
        fwmark: conn.fwmark.get(),
        engine: None,
    }
}
