//! Laws of forwarding: what a packet is when it leaves.

use ipvs_core::addr::Family;
use ipvs_core::command::Command;
use ipvs_core::dest::ForwardingMethod;
use ipvs_core::verdict::{Reason, Verdict};
use ipvs_plane::frame::Frame;
use ipvs_wire::Buffer as _;
use proptest::prelude::*;

use crate::packet::{
    INIT, SCTP, SYN, Shape, TCP, Trimmings, UDP, any_trimmings, be16, octets_of, seen, sum,
};
use crate::world::{
    Host, OUTSIDE, World, client, dest_key, dest_spec, mac, own_mac, own_source, server,
    service_key, service_spec, vip,
};

/// A director with one service and one destination, and the client's flow.
#[derive(Clone, Debug)]
struct Flow {
    protocol: u8,
    v6: bool,
    dest_v6: bool,
    client_port: u16,
    port: u16,
    dest_port: u16,
    one_arm: bool,
}

fn any_flow() -> impl Strategy<Value = Flow> {
    (
        prop_oneof![Just(TCP), Just(UDP), Just(SCTP)],
        any::<bool>(),
        any::<bool>(),
        // Not FTP's, which never starts a connection.
        (1u16..).prop_filter("the port of FTP data", |port| *port != 20),
        1u16..,
        any::<u16>(),
        any::<bool>(),
    )
        .prop_map(|(protocol, v6, dest_v6, client_port, port, dest_port, one_arm)| Flow {
            protocol,
            v6,
            dest_v6,
            client_port,
            port,
            dest_port,
            one_arm,
        })
}

impl Flow {
    fn world(&self, method: ForwardingMethod) -> World {
        let key = service_key(self.protocol, vip(self.v6, 0), self.port);
        let dest_v6 = if method == ForwardingMethod::Tunnel { self.dest_v6 } else { self.v6 };
        let dest = dest_key(server(dest_v6, 11), self.dest_port);
        let commands = [
            Command::AddService(key, service_spec(key.family(), "rr", 0)),
            Command::AddDest(key, dest, dest_spec(method, 1)),
        ];
        World::with(&commands, Host { one_arm: self.one_arm, ..Host::default() })
    }

    /// The packet that opens the connection. A tagged one is for a director
    /// on a stick, as others do not send it on.
    fn request(&self, trimmings: &Trimmings) -> Shape {
        let event = if self.protocol == TCP { SYN } else { INIT };
        let from = (client(self.v6, 7), self.client_port);
        let to = (vip(self.v6, 0), self.port);
        let shape = trimmings.put_on(&Shape::new(self.protocol, from, to, event));
        Shape { tagged: self.one_arm && trimmings.tagged, ..shape }
    }

    fn reply(&self, trimmings: &Trimmings) -> Shape {
        let port = if self.dest_port == 0 { self.port } else { self.dest_port };
        let event = if self.protocol == TCP { 0x12 } else { 2 };
        let from = (server(self.v6, 11), port);
        let to = (client(self.v6, 7), self.client_port);
        let shape = trimmings.put_on(&Shape::new(self.protocol, from, to, event));
        Shape { tagged: self.one_arm && trimmings.tagged, ..shape }
    }
}

fn sent_by(verdict: Verdict) -> Option<u32> {
    match verdict {
        Verdict::Send { ifindex, .. } => Some(ifindex),
        _ => None,
    }
}

/// The packet, untagged or not, behind its Ethernet header.
fn packet(octets: &[u8]) -> &[u8] {
    if octets[12..14] == [0x81, 0] { &octets[18..] } else { &octets[14..] }
}

/// The packet with its time to live lowered by one.
fn aged(packet: &[u8]) -> Vec<u8> {
    let mut aged = packet.to_vec();
    if packet[0] >> 4 == 6 {
        aged[7] -= 1;
        return aged;
    }
    aged[8] -= 1;
    aged[10..12].fill(0);
    let header = usize::from(aged[0] & 15) * 4;
    let sum = !sum(0, &aged[..header]);
    aged[10..12].copy_from_slice(&sum.to_be_bytes());
    aged
}

proptest! {
    /// There and back: the server gets the client's packet with nothing but
    /// the destination and the TTL changed, the client an answer from the
    /// address it asked, and every checksum is right where it can be.
    #[test]
    fn a_masqueraded_flow_is_translated_there_and_back(
        flow in any_flow(),
        there in any_trimmings(),
        back in any_trimmings(),
    ) {
        let mut world = flow.world(ForwardingMethod::Masquerade);
        let inside = world.tables().host.inside();
        let request = flow.request(&there);
        let reply = flow.reply(&back);

        let mut frame = request.frame(own_mac(OUTSIDE));
        let verdict = world.handle(&mut frame, OUTSIDE);
        prop_assert_eq!(sent_by(verdict), Some(inside));
        let left = seen(&frame);
        prop_assert_eq!(left.source, (request.source, request.source_port));
        prop_assert_eq!(left.destination, (reply.source, reply.source_port));
        prop_assert_eq!((left.ttl, left.tos), (request.ttl - 1, request.tos));
        prop_assert_eq!((left.to, left.from), (mac(reply.source), own_mac(inside)));
        // A UDP checksum that was not there is, so what came is read with one.
        let came = Shape { unsummed: false, ..request }.frame(own_mac(OUTSIDE));
        prop_assert_eq!(left.rest, seen(&came).rest);

        let mut frame = reply.frame(own_mac(inside));
        let verdict = world.handle(&mut frame, inside);
        prop_assert_eq!(sent_by(verdict), Some(OUTSIDE));
        let left = seen(&frame);
        prop_assert_eq!(left.source, (vip(flow.v6, 0), flow.port));
        prop_assert_eq!(left.destination, (reply.destination, reply.destination_port));
        prop_assert_eq!((left.ttl, left.tos), (reply.ttl - 1, reply.tos));
        prop_assert_eq!((left.to, left.from), (mac(reply.destination), own_mac(OUTSIDE)));
        let came = Shape { unsummed: false, ..reply }.frame(own_mac(inside));
        prop_assert_eq!(left.rest, seen(&came).rest);
    }

    /// Not one octet but MAC addresses, TTL and the IPv4 checksum over it.
    #[test]
    fn direct_routing_changes_the_frame_s_addresses_and_the_ttl(
        flow in any_flow(),
        trimmings in any_trimmings(),
    ) {
        let mut world = flow.world(ForwardingMethod::DirectRoute);
        let inside = world.tables().host.inside();
        let came = flow.request(&trimmings).frame(own_mac(OUTSIDE));
        let mut frame = came.clone();
        let verdict = world.handle(&mut frame, OUTSIDE);
        prop_assert_eq!(sent_by(verdict), Some(inside));
        prop_assert_eq!(&frame.octets()[..6], mac(server(flow.v6, 11)));
        prop_assert_eq!(&frame.octets()[6..12], own_mac(inside));
        prop_assert_eq!(packet(frame.octets()), aged(packet(came.octets())));
        prop_assert_eq!(frame.checksum_pending, came.checksum_pending);
    }

    /// Behind the outer header stands the client's packet whole, aged by one,
    /// for each family in each.
    #[test]
    fn a_tunnel_wraps_the_packet_whole(flow in any_flow(), trimmings in any_trimmings()) {
        let mut world = flow.world(ForwardingMethod::Tunnel);
        let inside = world.tables().host.inside();
        let shape = flow.request(&trimmings);
        let came = shape.frame(own_mac(OUTSIDE));
        let mut frame = came.clone();
        let verdict = world.handle(&mut frame, OUTSIDE);
        prop_assert_eq!(sent_by(verdict), Some(inside));
        let (outer_len, ethertype) = if flow.dest_v6 { (40, [0x86, 0xdd]) } else { (20, [8, 0]) };
        let octets = frame.octets();
        let l3 = if shape.tagged { 18 } else { 14 };
        prop_assert_eq!(&octets[..6], mac(server(flow.dest_v6, 11)));
        prop_assert_eq!(&octets[l3 - 2..l3], ethertype);
        let (outer, inner) = packet(octets).split_at(outer_len);
        prop_assert_eq!(inner, aged(packet(came.octets())));

        let protocol = if flow.v6 { 41 } else { 4 };
        let datagram = inner.len() - shape.padding;
        // RFC 3168, 9.1.1: a congestion mark stays inside.
        let tos = if shape.tos & 3 == 3 { shape.tos - 1 } else { shape.tos };
        let family = if flow.dest_v6 { Family::V6 } else { Family::V4 };
        let (source, destination) = (own_source(family), server(flow.dest_v6, 11));
        if flow.dest_v6 {
            prop_assert_eq!(&outer[..4], [0x60 | (tos >> 4), tos << 4, 0, 0]);
            prop_assert_eq!(be16(outer, 4), datagram);
            prop_assert_eq!(&outer[6..8], [protocol, shape.ttl - 1]);
            prop_assert_eq!(octets_of(source), &outer[8..24]);
            prop_assert_eq!(octets_of(destination), &outer[24..40]);
        } else {
            prop_assert_eq!(sum(0, outer), 0xffff);
            prop_assert_eq!(&outer[..2], [0x45, tos]);
            prop_assert_eq!(be16(outer, 2), 20 + datagram);
            let copied = !flow.v6 && shape.dont_fragment;
            prop_assert_eq!(&outer[6..8], [if copied { 0x40 } else { 0 }, 0]);
            prop_assert_eq!(&outer[8..10], [shape.ttl - 1, protocol]);
            prop_assert_eq!(octets_of(source), &outer[12..16]);
            prop_assert_eq!(octets_of(destination), &outer[16..20]);
        }
    }
}

/// Two connections of one client's address and port share the key of their
/// replies, if they go to the same server by different virtual addresses.
#[test]
fn the_newest_of_two_connections_gets_the_replies() {
    let spec = dest_spec(ForwardingMethod::Masquerade, 1);
    let mut commands = Vec::new();
    for number in [0, 1] {
        let key = service_key(UDP, vip(false, number), 53);
        commands.push(Command::AddService(key, service_spec(Family::V4, "rr", 0)));
        commands.push(Command::AddDest(key, dest_key(server(false, 11), 53), spec));
    }
    let mut world = World::with(&commands, Host::default());
    let inside = world.tables().host.inside();
    let (client, server) = ((client(false, 7), 1234), (server(false, 11), 53));
    // The third packet belongs to the first connection, and changes nothing.
    for (number, newest) in [(0, 0), (1, 1), (0, 1)] {
        let request = Shape::new(UDP, client, (vip(false, number), 53), 0);
        let sent = world.handle(&mut request.frame(own_mac(OUTSIDE)), OUTSIDE);
        assert_eq!(sent_by(sent), Some(inside));
        // More than once: what is remembered of the first must not change it.
        for _ in 0..3 {
            let mut frame = Shape::new(UDP, server, client, 0).frame(own_mac(inside));
            assert_eq!(sent_by(world.handle(&mut frame, inside)), Some(OUTSIDE));
            assert_eq!(seen(&frame).source, (vip(false, newest), 53));
        }
    }
}

proptest! {
    /// The host sends on what is not for itself, a service at that address or not, cut short
    /// or whole: nothing is made, changed or dropped.
    #[test]
    fn what_is_sent_to_a_foreign_address_stays_the_hosts(
        protocol in prop_oneof![Just(TCP), Just(UDP), Just(SCTP)],
        v6: bool,
        is_foreign: bool,
        cut_short: bool,
    ) {
        let at = if is_foreign { client(v6, 200) } else { vip(v6, 0) };
        let key = service_key(protocol, at, 80);
        let commands = [
            Command::AddService(key, service_spec(key.family(), "rr", 0)),
            Command::AddDest(
                key,
                dest_key(server(v6, 11), 80),
                dest_spec(ForwardingMethod::Masquerade, 1),
            ),
        ];
        let mut world = World::with(&commands, Host::default());
        let event = match protocol { TCP => SYN, SCTP => INIT, _ => 0 };
        let shape = Shape::new(protocol, (client(v6, 1), 40_000), (at, 80), event);
        let mut frame = shape.frame(own_mac(OUTSIDE));
        if cut_short {
            shorten(&mut frame);
        }
        let given = frame.clone();
        let verdict = world.handle(&mut frame, OUTSIDE);
        let mut conns = 0;
        world.each_conn(|_, _| conns += 1);
        if is_foreign {
            prop_assert_eq!(verdict, Verdict::Pass(Reason::NotLocal));
            prop_assert_eq!((&frame, conns), (&given, 0));
        } else if cut_short {
            prop_assert_eq!(verdict, Verdict::Drop(Reason::ShortTransport));
        } else {
            prop_assert!(matches!(verdict, Verdict::Send { .. }) && conns == 1, "{verdict:?}");
        }
    }
}

/// Leaves the ports of the transport header, and nothing behind them.
fn shorten(frame: &mut Frame) {
    let headers = ipvs_wire::Headers::parse(frame).unwrap();
    frame.truncate(headers.l4 + 4).unwrap();
    if headers.version == 6 {
        frame.store(headers.l3 + 4, 4_u16.to_be_bytes()).unwrap();
    } else {
        let len = u16::try_from(headers.l4 + 4 - headers.l3).unwrap();
        ipvs_wire::ipv4::set_total_len(frame, headers.l3, len).unwrap();
    }
}
