//! The daemons of connection synchronisation, as they are configured.

use core::net::{IpAddr, Ipv4Addr};

use crate::name::Name;

/// Which half of connection synchronisation a daemon is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncState {
    /// Sends its connections.
    Master,
    /// Takes those of a master.
    Backup,
}

impl SyncState {
    /// The state with this number on the wire.
    pub const fn from_number(number: u32) -> Option<Self> {
        match number {
            1 => Some(Self::Master),
            2 => Some(Self::Backup),
            _ => None,
        }
    }

    /// Its number on the wire.
    pub const fn number(self) -> u32 {
        match self {
            Self::Master => 1,
            Self::Backup => 2,
        }
    }
}

/// The parameters of a sync daemon. 0 and `None` leave the choice to the
/// director; an answer leaves out what the director does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyncDaemon {
    /// Number of the state, which may be none.
    pub state: u32,
    /// Interface that it sends or listens on.
    pub interface: Name,
    /// Only its low octet counts.
    pub sync_id: u32,
    /// Longest payload of a message, in octets.
    pub max_len: u16,
    /// Multicast group.
    pub group: Option<IpAddr>,
    /// UDP port.
    pub port: u16,
    /// TTL or hop limit.
    pub ttl: u8,
}

/// The group unless another is given.
const GROUP: IpAddr = IpAddr::V4(Ipv4Addr::new(224, 0, 0, 81));
/// The port unless another is given.
const PORT: u16 = 8848;
/// A master's packets are as long, unless told otherwise, whatever its interface takes.
const USUAL_MTU: u32 = 1500;
/// A backup's buffer is no shorter, whatever it is told.
const LEAST_OF_BACKUP: u32 = 1024;

impl SyncDaemon {
    /// What runs where this was asked for, on an interface with this MTU: what
    /// was left open is filled in as Linux 6.1 does, and what is out of range moved into it.
    #[must_use]
    pub fn completed(self, mtu: u32) -> Self {
        let group = self.group.unwrap_or(GROUP);
        // The headers of IP and UDP.
        let headers = if group.is_ipv4() { 28 } else { 48 };
        let longest = 65_535 - headers;
        let is_master = self.state == SyncState::Master.number();
        let max_len = match (u32::from(self.max_len), is_master) {
            (0, true) => USUAL_MTU - headers,
            (0, false) => mtu.clamp(USUAL_MTU, 65_535) - headers,
            (given, true) => given.min(longest),
            (given, false) => given.clamp(LEAST_OF_BACKUP, longest),
        };
        Self {
            group: Some(group),
            max_len: u16::try_from(max_len).unwrap_or(u16::MAX),
            port: if self.port == 0 { PORT } else { self.port },
            ttl: self.ttl.max(1),
            ..self
        }
    }
}
