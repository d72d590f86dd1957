//! A sync daemon as attributes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipvs_core::name::Name;
pub use ipvs_core::sync::{SyncDaemon, SyncState};
use rustix::io::Errno;

use crate::attr::{Policy, Table, Writer};
use crate::numbers::{daemon as n, top};

const POLICY: &[(u16, Policy)] = &[
    (n::STATE, Policy::AtLeast(4)),
    (n::MCAST_IFN, Policy::Text(15)),
    (n::SYNC_ID, Policy::AtLeast(4)),
    (n::SYNC_MAXLEN, Policy::AtLeast(2)),
    (n::MCAST_GROUP, Policy::AtLeast(4)),
    (n::MCAST_GROUP6, Policy::AtLeast(16)),
    (n::MCAST_PORT, Policy::AtLeast(2)),
    (n::MCAST_TTL, Policy::AtLeast(1)),
];

/// A daemon nest that has been read.
#[derive(Clone, Copy, Debug)]
pub struct DaemonAttrs<'a> {
    table: Table<'a, 9>,
}

impl<'a> DaemonAttrs<'a> {
    /// Reads the nest.
    pub fn parse(nest: Option<&'a [u8]>) -> Result<Self, Errno> {
        let nest = nest.ok_or(Errno::INVAL)?;
        Ok(Self { table: Table::parse(nest, POLICY).or(Err(Errno::INVAL))? })
    }

    /// The number of the state, all that stopping one needs.
    pub fn state(&self) -> Result<u32, Errno> {
        self.table.u32(n::STATE).ok_or(Errno::INVAL)
    }

    /// The parameters, of which state, interface and id must be there, and the
    /// group must be multicast.
    pub fn daemon(&self) -> Result<SyncDaemon, Errno> {
        let state = self.state()?;
        let interface = self.table.text(n::MCAST_IFN).ok_or(Errno::INVAL)?;
        let sync_id = self.table.u32(n::SYNC_ID).ok_or(Errno::INVAL)?;
        let v4 = self.table.array::<4>(n::MCAST_GROUP).map(|octets| Ipv4Addr::from(octets).into());
        let v6 = || self.table.array::<16>(n::MCAST_GROUP6).map(|o| Ipv6Addr::from(o).into());
        let group: Option<IpAddr> = v4.or_else(v6);
        if group.is_some_and(|group| !group.is_multicast()) {
            return Err(Errno::INVAL);
        }
        Ok(SyncDaemon {
            state,
            interface: Name::truncated(interface),
            sync_id,
            max_len: self.table.u16(n::SYNC_MAXLEN).unwrap_or(0),
            group,
            port: self.table.u16(n::MCAST_PORT).unwrap_or(0),
            ttl: self.table.u8(n::MCAST_TTL).unwrap_or(0),
        })
    }
}

/// Writes the nest of a daemon that runs or is to run.
pub fn write(writer: &mut Writer, daemon: &SyncDaemon) {
    writer.nest(top::DAEMON, |writer| {
        writer.u32(n::STATE, daemon.state);
        writer.text(n::MCAST_IFN, daemon.interface.as_bytes());
        writer.u32(n::SYNC_ID, daemon.sync_id);
        writer.u16(n::SYNC_MAXLEN, daemon.max_len);
        writer.u16(n::MCAST_PORT, daemon.port);
        writer.u8(n::MCAST_TTL, daemon.ttl);
        match daemon.group {
            Some(IpAddr::V4(group)) => writer.attr(n::MCAST_GROUP, &group.octets()),
            Some(IpAddr::V6(group)) => writer.attr(n::MCAST_GROUP6, &group.octets()),
            None => {}
        }
    });
}

/// Writes the nest that names the daemon to stop.
pub fn write_state(writer: &mut Writer, state: SyncState) {
    writer.nest(top::DAEMON, |writer| writer.u32(n::STATE, state.number()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_reads_as_written() {
        let groups = ["224.0.0.81", "ff02::99"].map(|group| group.parse().ok());
        for group in [None, groups[0], groups[1]] {
            let daemon = SyncDaemon {
                state: 1,
                interface: "eth0".into(),
                sync_id: 300,
                max_len: 1472,
                group,
                port: 8848,
                ttl: 1,
            };
            let mut writer = Writer::new();
            write(&mut writer, &daemon);
            let nest = crate::attr::Attrs(writer.bytes()).next().map(|(_, nest)| nest);
            assert_eq!(DaemonAttrs::parse(nest).unwrap().daemon(), Ok(daemon));
        }
    }

    #[test]
    fn a_group_that_is_not_multicast_is_refused() {
        let mut writer = Writer::new();
        writer.u32(n::STATE, 1);
        writer.text(n::MCAST_IFN, b"eth0");
        writer.u32(n::SYNC_ID, 0);
        writer.attr(n::MCAST_GROUP, &[10, 0, 0, 1]);
        let attrs = DaemonAttrs::parse(Some(writer.bytes())).unwrap();
        assert_eq!(attrs.daemon(), Err(Errno::INVAL));
    }
}
