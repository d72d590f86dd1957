//! Starting the plane that is wanted, or the best that can be had.

use std::io;

use ipvs_plane::bpf::{self, AttachMode, BpfPlane, StartError};
use ipvs_plane::user::{self, Selection, UserPlane};

use crate::director::{Director, Driven};
use crate::pins::PinsLock;
use crate::{DaemonError, Options, PlaneChoice};

/// Starts the plane that `options` ask for.
pub(crate) fn start(options: &Options) -> Result<Director, DaemonError> {
    let mut director = start_plane(options)?;
    if let Some(ports) = options.ftp_ports {
        director.plane().set_ftp_ports(ports);
    }
    Ok(director)
}

fn start_plane(options: &Options) -> Result<Director, DaemonError> {
    match options.plane {
        PlaneChoice::Bpf => start_bpf(options),
        PlaneChoice::User => {
            let driven = Driven::User(start_user(options)?);
            Ok(Director::new(driven, "user-space plane, as asked".to_owned()))
        }
        PlaneChoice::Auto => match start_bpf(options) {
            Err(DaemonError::Bpf(why)) if is_out_of_reach(&why) => {
                tracing::warn!("the eBPF plane cannot be had: {why}");
                match start_user(options) {
                    Ok(plane) => {
                        let choice = format!("user-space plane, for the eBPF plane said: {why}");
                        Ok(Director::new(Driven::User(plane), choice))
                    }
                    Err(user) => Err(DaemonError::NoPlane { bpf: why, user }),
                }
            }
            outcome => outcome,
        },
    }
}

fn start_bpf(options: &Options) -> Result<Director, DaemonError> {
    let lock = PinsLock::take(&options.pins)?;
    let plane = BpfPlane::start(&bpf::Options {
        pins: options.pins.clone(),
        interfaces: options.interfaces.clone(),
        limits: options.limits,
    })?;
    let origin = if plane.was_adopted() { "adopted from an earlier daemon" } else { "fresh" };
    let choice = format!("eBPF plane, {origin}");
    let driven = Driven::Bpf { plane: Box::new(plane), _lock: lock };
    Ok(Director::new(driven, choice))
}

fn start_user(options: &Options) -> Result<UserPlane, user::StartError> {
    for (name, mode) in &options.interfaces {
        if *mode != AttachMode::Auto {
            tracing::warn!("{name}: the user-space plane knows no attach modes");
        }
    }
    let names = || options.interfaces.iter().map(|(name, _)| name.clone()).collect();
    let ports =
        if options.interfaces.is_empty() { Selection::All } else { Selection::Named(names()) };
    UserPlane::start(&user::Options { ports, limits: options.limits, ..user::Options::default() })
}

/// Whether the eBPF plane is beyond this user or this kernel; with any other
/// failure there is something to be put right first, and to balance in another
/// place would hide it.
fn is_out_of_reach(error: &StartError) -> bool {
    match error {
        StartError::NotPermitted { .. }
        | StartError::Mount { .. }
        | StartError::Load(_)
        | StartError::Program { .. } => true,
        StartError::Path { source, .. } => matches!(
            source.kind(),
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
        ),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_this_user_cannot_change_leads_to_the_other_plane() {
        let path = || "/run/ipvs/bpf".into();
        let version = StartError::OtherVersion { path: path(), reason: String::new() };
        assert!(is_out_of_reach(&StartError::NotPermitted { what: "loading" }));
        assert!(!is_out_of_reach(&version), "a plane that runs must not get a rival");
        assert!(!is_out_of_reach(&StartError::NoInterface("eth9".into())));
        for (kind, expected) in
            [(io::ErrorKind::PermissionDenied, true), (io::ErrorKind::StorageFull, false)]
        {
            let error = StartError::Path { path: path(), source: kind.into() };
            assert_eq!(is_out_of_reach(&error), expected, "{kind}");
        }
    }
}
