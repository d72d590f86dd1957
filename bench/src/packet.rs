//! Addresses of the rig, and the packets that are sent through it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipvs_bench_programs::headers::{Ethernet, Ip, Ipv4, Ipv6, TCP, Tcp, UDP};
use ipvs_bench_programs::records::{
    AT_RANDOM, BY_RANK, Expectation, IN_ORDER, LONGEST, PARTS, Plan, Range,
};
use ipvs_core::addr::{Addr, Family};
use ipvs_lab::{IpNet, MacAddr};
use ipvs_wire::checksum::Sum;
use zerocopy::byteorder::network_endian::{U16, U32};
use zerocopy::{FromBytes, FromZeros as _, Immutable, IntoBytes, KnownLayout, Unaligned};

/// How many destinations there are.
pub(crate) const DESTS: u32 = 4;
/// Port of the virtual service.
pub(crate) const PORT: u16 = 80;
/// Port of the destinations.
pub(crate) const DEST_PORT: u16 = 8080;
/// Port of tunnels by GUE.
pub(crate) const GUE_PORT: u16 = 6080;
/// Time to live of what is sent.
pub(crate) const TTL: u8 = 64;
/// Octets of a minimal Ethernet frame without its check sequence.
const MINIMAL_FRAME: usize = 60;
/// The client's first sequence number.
const SEQUENCE: u32 = 0x0200_0000;
/// The destination's, as the sink has it, and one on.
const ACKNOWLEDGED: u32 = 0x0100_0001;

/// The addresses of one family.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Addresses {
    /// Family.
    pub(crate) family: Family,
    /// Of the virtual service.
    pub(crate) vip: IpAddr,
    /// Of the host of all clients, towards the director.
    pub(crate) client_side: IpNet,
    /// Of the director towards the clients.
    pub(crate) director_outside: IpNet,
    /// Of the director towards the destinations.
    pub(crate) director_inside: IpNet,
    /// All clients.
    pub(crate) clients: IpNet,
}

impl Addresses {
    /// Those of the rig.
    pub(crate) fn of(family: Family) -> Self {
        match family {
            Family::V4 => Self {
                family,
                vip: IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)),
                client_side: v4([10, 1, 0, 1], 24),
                director_outside: v4([10, 1, 0, 254], 24),
                director_inside: v4([10, 2, 0, 254], 24),
                clients: v4([10, 64, 0, 0], 16),
            },
            Family::V6 => Self {
                family,
                vip: v6(0x100, 1).addr(),
                client_side: v6(1, 1),
                director_outside: v6(1, 254),
                director_inside: v6(2, 254),
                clients: v6(64, 0),
            },
        }
    }

    /// The network of one address.
    pub(crate) fn host(address: IpAddr) -> IpNet {
        IpNet::from(address)
    }

    /// Destination number `number`.
    pub(crate) fn dest(&self, number: u32) -> IpAddr {
        match self.director_inside.network() {
            IpAddr::V4(net) => IpAddr::V4((u32::from(net) + 16 + number).into()),
            IpAddr::V6(net) => IpAddr::V6((u128::from(net) + 16 + u128::from(number)).into()),
        }
    }

    /// All destinations, as the sink knows them.
    pub(crate) fn dests(&self) -> Range {
        range(self.dest(0), DESTS)
    }

    /// The virtual address, as the sink knows it.
    pub(crate) fn vip_only(&self) -> Range {
        range(self.vip, 1)
    }
}

const fn v4([a, b, c, d]: [u8; 4], prefix: u8) -> IpNet {
    IpNet::new_assert(IpAddr::V4(Ipv4Addr::new(a, b, c, d)), prefix)
}

const fn v6(net: u16, host: u16) -> IpNet {
    IpNet::new_assert(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, net, 0, 0, 0, host)), 64)
}

fn range(first: IpAddr, count: u32) -> Range {
    let (family, addr) = Addr::from_ip(first);
    match (family, addr.words()) {
        (Family::V4, [a, ..]) => Range { high: [0; 3], first: u32::from_be(a), count },
        (Family::V6, [a, b, c, d]) => Range { high: [a, b, c], first: u32::from_be(d), count },
    }
}

/// What a packet is to its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It opens it.
    Open,
    /// It belongs to it.
    Established,
}

/// In which order flows are met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Each packet is of any of them.
    Random,
    /// One after the other.
    Sequence,
    /// Each packet is of any of them, by Zipf's law: the second has half as many as the first,
    /// the third a third.
    Zipf,
}

/// What is sent to the virtual service.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Traffic {
    /// What packets are to their connections.
    pub(crate) phase: Phase,
    /// The first flow.
    pub(crate) first: u32,
    /// How many flows.
    pub(crate) flows: u32,
    /// Whose turn it is.
    pub(crate) order: Order,
    /// Of 65536 packets, how many open another connection; and the first flow of those.
    pub(crate) fresh: Option<(u32, u32)>,
    /// Octets of a frame, without its check sequence.
    pub(crate) length: usize,
    /// UDP instead of TCP.
    pub(crate) udp: bool,
}

impl Traffic {
    /// TCP of as many flows in the shortest frames.
    pub(crate) const fn new(family: Family, phase: Phase, flows: u32, order: Order) -> Self {
        let length = frame_len(family);
        Self { phase, first: 0, flows, order, fresh: None, length, udp: false }
    }

    /// Octets of a frame that ends with the header of TCP or UDP.
    pub(crate) const fn unpadded(&self, family: Family) -> usize {
        let ip = match family {
            Family::V4 => size_of::<Ipv4>(),
            Family::V6 => size_of::<Ipv6>(),
        };
        size_of::<Ethernet>() + ip + self.transport_len()
    }

    /// Octets behind the header of TCP or UDP.
    fn payload(&self, family: Family) -> u16 {
        let headers = self.unpadded(family);
        // The shortest frame of TCP is filled up behind the datagram.
        let padded = self.length == MINIMAL_FRAME && !self.udp;
        let payload = if padded { 0 } else { self.length.saturating_sub(headers) };
        u16::try_from(payload).unwrap_or(u16::MAX)
    }

    const fn transport_len(&self) -> usize {
        if self.udp { UDP_LEN } else { size_of::<Tcp>() }
    }
}

/// Octets of a UDP header.
const UDP_LEN: usize = 8;

/// Plans packets from many clients to the virtual service.
pub(crate) fn plan(
    addresses: &Addresses,
    [source, destination]: [MacAddr; 2],
    traffic: &Traffic,
) -> Plan {
    let (_, vip) = Addr::from_ip(addresses.vip);
    let (_, first) = Addr::from_ip(addresses.clients.network());
    let ([va, vb, vc, vd], [ca, cb, cc, cd]) = (vip.words(), first.words());
    let number = |word: u32| U32::new(u32::from_be(word));
    let payload = traffic.payload(addresses.family);
    let len = u16::try_from(traffic.transport_len()).unwrap_or(0).saturating_add(payload);
    let protocol = if traffic.udp { UDP } else { TCP };
    let opening = tcp(Phase::Open);
    let udp = Udp {
        source: U16::ZERO,
        destination: U16::new(PORT),
        len: U16::new(len),
        checksum: U16::ZERO,
    };
    let sums = |pseudo: Sum| {
        let transport =
            if traffic.udp { Sum::ZERO.octets(udp.as_bytes()) } else { tcp(traffic.phase).sum() };
        let whole = |header: Sum| u32::from(header.add16(pseudo.fold()).add16(len.to_be()).fold());
        (whole(transport), whole(opening.sum()))
    };
    let (fresh, first_fresh) = traffic.fresh.unwrap_or_default();
    let mut plan = Plan {
        first: traffic.first,
        flows: traffic.flows,
        order: match traffic.order {
            Order::Random => AT_RANDOM,
            Order::Sequence => IN_ORDER,
            Order::Zipf => BY_RANK,
        },
        fresh,
        first_fresh,
        frame_len: u32::try_from(traffic.length).unwrap_or(0),
        udp: u32::from(traffic.udp),
        sequence: SEQUENCE,
        ..Plan::new_zeroed()
    };
    let ethernet =
        |kind| Ethernet { destination: destination.0, source: source.0, kind: U16::new(kind) };
    let transport =
        if traffic.udp { udp.as_bytes().to_vec() } else { tcp(traffic.phase).as_bytes().to_vec() };
    let headers = match addresses.family {
        Family::V4 => {
            let ip = Ipv4 {
                version: 0x45,
                tos: 0,
                total_len: U16::new(len.saturating_add(20)),
                id: U16::ZERO,
                fragment: U16::new(0x4000), // may not be cut
                ttl: TTL,
                protocol,
                checksum: [0; 2],
                source: U32::ZERO,
                destination: number(va),
            };
            plan.clients = u32::from_be(ca);
            plan.ip_sum = u32::from(Sum::ZERO.octets(ip.as_bytes()).fold());
            (plan.sum, plan.opening_sum) = sums(ip.pseudo_sum());
            [ethernet(Ipv4::ETHERTYPE).as_bytes(), ip.as_bytes(), &transport].concat()
        }
        Family::V6 => {
            let ip = Ipv6 {
                version: U32::new(6 << 28),
                payload_len: U16::new(len),
                next: protocol,
                hop_limit: TTL,
                source: [number(ca), number(cb), number(cc), U32::ZERO],
                destination: [number(va), number(vb), number(vc), number(vd)],
            };
            plan.clients = u32::from_be(cd);
            (plan.sum, plan.opening_sum) = sums(ip.pseudo_sum());
            [ethernet(Ipv6::ETHERTYPE).as_bytes(), ip.as_bytes(), &transport].concat()
        }
    };
    for (place, octet) in plan.headers.iter_mut().zip(headers) {
        *place = octet;
    }
    plan
}

/// A UDP header.
#[derive(Clone, Copy, IntoBytes, Immutable)]
#[repr(C)]
struct Udp {
    source: U16,
    destination: U16,
    len: U16,
    checksum: U16,
}

fn tcp(phase: Phase) -> Tcp {
    let opens = phase == Phase::Open;
    Tcp {
        source: U16::ZERO,
        destination: U16::new(PORT),
        sequence: U32::new(if opens { SEQUENCE } else { SEQUENCE + 1 }),
        acknowledgement: U32::new(if opens { 0 } else { ACKNOWLEDGED }),
        offset: 5 << 4,
        flags: if opens { Tcp::SYN } else { Tcp::ACK },
        window: U16::new(0xffff),
        checksum: [0; 2],
        urgent: U16::ZERO,
    }
}

/// Where each part of all packets begins, in ranks of flows, by Zipf's law.
pub(crate) fn ranks(flows: u32) -> Vec<u32> {
    let share = |rank: u32| 1.0 / f64::from(rank + 1);
    let all: f64 = (0..flows).map(share).sum();
    let (mut rank, mut before) = (0, 0.0);
    let begin = |part: u32| {
        let wanted = all * f64::from(part) / f64::from(PARTS);
        while rank < flows && before + share(rank) <= wanted {
            before += share(rank);
            rank += 1;
        }
        rank
    };
    let mut begins: Vec<u32> = (0..PARTS).map(begin).collect();
    begins.push(flows);
    begins
}

/// Whether a frame is what the sink would take for right; said of one that never got there.
pub(crate) fn is_right(expectation: &Expectation, frame: &[u8], family: Family) -> bool {
    match family {
        Family::V4 => is_right_of::<Ipv4>(expectation, frame),
        Family::V6 => is_right_of::<Ipv6>(expectation, frame),
    }
}

fn is_right_of<I: Ip + FromBytes + KnownLayout + Immutable + Unaligned>(
    expectation: &Expectation,
    frame: &[u8],
) -> bool {
    let judge = || {
        let (ethernet, mut rest) = Ethernet::ref_from_prefix(frame).ok()?;
        let mut right = ethernet.kind.get() == I::ETHERTYPE;
        if expectation.tunnel.count != 0 {
            let (outer, inner) = I::ref_from_prefix(rest).ok()?;
            let carrier = usize::try_from(expectation.carrier_len).ok()?;
            let (carrier, inner) = inner.split_at_checked(carrier)?;
            right &= u32::from(outer.protocol()) == expectation.outer
                && u32::from(outer.ttl()) == expectation.ttl
                && expectation.tunnel.takes(outer)
                && carrier.last_chunk().is_none_or(|last| *last == expectation.carrier);
            rest = inner;
        }
        let (ip, rest) = I::ref_from_prefix(rest).ok()?;
        let (tcp, _) = Tcp::ref_from_prefix(rest).ok()?;
        right &= u32::from(ip.protocol()) == expectation.protocol
            && u32::from(ip.ttl()) == expectation.ttl
            && expectation.to.takes(ip)
            && u32::from(tcp.destination.get()) == expectation.port;
        Some(right)
    };
    judge().unwrap_or(false)
}

/// Octets of the shortest frame of this family.
pub(crate) const fn frame_len(family: Family) -> usize {
    match family {
        Family::V4 => MINIMAL_FRAME,
        Family::V6 => LONGEST,
    }
}

#[cfg(test)]
mod tests {
    use ipvs_bench_programs::records::client;

    use super::*;

    /// Writes the client in as the generator does, and looks at all sums anew.
    fn is_sound<I: Ip + FromBytes + KnownLayout + Immutable>(plan: &Plan, flow: u32) -> bool {
        let (_, rest) = Ethernet::read_from_prefix(&plan.headers).unwrap();
        let (mut ip, rest) = I::read_from_prefix(rest).unwrap();
        let (offset, port) = client(flow);
        let address = plan.clients + offset;
        ip.set_client(address, Sum::ZERO.add32(plan.ip_sum));
        let sum = Sum::ZERO.add32(plan.sum).add32(address.to_be()).add16(port.to_be());
        let len = if plan.udp == 0 { 20 } else { 8 };
        let mut transport = rest[..len].to_vec();
        transport[..2].copy_from_slice(&port.to_be_bytes());
        let at = if plan.udp == 0 { 16 } else { 6 };
        transport[at..at + 2].copy_from_slice(&sum.checksum().to_ne_bytes());
        let whole = Sum::ZERO.octets(&transport).add16(ip.pseudo_sum().fold());
        ip.is_sound() && whole.add16(ip.payload_len().to_be()).checksum() == 0
    }

    #[test]
    fn checksums_of_every_flow_are_right() {
        let macs = [MacAddr::local(1, 1), MacAddr::local(1, 2)];
        for phase in [Phase::Open, Phase::Established] {
            for (udp, longer) in [(false, 0), (false, 1000), (true, 0), (true, 1000)] {
                let [v4, v6] = [Family::V4, Family::V6].map(|family| {
                    let traffic = Traffic::new(family, phase, 100_000, Order::Random);
                    let length = traffic.length + longer;
                    plan(&Addresses::of(family), macs, &Traffic { length, udp, ..traffic })
                });
                for flow in [0, 1, 1023, 1024, 99_999] {
                    assert!(is_sound::<Ipv4>(&v4, flow), "{phase:?} {udp} {longer} {flow}");
                    assert!(is_sound::<Ipv6>(&v6, flow), "{phase:?} {udp} {longer} {flow}");
                }
            }
        }
    }

    #[test]
    fn a_packet_that_opens_has_the_sum_of_a_plan_that_opens() {
        let macs = [MacAddr::local(1, 1), MacAddr::local(1, 2)];
        let [open, established] = [Phase::Open, Phase::Established].map(|phase| {
            plan(
                &Addresses::of(Family::V4),
                macs,
                &Traffic::new(Family::V4, phase, 1, Order::Random),
            )
        });
        assert_eq!(established.opening_sum, open.sum);
        assert_ne!(established.sum, open.sum);
    }

    #[test]
    fn by_zipfs_law_the_first_has_twice_as_many_as_the_second() {
        let ranks = ranks(1000);
        assert_eq!(ranks.len(), PARTS as usize + 1);
        let parts = |rank| ranks.iter().filter(|it| **it == rank).count();
        // 1 / (1 + 1/2 + … + 1/1000) of 4096 parts.
        assert!((545..550).contains(&parts(0)), "{}", parts(0));
        assert!((270..276).contains(&parts(1)), "{}", parts(1));
        assert_eq!(ranks.last(), Some(&1000));
    }

    #[test]
    fn the_addresses_are_what_they_are_called() {
        for family in [Family::V4, Family::V6] {
            let addresses = Addresses::of(family);
            assert_eq!(Addr::from_ip(addresses.vip).0, family);
            for net in [addresses.client_side, addresses.director_outside, addresses.clients] {
                assert_eq!(Addr::from_ip(net.addr()).0, family, "{net}");
            }
            assert!(addresses.director_inside.contains(&addresses.dest(DESTS - 1)));
            assert!(!addresses.director_inside.contains(&addresses.vip));
        }
    }
}
