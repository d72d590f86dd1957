//! Numbers of the interface: commands, attributes and limits of the families.

/// Name of the kernel's family.
pub const FAMILY_NAME: &str = "IPVS";
/// Version of the kernel's family, in each message's generic header.
pub const FAMILY_VERSION: u8 = 1;
/// Message type of the kernel's family as [`serve`](crate::serve) gives it;
/// clients must ask the controller, since a kernel chooses its own.
pub const FAMILY_ID: u16 = 0x20;
/// Highest top-level attribute of the kernel's family.
pub const FAMILY_MAX_ATTR: u16 = 6;

/// The version of IPVS that this director is compatible with, 1.2.1, as
/// `major << 16 | minor << 8 | patch`.
pub const IPVS_VERSION: u32 = 0x01_02_01;

/// The longest timeout that `SET_CONFIG` takes, in seconds: `INT_MAX` ticks of
/// a kernel with 250 ticks a second.
pub const MAX_TIMEOUT_SECS: u32 = i32::MAX as u32 / 250;

/// `AF_INET` on the wire.
pub const AF_INET: u16 = 2;
/// `AF_INET6` on the wire.
pub const AF_INET6: u16 = 10;

/// Commands of the kernel's family.
pub mod command {
    #![expect(missing_docs, reason = "the names are the interface's own; docs/netlink.md explains")]
    pub const NEW_SERVICE: u8 = 1;
    pub const SET_SERVICE: u8 = 2;
    pub const DEL_SERVICE: u8 = 3;
    pub const GET_SERVICE: u8 = 4;
    pub const NEW_DEST: u8 = 5;
    pub const SET_DEST: u8 = 6;
    pub const DEL_DEST: u8 = 7;
    pub const GET_DEST: u8 = 8;
    pub const NEW_DAEMON: u8 = 9;
    pub const DEL_DAEMON: u8 = 10;
    pub const GET_DAEMON: u8 = 11;
    pub const SET_CONFIG: u8 = 12;
    pub const GET_CONFIG: u8 = 13;
    pub const SET_INFO: u8 = 14;
    pub const GET_INFO: u8 = 15;
    pub const ZERO: u8 = 16;
    pub const FLUSH: u8 = 17;
}

/// Top-level attributes of the kernel's family.
pub mod top {
    #![expect(missing_docs, reason = "the names are the interface's own; docs/netlink.md explains")]
    pub const SERVICE: u16 = 1;
    pub const DEST: u16 = 2;
    pub const DAEMON: u16 = 3;
    pub const TIMEOUT_TCP: u16 = 4;
    pub const TIMEOUT_TCP_FIN: u16 = 5;
    pub const TIMEOUT_UDP: u16 = 6;
}

/// Top-level attributes of the answer to `GET_INFO`.
pub mod info {
    #![expect(missing_docs, reason = "the names are the interface's own; docs/netlink.md explains")]
    pub const VERSION: u16 = 1;
    pub const CONN_TAB_SIZE: u16 = 2;
}

/// Attributes of a service.
pub mod svc {
    #![expect(missing_docs, reason = "the names are the interface's own; docs/netlink.md explains")]
    pub const AF: u16 = 1;
    pub const PROTOCOL: u16 = 2;
    pub const ADDR: u16 = 3;
    pub const PORT: u16 = 4;
    pub const FWMARK: u16 = 5;
    pub const SCHED_NAME: u16 = 6;
    pub const FLAGS: u16 = 7;
    pub const TIMEOUT: u16 = 8;
    pub const NETMASK: u16 = 9;
    pub const STATS: u16 = 10;
    pub const PE_NAME: u16 = 11;
    pub const STATS64: u16 = 12;
}

/// Attributes of a destination.
pub mod dst {
    #![expect(missing_docs, reason = "the names are the interface's own; docs/netlink.md explains")]
    pub const ADDR: u16 = 1;
    pub const PORT: u16 = 2;
    pub const FWD_METHOD: u16 = 3;
    pub const WEIGHT: u16 = 4;
    pub const U_THRESH: u16 = 5;
    pub const L_THRESH: u16 = 6;
    pub const ACTIVE_CONNS: u16 = 7;
    pub const INACT_CONNS: u16 = 8;
    pub const PERSIST_CONNS: u16 = 9;
    pub const STATS: u16 = 10;
    pub const ADDR_FAMILY: u16 = 11;
    pub const STATS64: u16 = 12;
    pub const TUN_TYPE: u16 = 13;
    pub const TUN_PORT: u16 = 14;
    pub const TUN_FLAGS: u16 = 15;
}

/// Attributes of a sync daemon.
pub mod daemon {
    #![expect(missing_docs, reason = "the names are the interface's own; docs/netlink.md explains")]
    pub const STATE: u16 = 1;
    pub const MCAST_IFN: u16 = 2;
    pub const SYNC_ID: u16 = 3;
    pub const SYNC_MAXLEN: u16 = 4;
    pub const MCAST_GROUP: u16 = 5;
    pub const MCAST_GROUP6: u16 = 6;
    pub const MCAST_PORT: u16 = 7;
    pub const MCAST_TTL: u16 = 8;
}

/// Attributes of `STATS` and `STATS64`.
pub mod stats {
    #![expect(missing_docs, reason = "the names are the interface's own; docs/netlink.md explains")]
    pub const CONNS: u16 = 1;
    pub const IN_PKTS: u16 = 2;
    pub const OUT_PKTS: u16 = 3;
    pub const IN_BYTES: u16 = 4;
    pub const OUT_BYTES: u16 = 5;
    pub const CPS: u16 = 6;
    pub const IN_PPS: u16 = 7;
    pub const OUT_PPS: u16 = 8;
    pub const IN_BPS: u16 = 9;
    pub const OUT_BPS: u16 = 10;
}
