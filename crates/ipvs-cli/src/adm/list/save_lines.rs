//! Lines of `ipvsadm -S -n --full`, one at a time.

use ipvs_core::service::ServiceKey;
use ipvs_core::snapshot::{DestStatus, ServiceStatus};

use super::super::names::NoNames;
use super::save;
use super::text::Naming;

const NAMING: Naming<'static> = Naming { numeric: true, names: &NoNames };

/// The line that adds a service.
pub(crate) fn service(status: &ServiceStatus) -> String {
    line(|out| save::service(out, NAMING, status))
}

/// The line that adds a destination.
pub(crate) fn dest(service: &ServiceKey, status: &DestStatus) -> String {
    line(|out| save::dest(out, NAMING, service, status, true))
}

fn line(write: impl FnOnce(&mut Vec<u8>) -> std::io::Result<()>) -> String {
    let mut line = Vec::new();
    // A vector takes everything.
    let _ = write(&mut line);
    String::from_utf8_lossy(line.trim_ascii_end()).into_owned()
}
