//! A service as attributes: its key, its configuration and its status.

use ipvs_core::addr::{Addr, Family};
use ipvs_core::name::Name;
use ipvs_core::service::{ServiceFlags, ServiceKey, ServiceSpec};
use ipvs_core::snapshot::ServiceStatus;
use rustix::io::Errno;

use crate::attr::{Policy, Table, Writer};
use crate::numbers::{AF_INET, AF_INET6, svc, top};
use crate::stats;

/// IANA number of TCP, which a service of mark 0 is taken for.
const TCP: u8 = 6;

const POLICY: &[(u16, Policy)] = &[
    (svc::AF, Policy::AtLeast(2)),
    (svc::PROTOCOL, Policy::AtLeast(2)),
    (svc::ADDR, Policy::AtMost(16)),
    (svc::PORT, Policy::AtLeast(2)),
    (svc::FWMARK, Policy::AtLeast(4)),
    (svc::SCHED_NAME, Policy::Text(15)),
    (svc::FLAGS, Policy::AtMost(8)),
    (svc::TIMEOUT, Policy::AtLeast(4)),
    (svc::NETMASK, Policy::AtLeast(4)),
    (svc::STATS, Policy::Nest),
    (svc::PE_NAME, Policy::Text(16)),
    (svc::STATS64, Policy::Nest),
];

/// The family that `AF_INET` or `AF_INET6` stands for.
pub(crate) const fn family_of(number: u16) -> Option<Family> {
    match number {
        AF_INET => Some(Family::V4),
        AF_INET6 => Some(Family::V6),
        _ => None,
    }
}

/// The number that stands for `family`.
pub(crate) const fn number_of(family: Family) -> u16 {
    match family {
        Family::V4 => AF_INET,
        Family::V6 => AF_INET6,
    }
}

/// The address in the bytes of an `ADDR` attribute.
pub(crate) fn addr_of(family: Family, bytes: [u8; 16]) -> Addr {
    match family {
        Family::V4 => {
            let [a, b, c, d, ..] = bytes;
            Addr::v4([a, b, c, d])
        }
        Family::V6 => Addr::v6(bytes),
    }
}

/// A service nest that has been read: its key, and attributes not yet looked at.
#[derive(Clone, Copy, Debug)]
pub struct ServiceAttrs<'a> {
    /// The service it names.
    pub key: ServiceKey,
    table: Table<'a, 13>,
}

/// What a request says about a service, to be laid over the present flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceChange {
    spec: ServiceSpec,
    mask: u32,
}

impl ServiceChange {
    /// The new configuration of a service whose flags are `old` now, 0 for a
    /// new one.
    pub const fn over(&self, old: u32) -> ServiceSpec {
        let flags = (old & !self.mask) | (self.spec.flags & self.mask);
        // Whether it is in the table is not for the user to say.
        ServiceSpec { flags: flags & !ServiceFlags::HASHED, ..self.spec }
    }
}

impl<'a> ServiceAttrs<'a> {
    /// Reads a nest that must hold a key.
    pub fn parse(nest: Option<&'a [u8]>) -> Result<Self, Errno> {
        let nest = nest.ok_or(Errno::INVAL)?;
        let table = Table::parse(nest, POLICY).or(Err(Errno::INVAL))?;
        let af = table.u16(svc::AF).ok_or(Errno::INVAL)?;
        let fwmark = table.u32(svc::FWMARK);
        let address = match (table.u16(svc::PROTOCOL), table.be16(svc::PORT)) {
            (Some(protocol), Some(port)) => {
                table.padded(svc::ADDR).map(|addr| (protocol, addr, port))
            }
            _ => None,
        };
        if fwmark.is_none() && address.is_none() {
            return Err(Errno::INVAL);
        }
        let family = family_of(af).ok_or(Errno::AFNOSUPPORT)?;
        let key = match (fwmark, address) {
            (Some(0), _) => ServiceKey::address(family, TCP, Addr::UNSPECIFIED, 0),
            (Some(fwmark), _) => ServiceKey::fwmark(family, fwmark),
            (None, Some((protocol, addr, port))) => {
                // The kernel keeps 16 bits of a number that has 8 in every packet.
                let protocol = u8::try_from(protocol).or(Err(Errno::INVAL))?;
                ServiceKey::address(family, protocol, addr_of(family, addr), port)
            }
            (None, None) => return Err(Errno::INVAL),
        };
        Ok(Self { key, table })
    }

    /// The configuration, all parts of which must be there but the engine.
    pub fn change(&self) -> Result<ServiceChange, Errno> {
        let table = &self.table;
        let scheduler = table.text(svc::SCHED_NAME).ok_or(Errno::INVAL)?;
        let [f0, f1, f2, f3, m0, m1, m2, m3] = table.padded(svc::FLAGS).ok_or(Errno::INVAL)?;
        let timeout = table.u32(svc::TIMEOUT).ok_or(Errno::INVAL)?;
        let netmask = table.array(svc::NETMASK).ok_or(Errno::INVAL)?;
        let spec = ServiceSpec {
            scheduler: Name::truncated(scheduler),
            engine: Name::truncated(table.text(svc::PE_NAME).unwrap_or(&[])),
            flags: u32::from_ne_bytes([f0, f1, f2, f3]),
            timeout,
            netmask,
        };
        Ok(ServiceChange { spec, mask: u32::from_ne_bytes([m0, m1, m2, m3]) })
    }

    /// The status, as a reply has it.
    pub fn status(&self) -> Result<ServiceStatus, Errno> {
        let spec = self.change()?.over(0);
        let (counters, rates) =
            stats::read(self.table.get(svc::STATS), self.table.get(svc::STATS64));
        Ok(ServiceStatus { key: self.key, spec, counters, rates })
    }
}

/// Writes the attributes of a key into an open nest.
fn write_key_attrs(writer: &mut Writer, key: &ServiceKey) {
    writer.u16(svc::AF, number_of(key.family()));
    if key.is_fwmark() {
        writer.u32(svc::FWMARK, key.fwmark);
    } else {
        writer.u16(svc::PROTOCOL, key.protocol.into());
        writer.attr(svc::ADDR, &key.addr.octets());
        writer.be16(svc::PORT, key.port);
    }
}

/// Writes the attributes of a configuration into an open nest.
fn write_spec_attrs(writer: &mut Writer, spec: &ServiceSpec) {
    writer.text(svc::SCHED_NAME, spec.scheduler.as_bytes());
    if !spec.engine.is_empty() {
        writer.text(svc::PE_NAME, spec.engine.as_bytes());
    }
    writer.nest(svc::FLAGS, |writer| {
        writer.raw(&spec.flags.to_ne_bytes());
        writer.raw(&u32::MAX.to_ne_bytes());
    });
    writer.u32(svc::TIMEOUT, spec.timeout);
    writer.attr(svc::NETMASK, &spec.netmask);
}

/// Writes the nest that names a service.
pub fn write_key(writer: &mut Writer, key: &ServiceKey) {
    writer.nest(top::SERVICE, |writer| write_key_attrs(writer, key));
}

/// Writes the nest that names and configures a service.
pub fn write_full(writer: &mut Writer, key: &ServiceKey, spec: &ServiceSpec) {
    writer.nest(top::SERVICE, |writer| {
        write_key_attrs(writer, key);
        write_spec_attrs(writer, spec);
    });
}

/// Writes the nest that shows a service.
pub fn write_status(writer: &mut Writer, status: &ServiceStatus) {
    let flags = status.spec.flags | ServiceFlags::HASHED;
    writer.nest(top::SERVICE, |writer| {
        write_key_attrs(writer, &status.key);
        write_spec_attrs(writer, &ServiceSpec { flags, ..status.spec });
        stats::write(writer, svc::STATS, svc::STATS64, &status.counters, &status.rates);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Captured form of `ipvsadm -A -t 192.0.2.10:80` with a 4-byte address,
    /// from the SERVICE attribute on.
    const NEW_SERVICE: &str = "48000100 06000100 02000000 06000200 06000000 08000300 c000020a \
        06000400 00500000 08000600 776c6300 0c000700 00000000 ffffffff 08000800 00000000 \
        08000900 ffffffff";

    fn unhex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        let pair = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
        digits.chunks(2).map(pair).collect()
    }

    fn nest(attrs: &[u8]) -> Option<&[u8]> {
        let (number, nest) = crate::attr::Attrs(attrs).next()?;
        assert_eq!(number, top::SERVICE);
        Some(nest)
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn a_captured_new_service_is_read() {
        let bytes = unhex(NEW_SERVICE);
        let attrs = ServiceAttrs::parse(nest(&bytes)).unwrap();
        let vip = Addr::v4([192, 0, 2, 10]);
        assert_eq!(attrs.key, ServiceKey::address(Family::V4, 6, vip, 80));
        let spec = attrs.change().unwrap().over(0);
        let expect = ServiceSpec {
            scheduler: "wlc".into(),
            engine: Name::default(),
            flags: 0,
            timeout: 0,
            netmask: [255; 4],
        };
        assert_eq!(spec, expect);
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn a_service_is_written_as_captured_but_for_the_16_byte_address() {
        let key = ServiceKey::address(Family::V4, 6, Addr::v4([192, 0, 2, 10]), 80);
        let spec = ServiceSpec {
            scheduler: "wlc".into(),
            engine: Name::default(),
            flags: 0,
            timeout: 0,
            netmask: [255; 4],
        };
        let mut writer = Writer::new();
        write_full(&mut writer, &key, &spec);
        let expect = NEW_SERVICE
            .replace("48000100", "54000100")
            .replace("08000300 c000020a", "14000300 c000020a 00000000 00000000 00000000");
        assert_eq!(writer.bytes(), unhex(&expect));
    }

    #[test]
    fn a_mark_wins_over_an_address() {
        let mut writer = Writer::new();
        writer.u16(svc::AF, AF_INET6);
        writer.u32(svc::FWMARK, 7);
        writer.u16(svc::PROTOCOL, 6);
        writer.attr(svc::ADDR, &[1; 16]);
        writer.be16(svc::PORT, 80);
        let attrs = ServiceAttrs::parse(Some(writer.bytes())).unwrap();
        assert_eq!(attrs.key, ServiceKey::fwmark(Family::V6, 7));
    }

    #[test]
    fn mark_zero_means_every_port_of_no_address() {
        let mut writer = Writer::new();
        writer.u16(svc::AF, AF_INET);
        writer.u32(svc::FWMARK, 0);
        let attrs = ServiceAttrs::parse(Some(writer.bytes())).unwrap();
        assert_eq!(attrs.key, ServiceKey::address(Family::V4, TCP, Addr::UNSPECIFIED, 0));
    }

    #[test]
    fn a_short_address_is_filled_up_with_zeros() {
        let mut writer = Writer::new();
        writer.u16(svc::AF, AF_INET);
        writer.u16(svc::PROTOCOL, 17);
        writer.attr(svc::ADDR, &[10, 1]);
        writer.be16(svc::PORT, 53);
        let attrs = ServiceAttrs::parse(Some(writer.bytes())).unwrap();
        assert_eq!(attrs.key.addr, Addr::v4([10, 1, 0, 0]));
    }

    #[test]
    fn flags_outside_the_mask_stay() {
        let change = ServiceChange {
            spec: ServiceSpec {
                scheduler: "rr".into(),
                engine: Name::default(),
                flags: ServiceFlags::PERSISTENT,
                timeout: 0,
                netmask: [255; 4],
            },
            mask: ServiceFlags::PERSISTENT | ServiceFlags::ONE_PACKET,
        };
        let old = ServiceFlags::ONE_PACKET | ServiceFlags::SCHED_1 | ServiceFlags::HASHED;
        assert_eq!(change.over(old).flags, ServiceFlags::PERSISTENT | ServiceFlags::SCHED_1);
    }
}
