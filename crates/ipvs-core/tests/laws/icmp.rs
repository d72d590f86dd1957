//! Laws of ICMP errors: what quotes a packet of a connection reaches whoever
//! sent that packet, in his own words, and changes nothing else.

use std::net::IpAddr;

use ipvs_core::command::Command;
use ipvs_core::dest::ForwardingMethod;
use ipvs_core::verdict::{Reason, Verdict};
use ipvs_plane::frame::Frame;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::packet::{INIT, SCTP, SYN, Shape, TCP, UDP, be16, octets_of, pseudo, sum};
use crate::world::{
    Host, INSIDE, OUTSIDE, World, client, dest_key, dest_spec, mac, own_mac, server, service_key,
    service_spec, vip,
};

const PORT: u16 = 80;
const DEST_PORT: u16 = 8080;
const CLIENT_PORT: u16 = 40_000;
/// What the errors of these tests say behind their checksum.
const INFO: [u8; 4] = [0, 0, 5, 20];

/// A director with one destination, and the connection of one client.
fn connected(v6: bool, protocol: u8, method: ForwardingMethod) -> (World, Shape) {
    let key = service_key(protocol, vip(v6, 0), PORT);
    let commands = [
        Command::AddService(key, service_spec(key.family(), "rr", 0)),
        Command::AddDest(key, dest_key(server(v6, 11), DEST_PORT), dest_spec(method, 1)),
    ];
    let mut world = World::with(&commands, Host::default());
    let event = if protocol == TCP { SYN } else { INIT };
    let from = (client(v6, 7), CLIENT_PORT);
    let request = Shape::new(protocol, from, (vip(v6, 0), PORT), event);
    let mut frame = request.frame(own_mac(OUTSIDE));
    assert!(matches!(world.handle(&mut frame, OUTSIDE), Verdict::Send { .. }));
    (world, request)
}

/// The IP packet in a frame without a tag.
fn packet(frame: &Frame) -> Vec<u8> {
    frame.octets()[14..].to_vec()
}

/// An error about `quoted`, from and to these addresses, in a frame to `to`.
pub(crate) fn error(
    kind: u8,
    (source, destination): (IpAddr, IpAddr),
    quoted: &[u8],
    to: [u8; 6],
) -> Frame {
    let v6 = source.is_ipv6();
    let mut message = vec![kind, 4, 0, 0];
    message.extend(INFO);
    message.extend(quoted);
    let start = if v6 { pseudo(source, destination, 58, message.len()) } else { 0 };
    let checksum = !sum(start, &message);
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    let mut octets = to.to_vec();
    octets.extend([2, 9, 9, 9, 9, 9]);
    if v6 {
        octets.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        octets.extend(u16::try_from(message.len()).unwrap().to_be_bytes());
        octets.extend([58, 64]);
        octets.extend(octets_of(source));
        octets.extend(octets_of(destination));
    } else {
        octets.extend([8, 0]);
        let mut header = vec![0x45, 0];
        header.extend(u16::try_from(20 + message.len()).unwrap().to_be_bytes());
        header.extend([0x43, 0x21, 0, 0, 64, 1, 0, 0]);
        header.extend(octets_of(source));
        header.extend(octets_of(destination));
        let checksum = !sum(0, &header);
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
        octets.extend(header);
    }
    octets.extend(message);
    Frame::new(octets)
}

/// `frame` as it is one hop later, between these MAC addresses.
fn one_hop_on(frame: &Frame, to: [u8; 6], from: [u8; 6]) -> Vec<u8> {
    let mut octets = frame.octets().to_vec();
    octets[..6].copy_from_slice(&to);
    octets[6..12].copy_from_slice(&from);
    if octets[14] >> 4 == 6 {
        octets[21] -= 1;
    } else {
        octets[22] -= 1;
        octets[24..26].fill(0);
        let checksum = !sum(0, &octets[14..34]);
        octets[24..26].copy_from_slice(&checksum.to_be_bytes());
    }
    octets
}

/// Where the transport checksum of a packet without options stands.
fn checksum_place(packet: &[u8], protocol: u8) -> std::ops::Range<usize> {
    let header = if packet[0] >> 4 == 6 { 40 } else { 20 };
    match protocol {
        TCP => header + 16..header + 18,
        UDP => header + 6..header + 8,
        _ => header + 8..header + 12,
    }
}

/// The quoted packet, but for its checksum, which nobody translates.
fn with_checksum_of(mut packet: Vec<u8>, other: &[u8], protocol: u8) -> Vec<u8> {
    let place = checksum_place(&packet, protocol);
    packet[place.clone()].copy_from_slice(&other[place]);
    packet
}

fn any_protocol() -> impl Strategy<Value = u8> {
    prop::sample::select(&[TCP, UDP, SCTP][..])
}

/// An error's type that is heeded.
fn kind(v6: bool, which: usize) -> u8 {
    if v6 { [1, 2, 3, 4, 127][which % 5] } else { [3, 4, 11][which % 3] }
}

/// What must not change: connections with state, timer and key, and counts.
fn tables(world: &World) -> Vec<String> {
    let mut all = Vec::new();
    world.each_conn(|id, conn| {
        let times = (conn.expires.get(), conn.timeout.get());
        let rest = (conn.state.get(), conn.flags.get(), conn.dest.get(), conn.controls.get());
        all.push(format!("{id} {:?} {times:?} {rest:?}", conn.tuple.get()));
    });
    for id in world.dest_ids() {
        all.push(format!("{id} {:?}", ipvs_core::tables::Tables::load(world.tables(), id)));
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// What a server says of a translated request reaches the client as from the
    /// virtual address, quoting what the client sent, with sums that hold.
    #[test]
    fn an_error_about_a_translated_request_quotes_what_the_client_sent(
        v6: bool,
        protocol in any_protocol(),
        which: usize,
        cut: Index,
        payload in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let (mut world, mut request) = connected(v6, protocol, ForwardingMethod::Masquerade);
        request.payload = payload;
        let sent = request.frame(own_mac(OUTSIDE));
        let mut forwarded = sent.clone();
        let verdict = world.handle(&mut forwarded, OUTSIDE);
        prop_assert!(matches!(verdict, Verdict::Send { .. }), "{:?}", verdict);
        // The quote ends anywhere behind the ports.
        let ports = if v6 { 44 } else { 24 };
        let inside = packet(&forwarded);
        let len = ports + cut.index(inside.len() - ports + 1);
        let addresses = (server(v6, 11), client(v6, 7));
        let mut frame =
            error(kind(v6, which), addresses, &inside[..len], own_mac(INSIDE));
        world.pass_time(700);
        let before = tables(&world);
        let verdict = world.handle(&mut frame, INSIDE);
        prop_assert!(matches!(verdict, Verdict::Send { ifindex: OUTSIDE, .. }), "{:?}", verdict);
        // The one packet behind another hop.
        let outside = packet(&Frame::new(one_hop_on(&sent, [0; 6], [0; 6])));
        let outside = with_checksum_of(outside, &inside, protocol);
        let addresses = (vip(v6, 0), client(v6, 7));
        let expected = error(kind(v6, which), addresses, &outside[..len], [0; 6]);
        let expected = one_hop_on(&expected, mac(client(v6, 7)), own_mac(OUTSIDE));
        prop_assert_eq!(frame.octets(), &expected[..]);
        prop_assert_eq!(tables(&world), before);
    }

    /// What is said of a translated reply reaches the server, quoting what it
    /// sent; and translating both ways gives the quoted packet back.
    #[test]
    fn an_error_about_a_translated_reply_quotes_what_the_server_sent(
        v6: bool,
        protocol in any_protocol(),
        which: usize,
        cut: Index,
    ) {
        let (mut world, request) = connected(v6, protocol, ForwardingMethod::Masquerade);
        let (from, to) = ((server(v6, 11), DEST_PORT), (request.source, CLIENT_PORT));
        let sent = Shape::new(protocol, from, to, 2).frame(own_mac(INSIDE));
        let mut forwarded = sent.clone();
        let verdict = world.handle(&mut forwarded, INSIDE);
        prop_assert!(matches!(verdict, Verdict::Send { .. }), "{:?}", verdict);
        let ports = if v6 { 44 } else { 24 };
        let outside = packet(&forwarded);
        let len = ports + cut.index(outside.len() - ports + 1);
        let router = client(v6, 99);
        let mut frame =
            error(kind(v6, which), (router, vip(v6, 0)), &outside[..len], own_mac(OUTSIDE));
        let before = tables(&world);
        let verdict = world.handle(&mut frame, OUTSIDE);
        prop_assert!(matches!(verdict, Verdict::Send { ifindex: INSIDE, .. }), "{:?}", verdict);
        let inside = packet(&Frame::new(one_hop_on(&sent, [0; 6], [0; 6])));
        let inside = with_checksum_of(inside, &outside, protocol);
        let expected = error(kind(v6, which), (router, server(v6, 11)), &inside[..len], [0; 6]);
        let expected = one_hop_on(&expected, mac(server(v6, 11)), own_mac(INSIDE));
        prop_assert_eq!(frame.octets(), &expected[..]);
        prop_assert_eq!(tables(&world), before);
    }

    /// A wrong checksum ends a translated error uncounted; who gets his errors
    /// unchanged gets this one, too.
    #[test]
    fn an_error_with_a_wrong_checksum_is_not_translated(
        v6: bool,
        protocol in any_protocol(),
        wrong in 1u16..,
        direct: bool,
    ) {
        let method =
            if direct { ForwardingMethod::DirectRoute } else { ForwardingMethod::Masquerade };
        let (mut world, request) = connected(v6, protocol, method);
        let reply = Shape::new(
            protocol,
            (vip(v6, 0), PORT),
            (request.source, CLIENT_PORT),
            2,
        );
        let quoted = packet(&reply.frame([0; 6]));
        let router = client(v6, 99);
        let frame = error(3, (router, vip(v6, 0)), &quoted, own_mac(OUTSIDE));
        let at = if v6 { 56 } else { 36 };
        let mut octets = frame.into_octets();
        let right = u16::from_be_bytes([octets[at], octets[at + 1]]);
        let changed = right.wrapping_add(wrong);
        // The two zeros of one's complement are the same number.
        prop_assume!(changed != right && (changed ^ right) != 0xffff);
        octets[at..at + 2].copy_from_slice(&changed.to_be_bytes());
        let mut frame = Frame::new(octets);
        let sent = frame.clone();
        let verdict = world.handle(&mut frame, OUTSIDE);
        if direct {
            let expected = one_hop_on(&sent, mac(server(v6, 11)), own_mac(INSIDE));
            prop_assert_eq!(frame.octets(), &expected[..]);
        } else {
            prop_assert_eq!(verdict, Verdict::Drop(Reason::BadChecksum));
        }
    }

    /// Whatever an error quotes, however broken: one verdict, no panic, no
    /// change of the tables, and nothing leaves that does not sum up.
    #[test]
    fn a_hostile_error_changes_no_table(
        v6: bool,
        protocol in any_protocol(),
        method in prop::sample::select(&[
            ForwardingMethod::Masquerade,
            ForwardingMethod::DirectRoute,
            ForwardingMethod::Tunnel,
        ][..]),
        kind: u8,
        is_reply: bool,
        harms in prop::collection::vec((0usize..140, any::<u8>()), 0..6),
        cut in prop::option::of(any::<Index>()),
        resum: bool,
        ifindex in prop::sample::select(&[OUTSIDE, INSIDE][..]),
    ) {
        let (mut world, request) = connected(v6, protocol, method);
        let quoted = if is_reply {
            let to = (request.source, CLIENT_PORT);
            Shape::new(protocol, (vip(v6, 0), PORT), to, 2)
        } else {
            let from = (request.source, CLIENT_PORT);
            Shape::new(protocol, from, (server(v6, 11), DEST_PORT), 2)
        };
        let mut quoted = packet(&quoted.frame([0; 6]));
        for (at, octet) in &harms {
            if let Some(place) = quoted.get_mut(*at) {
                *place = *octet;
            }
        }
        let addresses = (client(v6, 99), vip(v6, 0));
        let mut octets = error(kind, addresses, &quoted, own_mac(ifindex)).into_octets();
        if let Some(cut) = cut {
            octets.truncate(cut.index(octets.len() + 1));
        }
        if !resum {
            for (at, octet) in &harms {
                // Of the error itself, not of the headers in front of it.
                if let Some(place) = octets.get_mut(if v6 { 54 } else { 34 } + *at) {
                    *place = *octet;
                }
            }
        }
        let before = tables(&world);
        let mut frame = Frame::new(octets);
        let given = frame.clone();
        match world.handle(&mut frame, ifindex) {
            // To an address of the host, which gets it translated.
            Verdict::Pass(Reason::Local) | Verdict::Deliver => {}
            Verdict::Pass(_) => prop_assert_eq!(&frame, &given),
            Verdict::Drop(reason) => prop_assert!(reason.drops()),
            Verdict::Send { .. } if method == ForwardingMethod::Masquerade => {
                let ip = packet(&frame);
                if ip[0] >> 4 == 4 && ip[9] == 1 {
                    let header = usize::from(ip[0] & 15) * 4;
                    prop_assert_eq!(sum(0, &ip[..header]), 0xffff);
                    prop_assert_eq!(sum(0, &ip[header..be16(&ip, 2)]), 0xffff);
                }
            }
            Verdict::Send { .. } | Verdict::Resolve { .. } => {}
            Verdict::Defer(_) | Verdict::GoOn(_) => prop_assert!(false, "left to be led on"),
        }
        prop_assert_eq!(tables(&world), before);
    }
}

#[test]
fn what_is_no_error_is_the_hosts() {
    for (v6, kinds) in [(false, &[0, 5, 8, 12, 13][..]), (true, &[128, 129, 133, 135][..])] {
        let (mut world, request) = connected(v6, TCP, ForwardingMethod::Masquerade);
        let quoted = packet(&request.frame([0; 6]));
        for kind in kinds {
            let addresses = (client(v6, 7), vip(v6, 0));
            let mut frame = error(*kind, addresses, &quoted, own_mac(OUTSIDE));
            let verdict = world.handle(&mut frame, OUTSIDE);
            assert_eq!(verdict, Verdict::Pass(Reason::OtherProtocol), "type {kind}");
        }
    }
}

#[test]
fn an_error_is_never_answered_with_an_error() {
    for v6 in [false, true] {
        let (mut world, request) = connected(v6, TCP, ForwardingMethod::DirectRoute);
        let to = (request.source, CLIENT_PORT);
        let reply = Shape::new(TCP, (vip(v6, 0), PORT), to, 2);
        let quoted = packet(&reply.frame([0; 6]));
        let frame = error(3, (client(v6, 99), vip(v6, 0)), &quoted, own_mac(OUTSIDE));
        let mut octets = frame.into_octets();
        // A hop limit of 1; IPv4 has it in its sum.
        if v6 {
            octets[21] = 1;
        } else {
            octets[22] = 1;
            octets[24..26].fill(0);
            let checksum = !sum(0, &octets[14..34]);
            octets[24..26].copy_from_slice(&checksum.to_be_bytes());
        }
        let verdict = world.handle(&mut Frame::new(octets), OUTSIDE);
        assert_eq!(verdict, Verdict::Drop(Reason::Unanswerable));
    }
}
