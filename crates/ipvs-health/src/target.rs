//! What is checked.

use std::net::{IpAddr, SocketAddr};

use ipvs_config::check::Check;
use ipvs_core::dest::DestKey;
use ipvs_core::service::ServiceKey;

/// Which check of which destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TargetKey {
    /// The service.
    pub service: ServiceKey,
    /// Its destination.
    pub dest: DestKey,
    /// Which of its checks, from 0.
    pub position: usize,
}

/// A check of a destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Which it is.
    pub key: TargetKey,
    /// What is asked, and when.
    pub check: Check,
    /// Whether the destination is believed to be up until it was checked.
    pub presumed_up: bool,
}

impl Target {
    /// Where is asked.
    pub fn at(&self) -> SocketAddr {
        let dest = &self.key.dest;
        let ip: IpAddr = self.check.address.unwrap_or_else(|| dest.addr.to_ip(dest.family()));
        SocketAddr::new(ip, self.check.port.unwrap_or(dest.port))
    }
}
