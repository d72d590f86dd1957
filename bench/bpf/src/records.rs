//! The records in the programs' maps.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::headers::Ip;

/// Octets of the longest header that the generator writes: Ethernet, IPv6, TCP.
pub const LONGEST: usize = 74;
/// Octets of a wrong frame that are kept: all headers of the longest tunnel.
pub const KEPT: usize = 126;
/// Equal parts that ranks of flows are drawn from where few flows have most packets.
pub const PARTS: u32 = 4096;
/// Flows that share a client address: they differ in the port.
const FLOWS_OF_CLIENT: u32 = 1024;
/// Port of a client's first flow.
const FIRST_PORT: u16 = 1024;

/// Each packet is of a flow at random, all alike.
pub const AT_RANDOM: u32 = 0;
/// One flow after the other.
pub const IN_ORDER: u32 = 1;
/// Each packet is of a flow at random, few of which have most packets.
pub const BY_RANK: u32 = 2;

/// What the generator sends.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Plan {
    /// Sum of the IP header without client and checksum, as it lies in memory.
    pub ip_sum: u32,
    /// The same of the TCP or UDP header with its pseudo header, without the client's port.
    pub sum: u32,
    /// Last word of the first client's address, as a number.
    pub clients: u32,
    /// The first flow.
    pub first: u32,
    /// How many flows.
    pub flows: u32,
    /// [`AT_RANDOM`], [`IN_ORDER`] or [`BY_RANK`].
    pub order: u32,
    /// Of 65536 packets, how many open a flow that there was not before, on average.
    pub fresh: u32,
    /// The first flow that is opened so.
    pub first_fresh: u32,
    /// [`Self::sum`] of a packet that opens a flow.
    pub opening_sum: u32,
    /// Octets of a frame that a program is to have, each time it runs.
    pub frame_len: u32,
    /// 1: it is UDP.
    pub udp: u32,
    /// Sequence number of a packet that opens a flow.
    pub sequence: u32,
    /// Frames start with these headers.
    pub headers: [u8; LONGEST],
    /// Zero.
    pub reserved: [u8; 2],
}

/// The packet to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Next {
    /// Its flow.
    pub flow: u32,
    /// It opens it, though the plan's headers do not.
    pub opens: bool,
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
    /// Flows opened besides.
    pub fresh: u32,
}

impl Cursor {
    /// The next packet. `rank` says where the part begins that is asked for: of as many flows as
    /// it says, those before have so many 4096ths of all packets.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "a share of 32 bits has no more")]
    pub fn step(&mut self, plan: &Plan, rank: impl Fn(u32) -> u32) -> Next {
        if plan.fresh != 0 && self.draw() >> 16 < plan.fresh {
            let flow = plan.first_fresh + self.fresh;
            self.fresh += 1;
            return Next { flow, opens: true };
        }
        let flow = match plan.order {
            IN_ORDER => {
                let flow = if self.next < plan.flows { self.next } else { 0 };
                self.next = flow + 1;
                flow
            }
            BY_RANK => {
                let random = self.draw();
                let part = random >> 20;
                let (begin, end) = (rank(part), rank(part + 1));
                let within = ((random & 0xf_ffff) as u64 * end.wrapping_sub(begin) as u64) >> 20;
                scattered(begin + within as u32, plan.flows)
            }
            _ => ((self.draw() as u64 * plan.flows as u64) >> 32) as u32,
        };
        Next { flow: plan.first + flow, opens: false }
    }

    /// Xorshift: a few instructions, where a call would be a tenth of the floor.
    #[inline(always)]
    fn draw(&mut self) -> u32 {
        let mut x = if self.random == 0 { 0x9e37_79b9 } else { self.random };
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        self.random = x;
        x
    }
}

/// The flow of this rank: those that have most packets are not neighbours, who would share
/// what the CPU fetches at once.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "it is less than flows")]
const fn scattered(rank: u32, flows: u32) -> u32 {
    // A prime beyond any number of flows: no two ranks have the same flow.
    const PRIME: u64 = 2_654_435_761;
    // Asked for, so that the compiler sees that nothing is divided by zero.
    if flows == 0 { 0 } else { (rank as u64 * PRIME % flows as u64) as u32 }
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
    /// Octets between outer and inner header: none, of gre or of gue.
    pub carrier_len: u32,
    /// The last four of them.
    pub carrier: [u8; 4],
    /// IANA protocol number of the outer header.
    pub outer: u32,
    /// Where the packet leads.
    pub to: Range,
    /// IANA protocol number of the packet.
    pub protocol: u32,
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
    use std::vec::Vec;

    use super::*;
    use zerocopy::FromZeros as _;

    fn plan(flows: u32, order: u32) -> Plan {
        Plan { flows, order, ..Plan::new_zeroed() }
    }

    fn flows(count: u32, plan: &Plan, rank: impl Fn(u32) -> u32) -> Vec<u32> {
        let mut cursor = Cursor::default();
        (0..count).map(|_| cursor.step(plan, &rank).flow).collect()
    }

    #[test]
    fn no_two_flows_have_the_same_client() {
        let clients: HashSet<_> = (0..100_000).map(client).collect();
        assert_eq!(clients.len(), 100_000);
    }

    #[test]
    fn flows_in_order_are_each_met_once() {
        assert_eq!(flows(7, &plan(3, IN_ORDER), |_| 0), [0, 1, 2, 0, 1, 2, 0]);
        let later = Plan { first: 10, ..plan(2, IN_ORDER) };
        assert_eq!(flows(3, &later, |_| 0), [10, 11, 10]);
    }

    #[test]
    fn flows_at_random_are_met_evenly() {
        let mut met = [0_u32; 10];
        for flow in flows(100_000, &plan(10, AT_RANDOM), |_| 0) {
            met[flow as usize] += 1;
        }
        assert!(met.iter().all(|count| (9_500..10_500).contains(count)), "{met:?}");
    }

    #[test]
    fn flows_of_a_part_are_met_as_often_as_it_says() {
        // Half of the packets are of the first rank, the others of the 999 behind it.
        let half = PARTS / 2;
        let rank = |part: u32| if part < half { 0 } else { 1 + (part - half) * 999 / half };
        let first = scattered(0, 1000);
        let met = flows(100_000, &plan(1000, BY_RANK), rank);
        let often = met.iter().filter(|flow| **flow == first).count();
        assert!((49_000..51_000).contains(&often), "{often}");
        assert!(met.iter().all(|flow| *flow < 1000));
    }

    #[test]
    fn every_rank_has_a_flow_of_its_own() {
        for flows in [1, 2, 1000, 65_536, 100_000] {
            let all: HashSet<_> = (0..flows).map(|rank| scattered(rank, flows)).collect();
            assert_eq!(all.len(), flows as usize, "{flows}");
        }
    }

    #[test]
    fn fresh_flows_are_opened_one_after_the_other() {
        let plan = Plan { fresh: 6554, first_fresh: 500, ..plan(10, AT_RANDOM) };
        let mut cursor = Cursor::default();
        let all: Vec<Next> = (0..10_000).map(|_| cursor.step(&plan, |_| 0)).collect();
        let mut fresh = all.iter().filter(|it| it.opens);
        assert!((900..1100).contains(&cursor.fresh), "{}", cursor.fresh);
        assert!((500..).zip(&mut fresh).all(|(flow, next)| next.flow == flow));
    }
}
