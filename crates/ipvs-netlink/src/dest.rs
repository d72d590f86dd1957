//! A destination as attributes: its key, its configuration and its status.

use ipvs_core::addr::Family;
use ipvs_core::dest::{DestKey, DestSpec};
use ipvs_core::snapshot::DestStatus;
use rustix::io::Errno;

use crate::attr::{Policy, Table, Writer};
use crate::numbers::{dst, top};
use crate::service::{addr_of, family_of, number_of};
use crate::stats;

const POLICY: &[(u16, Policy)] = &[
    (dst::ADDR, Policy::AtMost(16)),
    (dst::PORT, Policy::AtLeast(2)),
    (dst::FWD_METHOD, Policy::AtLeast(4)),
    (dst::WEIGHT, Policy::AtLeast(4)),
    (dst::U_THRESH, Policy::AtLeast(4)),
    (dst::L_THRESH, Policy::AtLeast(4)),
    (dst::ACTIVE_CONNS, Policy::AtLeast(4)),
    (dst::INACT_CONNS, Policy::AtLeast(4)),
    (dst::PERSIST_CONNS, Policy::AtLeast(4)),
    (dst::STATS, Policy::Nest),
    (dst::ADDR_FAMILY, Policy::AtLeast(2)),
    (dst::STATS64, Policy::Nest),
    (dst::TUN_TYPE, Policy::AtLeast(1)),
    (dst::TUN_PORT, Policy::AtLeast(2)),
    (dst::TUN_FLAGS, Policy::AtLeast(2)),
];

/// A destination nest that has been read, its family not yet judged.
///
/// The family is looked at last, after what is missing, as the kernel does.
#[derive(Clone, Copy, Debug)]
pub struct DestAttrs<'a> {
    addr: [u8; 16],
    port: u16,
    table: Table<'a, 16>,
}

impl<'a> DestAttrs<'a> {
    /// Reads a nest that must hold address and port.
    pub fn parse(nest: Option<&'a [u8]>) -> Result<Self, Errno> {
        let nest = nest.ok_or(Errno::INVAL)?;
        let table = Table::parse(nest, POLICY).or(Err(Errno::INVAL))?;
        let addr = table.padded(dst::ADDR).ok_or(Errno::INVAL)?;
        let port = table.be16(dst::PORT).ok_or(Errno::INVAL)?;
        Ok(Self { addr, port, table })
    }

    /// The key of a destination of a service of family `service`.
    pub fn key(&self, service: Family) -> Result<DestKey, Errno> {
        let family = match self.table.u16(dst::ADDR_FAMILY) {
            None | Some(0) => service,
            Some(number) => family_of(number).ok_or(Errno::AFNOSUPPORT)?,
        };
        Ok(DestKey::new(family, addr_of(family, self.addr), self.port))
    }

    /// The configuration, all parts of which must be there but the tunnel's.
    pub fn spec(&self) -> Result<DestSpec, Errno> {
        let number = |number| self.table.u32(number).ok_or(Errno::INVAL);
        let [method, ..] = (number(dst::FWD_METHOD)? & 7).to_le_bytes();
        Ok(DestSpec {
            method,
            weight: number(dst::WEIGHT)?.cast_signed(),
            upper: number(dst::U_THRESH)?,
            lower: number(dst::L_THRESH)?,
            tunnel_type: self.table.u8(dst::TUN_TYPE).unwrap_or(0),
            tunnel_port: self.table.be16(dst::TUN_PORT).unwrap_or(0),
            tunnel_flags: self.table.u16(dst::TUN_FLAGS).unwrap_or(0),
            reserved: [0; 2],
        })
    }

    /// The status, as a reply has it.
    pub fn status(&self, service: Family) -> Result<DestStatus, Errno> {
        let count = |number| self.table.u32(number).unwrap_or(0);
        let (counters, rates) =
            stats::read(self.table.get(dst::STATS), self.table.get(dst::STATS64));
        Ok(DestStatus {
            key: self.key(service)?,
            spec: self.spec()?,
            active: count(dst::ACTIVE_CONNS),
            inactive: count(dst::INACT_CONNS),
            persistent: count(dst::PERSIST_CONNS),
            counters,
            rates,
        })
    }
}

/// Writes the attributes before the thresholds, in the order of a reply.
fn write_head(writer: &mut Writer, key: &DestKey, spec: &DestSpec) {
    writer.attr(dst::ADDR, &key.addr.octets());
    writer.be16(dst::PORT, key.port);
    writer.u32(dst::FWD_METHOD, u32::from(spec.method & 7));
    writer.u32(dst::WEIGHT, spec.weight.cast_unsigned());
    writer.u8(dst::TUN_TYPE, spec.tunnel_type);
    writer.be16(dst::TUN_PORT, spec.tunnel_port);
    writer.u16(dst::TUN_FLAGS, spec.tunnel_flags);
    writer.u32(dst::U_THRESH, spec.upper);
    writer.u32(dst::L_THRESH, spec.lower);
}

/// Writes the nest that names a destination.
pub fn write_key(writer: &mut Writer, key: &DestKey) {
    writer.nest(top::DEST, |writer| {
        writer.attr(dst::ADDR, &key.addr.octets());
        writer.be16(dst::PORT, key.port);
        writer.u16(dst::ADDR_FAMILY, number_of(key.family()));
    });
}

/// Writes the nest that names and configures a destination.
pub fn write_full(writer: &mut Writer, key: &DestKey, spec: &DestSpec) {
    writer.nest(top::DEST, |writer| {
        write_head(writer, key, spec);
        writer.u16(dst::ADDR_FAMILY, number_of(key.family()));
    });
}

/// Writes the nest that shows a destination.
pub fn write_status(writer: &mut Writer, status: &DestStatus) {
    writer.nest(top::DEST, |writer| {
        write_head(writer, &status.key, &status.spec);
        writer.u32(dst::ACTIVE_CONNS, status.active);
        writer.u32(dst::INACT_CONNS, status.inactive);
        writer.u32(dst::PERSIST_CONNS, status.persistent);
        writer.u16(dst::ADDR_FAMILY, number_of(status.key.family()));
        stats::write(writer, dst::STATS, dst::STATS64, &status.counters, &status.rates);
    });
}
