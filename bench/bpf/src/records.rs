//! The records in the programs' maps.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::headers::Ip;

/// Octets of the longest header that the generator writes: Ethernet, IPv6, TCP.
pub const LONGEST: usize = 74;
/// Octets of a wrong frame that are kept: all headers of the longest tunnel.
pub const KEPT: usize = 114;
/// Flows that share a client address: they differ in the port.
const FLOWS_OF_CLIENT: u32 = 1024;
/// Port of a client's first flow.
const FIRST_PORT: u16 = 1024;

/// What the generator sends.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Plan {
    /// Sum of the IP header without client and checksum, as it lies in memory.
    pub ip_sum: u32,
    /// The same of the TCP header with its pseudo header, without the client's port.
    pub tcp_sum: u32,
    /// Last word of the first client's address, as a number.
    pub clients: u32,
    /// How many flows.
    pub flows: u32,
    /// 0: each packet is of a flow at random. 1: one flow after the other.
    pub in_order: u32,
    /// Frames start with these headers.
    pub headers: [u8; LONGEST],
    /// Zero.
    pub reserved: [u8; 2],
}

/// The client of `flow`: what it adds to the first client's address, and its port.
#[inline(always)]
pub const fn client(flow: u32) -> (u32, u16) {
    (flow / FLOWS_OF_CLIENT, FIRST_PORT + (flow % FLOWS_OF_CLIENT) as u16)
}

/// Where a CPU's generator stands.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Cursor {
    /// State of the random numbers; never zero once it has started.
    pub random: u32,
    /// The next flow where they are sent in order.
    pub next: u32,
}

impl Cursor {
    /// The flow of the next packet.
    #[inline(always)]
    pub const fn step(&mut self, plan: &Plan) -> u32 {
        if plan.in_order != 0 {
            let flow = if self.next < plan.flows { self.next } else { 0 };
            self.next = flow + 1;
            return flow;
        }
        // Xorshift: a few instructions, where a call would be a tenth of the floor.
        let mut x = if self.random == 0 { 0x9e37_79b9 } else { self.random };
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        self.random = x;
        ((x as u64 * plan.flows as u64) >> 32) as u32
    }
}

/// Addresses in a row.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Range {
    /// The first three words of IPv6, as they lie in memory; zero for IPv4.
    pub high: [u32; 3],
    /// The last word of the first, as a number.
    pub first: u32,
    /// How many.
    pub count: u32,
}

impl Range {
    /// Whether the packet is sent to one of them.
    #[inline(always)]
    pub fn takes<I: Ip>(&self, ip: &I) -> bool {
        let (high, low) = ip.destination();
        let differing =
            high.into_iter().zip(self.high).fold(0, |all, (one, other)| all | (one ^ other));
        differing == 0 && low.wrapping_sub(self.first) < self.count
    }
}

/// What the sink takes for right.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Expectation {
    /// Where the outer header of a tunnel leads; none is expected if empty.
    pub tunnel: Range,
    /// Where the packet leads.
    pub to: Range,
    /// Its port.
    pub port: u32,
    /// Its time to live, and that of the outer header.
    pub ttl: u32,
    /// 1: look at checksums, too.
    pub thorough: u32,
    /// 1: answer what opens a connection.
    pub answers: u32,
}

/// What came in, on one CPU.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Counts {
    /// As expected.
    pub right: u64,
    /// Of the bench, but not as expected.
    pub wrong: u64,
    /// What hosts say among themselves: ARP and the like.
    pub other: u64,
}

impl Counts {
    /// Adds up.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            right: self.right + other.right,
            wrong: self.wrong + other.wrong,
            other: self.other + other.other,
        }
    }

    /// What was counted since `earlier`.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Self {
        Self {
            right: self.right.wrapping_sub(earlier.right),
            wrong: self.wrong.wrapping_sub(earlier.wrong),
            other: self.other.wrapping_sub(earlier.other),
        }
    }
}

/// Where the floor sends what it gets.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Floor {
    /// Interface.
    pub ifindex: u32,
    /// MAC addresses of neighbour and interface, as they lie in memory: in
    /// words, which are copied as such.
    pub addresses: [u32; 3],
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::collections::HashSet;

    use super::*;
    use zerocopy::FromZeros as _;

    fn plan(flows: u32, in_order: u32) -> Plan {
        Plan { flows, in_order, ..Plan::new_zeroed() }
    }

    #[test]
    fn no_two_flows_have_the_same_client() {
        let clients: HashSet<_> = (0..100_000).map(client).collect();
        assert_eq!(clients.len(), 100_000);
    }

    #[test]
    fn flows_in_order_are_each_met_once() {
        let mut cursor = Cursor::default();
        let plan = plan(3, 1);
        assert_eq!([(); 7].map(|()| cursor.step(&plan)), [0, 1, 2, 0, 1, 2, 0]);
    }

    #[test]
    fn flows_at_random_are_met_evenly() {
        let mut cursor = Cursor::default();
        let plan = plan(10, 0);
        let mut met = [0_u32; 10];
        for _ in 0..100_000 {
            met[cursor.step(&plan) as usize] += 1;
        }
        assert!(met.iter().all(|count| (9_500..10_500).contains(count)), "{met:?}");
    }
}
