//! Counters of services and destinations.

use core::cell::Cell;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Totals since the service or destination was made, or since the zero point.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Counters {
    /// Connections scheduled.
    pub conns: u64,
    /// Packets from clients.
    pub in_packets: u64,
    /// Packets to clients, as far as they pass the director.
    pub out_packets: u64,
    /// IP octets from clients, as they came in.
    pub in_bytes: u64,
    /// IP octets to clients, as they left.
    pub out_bytes: u64,
}

impl Counters {
    /// Adds `other`, wrapping as the kernel's counters do.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            conns: self.conns.wrapping_add(other.conns),
            in_packets: self.in_packets.wrapping_add(other.in_packets),
            out_packets: self.out_packets.wrapping_add(other.out_packets),
            in_bytes: self.in_bytes.wrapping_add(other.in_bytes),
            out_bytes: self.out_bytes.wrapping_add(other.out_bytes),
        }
    }

    /// What has been counted since `zero`.
    #[must_use]
    pub const fn since(self, zero: Self) -> Self {
        Self {
            conns: self.conns.wrapping_sub(zero.conns),
            in_packets: self.in_packets.wrapping_sub(zero.in_packets),
            out_packets: self.out_packets.wrapping_sub(zero.out_packets),
            in_bytes: self.in_bytes.wrapping_sub(zero.in_bytes),
            out_bytes: self.out_bytes.wrapping_sub(zero.out_bytes),
        }
    }
}

/// Rates by the kernel's estimator, per second; bytes, not bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// New connections.
    pub conns: u64,
    /// Packets from clients.
    pub in_packets: u64,
    /// Packets to clients.
    pub out_packets: u64,
    /// Octets from clients.
    pub in_bytes: u64,
    /// Octets to clients.
    pub out_bytes: u64,
}

/// The counters of one destination as a packet adds to them.
///
/// Services and the total have none of their own: they are sums over
/// destinations, so a packet counts once.
#[derive(Debug, Default, FromBytes, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct LiveCounters {
    /// Connections scheduled.
    pub conns: Cell<u64>,
    /// Packets from clients.
    pub in_packets: Cell<u64>,
    /// Packets to clients.
    pub out_packets: Cell<u64>,
    /// IP octets from clients.
    pub in_bytes: Cell<u64>,
    /// IP octets to clients.
    pub out_bytes: Cell<u64>,
}

impl LiveCounters {
    /// Counts a new connection.
    #[inline(always)]
    pub fn count_conn(&self) {
        self.conns.set(self.conns.get().wrapping_add(1));
    }

    /// Counts a packet of `bytes` octets from the client.
    #[inline(always)]
    pub fn count_in(&self, bytes: u64) {
        self.in_packets.set(self.in_packets.get().wrapping_add(1));
        self.in_bytes.set(self.in_bytes.get().wrapping_add(bytes));
    }

    /// Counts a packet of `bytes` octets to the client.
    #[inline(always)]
    pub fn count_out(&self, bytes: u64) {
        self.out_packets.set(self.out_packets.get().wrapping_add(1));
        self.out_bytes.set(self.out_bytes.get().wrapping_add(bytes));
    }

    /// The values now.
    pub fn read(&self) -> Counters {
        Counters {
            conns: self.conns.get(),
            in_packets: self.in_packets.get(),
            out_packets: self.out_packets.get(),
            in_bytes: self.in_bytes.get(),
            out_bytes: self.out_bytes.get(),
        }
    }
}
