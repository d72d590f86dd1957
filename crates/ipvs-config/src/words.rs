//! Keys as an administrator reads them.

use std::net::{IpAddr, SocketAddr};

use ipvs_core::addr::{Addr, Family};
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

/// Reads `tcp:192.0.2.10:80`, `fwmark:7` or `fwmark:7:ipv6`; a blank does for the colon behind
/// the first word.
pub fn read_service(text: &str) -> Result<ServiceKey, String> {
    let wrong = || {
        "a service is tcp:ADDRESS:PORT, udp:ADDRESS:PORT, sctp:ADDRESS:PORT, fwmark:MARK or \
         fwmark:MARK:ipv6"
            .to_owned()
    };
    let (kind, rest) = text.split_once([':', ' ']).ok_or_else(wrong)?;
    if kind == "fwmark" {
        let (mark, family) = match rest.split_once([':', ' ']) {
            None => (rest, Family::V4),
            Some((mark, "ipv6")) => (mark, Family::V6),
            Some(_) => return Err(wrong()),
        };
        return match mark.parse() {
            Ok(mark @ 1..) => Ok(ServiceKey::fwmark(family, mark)),
            _ => Err(format!("`{mark}` is no firewall mark: a number from 1 on")),
        };
    }
    let protocol = match kind {
        "tcp" => 6,
        "udp" => 17,
        "sctp" => 132,
        _ => return Err(wrong()),
    };
    let (family, addr, port) = endpoint(rest)?;
    Ok(ServiceKey::address(family, protocol, addr, port))
}

/// Reads `10.1.0.11:80`.
pub fn read_dest(text: &str) -> Result<DestKey, String> {
    let (family, addr, port) = endpoint(text)?;
    Ok(DestKey::new(family, addr, port))
}

fn endpoint(text: &str) -> Result<(Family, Addr, u16), String> {
    let at: SocketAddr = text
        .parse()
        .map_err(|_bad| format!("`{text}` is no ADDRESS:PORT; IPv6 as in [2001:db8::1]:80"))?;
    Ok(match at.ip() {
        IpAddr::V4(addr) => (Family::V4, Addr::v4(addr.octets()), at.port()),
        IpAddr::V6(addr) => (Family::V6, Addr::v6(addr.octets()), at.port()),
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_read() {
        let services = [
            "tcp 192.0.2.10:80",
            "udp [2001:db8::1]:53",
            "sctp 192.0.2.10:0",
            "fwmark 7",
            "fwmark 7 ipv6",
        ];
        for shown in services {
            let key = read_service(shown).unwrap();
            assert_eq!(service(&key), shown);
            assert_eq!(read_service(&shown.replace(' ', ":")), Ok(key));
        }
        for shown in ["10.1.0.11:80", "[2001:db8::1]:0"] {
            assert_eq!(dest(&read_dest(shown).unwrap()), shown);
        }
    }

    #[test]
    fn what_is_no_service_is_refused() {
        for wrong in ["192.0.2.10:80", "tcp", "tcp:192.0.2.10", "fwmark:0", "fwmark:1:ipv4", ""] {
            assert!(read_service(wrong).is_err(), "{wrong:?}");
        }
        assert!(read_dest("10.1.0.11").is_err());
    }
}
