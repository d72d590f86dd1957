//! Addresses of the rig, and the packets that are sent through it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipvs_bench_programs::headers::{Ethernet, Ip, Ipv4, Ipv6, TCP, Tcp};
use ipvs_bench_programs::records::{LONGEST, Plan, Range};
use ipvs_core::addr::{Addr, Family};
use ipvs_lab::{IpNet, MacAddr};
use ipvs_wire::checksum::Sum;
use zerocopy::byteorder::network_endian::{U16, U32};
use zerocopy::{FromZeros as _, IntoBytes as _};

/// How many destinations there are.
pub(crate) const DESTS: u32 = 4;
/// Port of the virtual service.
pub(crate) const PORT: u16 = 80;
/// Port of the destinations.
pub(crate) const DEST_PORT: u16 = 8080;
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
}

/// Plans packets from `flows` clients to the virtual service.
pub(crate) fn plan(
    addresses: &Addresses,
    [source, destination]: [MacAddr; 2],
    phase: Phase,
    flows: u32,
    order: Order,
) -> Plan {
    let (_, vip) = Addr::from_ip(addresses.vip);
    let (_, first) = Addr::from_ip(addresses.clients.network());
    let ([va, vb, vc, vd], [ca, cb, cc, cd]) = (vip.words(), first.words());
    let number = |word: u32| U32::new(u32::from_be(word));
    let tcp = Tcp {
        source: U16::ZERO,
        destination: U16::new(PORT),
        sequence: U32::new(if phase == Phase::Open { SEQUENCE } else { SEQUENCE + 1 }),
        acknowledgement: U32::new(if phase == Phase::Open { 0 } else { ACKNOWLEDGED }),
        offset: 5 << 4,
        flags: if phase == Phase::Open { Tcp::SYN } else { Tcp::ACK },
        window: U16::new(0xffff),
        checksum: [0; 2],
        urgent: U16::ZERO,
    };
    let tcp_len = u16::try_from(size_of::<Tcp>()).unwrap_or(0);
    let tcp_sum = |pseudo: Sum| {
        let sum = tcp.sum().add16(pseudo.fold()).add16(tcp_len.to_be());
        u32::from(sum.fold())
    };
    let mut plan =
        Plan { flows, in_order: u32::from(order == Order::Sequence), ..Plan::new_zeroed() };
    let ethernet =
        |kind| Ethernet { destination: destination.0, source: source.0, kind: U16::new(kind) };
    let headers = match addresses.family {
        Family::V4 => {
            let ip = Ipv4 {
                version: 0x45,
                tos: 0,
                total_len: U16::new(20 + tcp_len),
                id: U16::ZERO,
                fragment: U16::new(0x4000), // may not be cut
                ttl: TTL,
                protocol: TCP,
                checksum: [0; 2],
                source: U32::ZERO,
                destination: number(va),
            };
            plan.clients = u32::from_be(ca);
            plan.ip_sum = u32::from(Sum::ZERO.octets(ip.as_bytes()).fold());
            plan.tcp_sum = tcp_sum(ip.pseudo_sum());
            [ethernet(Ipv4::ETHERTYPE).as_bytes(), ip.as_bytes(), tcp.as_bytes()].concat()
        }
        Family::V6 => {
            let ip = Ipv6 {
                version: U32::new(6 << 28),
                payload_len: U16::new(tcp_len),
                next: TCP,
                hop_limit: TTL,
                source: [number(ca), number(cb), number(cc), U32::ZERO],
                destination: [number(va), number(vb), number(vc), number(vd)],
            };
            plan.clients = u32::from_be(cd);
            plan.tcp_sum = tcp_sum(ip.pseudo_sum());
            [ethernet(Ipv6::ETHERTYPE).as_bytes(), ip.as_bytes(), tcp.as_bytes()].concat()
        }
    };
    for (place, octet) in plan.headers.iter_mut().zip(headers) {
        *place = octet;
    }
    plan
}

/// Octets of a frame of this family.
pub(crate) fn frame_len(family: Family) -> usize {
    match family {
        Family::V4 => MINIMAL_FRAME,
        Family::V6 => LONGEST,
    }
}

#[cfg(test)]
mod tests {
    use ipvs_bench_programs::records::client;
    use zerocopy::FromBytes as _;

    use super::*;

    /// Writes the client in as the generator does, and looks at all sums anew.
    fn is_sound<I: Ip + zerocopy::FromBytes + zerocopy::KnownLayout + zerocopy::Immutable>(
        plan: &Plan,
        flow: u32,
    ) -> bool {
        let (_, rest) = Ethernet::read_from_prefix(&plan.headers).unwrap();
        let (mut ip, rest) = I::read_from_prefix(rest).unwrap();
        let (mut tcp, _) = Tcp::read_from_prefix(rest).unwrap();
        let (offset, port) = client(flow);
        let address = plan.clients + offset;
        ip.set_client(address, Sum::ZERO.add32(plan.ip_sum));
        tcp.source = U16::new(port);
        let sum = Sum::ZERO.add32(plan.tcp_sum).add32(address.to_be()).add16(port.to_be());
        tcp.checksum = sum.checksum().to_ne_bytes();
        let whole = tcp.sum().add16(ip.pseudo_sum().fold()).add16(20_u16.to_be());
        ip.is_sound() && whole.checksum() == 0
    }

    #[test]
    fn checksums_of_every_flow_are_right() {
        let macs = [MacAddr::local(1, 1), MacAddr::local(1, 2)];
        for phase in [Phase::Open, Phase::Established] {
            let [v4, v6] = [Family::V4, Family::V6]
                .map(|family| plan(&Addresses::of(family), macs, phase, 100_000, Order::Random));
            for flow in [0, 1, 1023, 1024, 99_999] {
                assert!(is_sound::<Ipv4>(&v4, flow), "{phase:?} {flow}");
                assert!(is_sound::<Ipv6>(&v6, flow), "{phase:?} {flow}");
            }
        }
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
