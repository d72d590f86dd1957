//! What runs, as a plan compares it and as a file says it.

use std::collections::HashMap;

use ipvs_core::command::TimeoutEdit;
use ipvs_core::dest::{DestKey, DestSpec, ForwardingMethod};
use ipvs_core::mark::MarkRule;
use ipvs_core::service::{ServiceFlags, ServiceKey, ServiceSpec};
use ipvs_core::snapshot::{Control, Timeouts};
use ipvs_core::sync::SyncDaemon;
use ipvs_core::sysctl;

use crate::health::Checked;
use crate::read::{Service, Wanted, every_bit};

/// A service that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunningService {
    /// Its key.
    pub key: ServiceKey,
    /// Its configuration.
    pub spec: ServiceSpec,
    /// Its destinations, newest first, each with its connections.
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
    /// All mark rules, in order.
    pub marks: Vec<MarkRule>,
    /// All sync daemons, the master first.
    pub sync: Vec<SyncDaemon>,
    /// What is checked, and how it stands.
    pub checked: Checked,
}

impl Running {
    /// What a director in this process runs.
    pub fn of(control: &mut dyn Control) -> Self {
        let mut services = Vec::new();
        control.services(&mut |status| {
            services.push(RunningService { key: status.key, spec: status.spec, dests: Vec::new() });
        });
        for RunningService { key, dests, .. } in &mut services {
            control.dests(key, &mut |dest| {
                let connections = u64::from(dest.active) + u64::from(dest.inactive);
                dests.push((dest.key, dest.spec, connections));
            });
        }
        let (mut settings, mut marks, mut sync) = (Vec::new(), Vec::new(), Vec::new());
        control.sysctls(&mut |name, value| settings.push((name.to_owned(), value.to_string())));
        control.mark_rules(&mut |rule| marks.push(*rule));
        control.sync_daemons(&mut |daemon| sync.push(*daemon));
        let (timeouts, checked) = (control.timeouts(), Checked::default());
        Self { services, timeouts, settings, marks, sync, checked }
    }

    /// The same, with what is checked of it.
    #[must_use]
    pub fn with(self, checked: Checked) -> Self {
        Self { checked, ..self }
    }

    /// The same as what is wanted: the way back to it.
    pub fn wanted(&self) -> Wanted {
        let service = |service: &RunningService| {
            let key = service.key;
            let dests = service.dests.iter().rev();
            let mut dests = dests.map(|(key, spec, _)| (*key, said_dest(spec))).collect();
            let health = self.checked.undone(&key, &mut dests);
            Service { key, spec: said(&key, &service.spec), dests, health }
        };
        let setting = |(name, text): &(String, String)| {
            let sysctl = sysctl::find(name)?;
            Some((sysctl, sysctl.read(text).ok()?))
        };
        let Timeouts { tcp, tcp_fin, udp } = self.timeouts;
        Wanted {
            services: self.services.iter().map(service).collect(),
            timeouts: TimeoutEdit { tcp, tcp_fin, udp },
            settings: self.settings.iter().filter_map(setting).collect(),
            marks: self.marks.iter().map(|rule| rule.named()).collect(),
            sync: self.sync.clone(),
        }
    }

    /// Services by their key.
    pub(crate) fn by_key(&self) -> HashMap<&ServiceKey, &RunningService> {
        self.services.iter().map(|service| (&service.key, service)).collect()
    }
}

/// A configuration without what the director adds to it, and without what says nothing in it.
pub(crate) fn said(key: &ServiceKey, spec: &ServiceSpec) -> ServiceSpec {
    let flags = spec.flags & !ServiceFlags::HASHED;
    if flags & ServiceFlags::PERSISTENT != 0 {
        return ServiceSpec { flags, ..*spec };
    }
    let netmask = every_bit(key.family());
    ServiceSpec { flags, timeout: 0, netmask, engine: "".into(), ..*spec }
}

/// The same of a destination; one on the host itself as it may be asked for.
pub(crate) fn said_dest(spec: &DestSpec) -> DestSpec {
    let method = match spec.forwarding() {
        method @ (ForwardingMethod::Masquerade | ForwardingMethod::Tunnel) => method,
        _ => ForwardingMethod::DirectRoute,
    };
    let spec = DestSpec { method: method as u8, reserved: [0; 2], ..*spec };
    if method == ForwardingMethod::Tunnel {
        return spec;
    }
    DestSpec { tunnel_type: DestSpec::IPIP, tunnel_port: 0, tunnel_flags: 0, ..spec }
}

/// Whether a destination that runs is as it is wanted.
pub(crate) fn is_as_wanted(running: &DestSpec, wanted: &DestSpec) -> bool {
    let mut running = *running;
    let is_here = running.forwarding() == ForwardingMethod::Local;
    if is_here && wanted.forwarding() == ForwardingMethod::Tunnel {
        // A tunnel to the host itself is none.
        running = DestSpec {
            method: wanted.method,
            tunnel_type: wanted.tunnel_type,
            tunnel_port: wanted.tunnel_port,
            tunnel_flags: wanted.tunnel_flags,
            ..running
        };
    }
    said_dest(&running) == said_dest(wanted)
}
