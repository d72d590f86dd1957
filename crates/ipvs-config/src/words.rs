//! Keys as an administrator reads them.

use std::net::SocketAddr;

use ipvs_core::addr::Family;
use ipvs_core::dest::DestKey;
use ipvs_core::service::ServiceKey;

/// `tcp 192.0.2.10:80`, or `fwmark 7` and behind it `ipv6`.
pub fn service(key: &ServiceKey) -> String {
    if key.is_fwmark() {
        let family = if key.family() == Family::V6 { " ipv6" } else { "" };
        return format!("fwmark {}{family}", key.fwmark);
    }
    let at = SocketAddr::new(key.addr.to_ip(key.family()), key.port);
    match protocol(key.protocol) {
        Some(name) => format!("{name} {at}"),
        None => format!("protocol {} {at}", key.protocol),
    }
}

/// `10.1.0.11:80`.
pub fn dest(key: &DestKey) -> String {
    SocketAddr::new(key.addr.to_ip(key.family()), key.port).to_string()
}

/// The name of a protocol that has one here.
pub(crate) const fn protocol(number: u8) -> Option<&'static str> {
    match number {
        6 => Some("tcp"),
        17 => Some("udp"),
        132 => Some("sctp"),
        _ => None,
    }
}
