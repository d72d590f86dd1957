//! What a command may say: the ranges the kernel checks, in its order.

use ipvs_core::addr::{Addr, Family};
use ipvs_core::command::CommandError;
use ipvs_core::dest::{DestKey, DestSpec, ForwardingMethod};
use ipvs_core::engine;
use ipvs_core::service::{SchedulerKind, ServiceKey, ServiceSpec};

/// Checks a service's configuration and finds its scheduler.
pub(super) fn service(key: &ServiceKey, spec: &ServiceSpec) -> Result<SchedulerKind, CommandError> {
    let kind = SchedulerKind::by_name(&spec.scheduler).ok_or(CommandError::UnknownScheduler)?;
    engine::by_name(&spec.engine).ok_or(CommandError::UnknownPersistenceEngine)?;
    let prefix = u32::from_ne_bytes(spec.netmask);
    if key.family() == Family::V6 && !(1..=128).contains(&prefix) {
        return Err(CommandError::Invalid);
    }
    Ok(kind)
}

/// Checks a destination's configuration, whether it is new or edited; `syncs` says
/// whether a sync daemon runs, which knows one family a connection only.
pub(super) fn dest(
    service: &ServiceKey,
    key: &DestKey,
    spec: &DestSpec,
    syncs: bool,
) -> Result<(), CommandError> {
    let is_tunnel = spec.forwarding() == ForwardingMethod::Tunnel;
    if key.family != service.family && (syncs || !is_tunnel) {
        return Err(CommandError::Invalid);
    }
    if spec.weight < 0 || spec.lower > spec.upper {
        return Err(CommandError::OutOfRange);
    }
    if spec.tunnel_type == DestSpec::GUE && spec.tunnel_port == 0 {
        return Err(CommandError::Invalid);
    }
    Ok(())
}

/// Whether a new destination may have this address: one that a packet can be
/// sent to.
pub(super) fn address(family: Family, addr: Addr) -> Result<(), CommandError> {
    let ok = match family {
        Family::V4 => {
            let octets = addr.v4_octets();
            octets[0] != 0 && !(224..240).contains(&octets[0]) && octets != [255; 4]
        }
        Family::V6 => {
            let octets = addr.octets();
            let link_local = octets[0] == 0xfe && octets[1] & 0xc0 == 0x80;
            let v4_mapped = octets.starts_with(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]);
            octets[0] != 0xff && !link_local && !v4_mapped && !addr.is_unspecified()
        }
    };
    if ok { Ok(()) } else { Err(CommandError::Invalid) }
}
