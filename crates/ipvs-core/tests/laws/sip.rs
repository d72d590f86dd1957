//! Laws of the persistence engine `sip`: what it takes for a Call-ID, whom it
//! sends where, and what a server sends by itself.
//!
//! The tables are what Linux 6.1 was seen to do with the same datagrams.

use std::net::IpAddr;

use ipvs_core::command::Command;
use ipvs_core::conn::ConnFlags;
use ipvs_core::dest::ForwardingMethod;
use ipvs_core::engine::Data;
use ipvs_core::name::Name;
use ipvs_core::service::{ServiceFlags, ServiceSpec};
use ipvs_core::snapshot::{ConnStatus, Control as _};
use ipvs_core::verdict::{Reason, Verdict};
use ipvs_plane::store::Limits;
use proptest::prelude::*;

use crate::packet::{SYN, Shape, TCP, UDP, seen};
use crate::world::{
    Host, INSIDE, LIMITS, OUTSIDE, World, client, dest_key, dest_spec, own_mac, server,
    service_key, service_spec, vip,
};

const PORT: u16 = 5060;

/// A service with the engine and three destinations.
fn director(protocol: u8, flags: u32, method: ForwardingMethod) -> World {
    let key = service_key(protocol, vip(false, 0), PORT);
    let spec = ServiceSpec {
        engine: Name::from("sip"),
        timeout: 60,
        ..service_spec(key.family(), "rr", flags)
    };
    let mut commands = vec![Command::AddService(key, spec)];
    for number in 11..14 {
        let dest = dest_key(server(false, number), PORT);
        commands.push(Command::AddDest(key, dest, dest_spec(method, 1)));
    }
    let limits = Limits { services: 4, dests: 16, members: 16, conns: 4000, ..LIMITS };
    let mut world = World::new(Host::default(), limits);
    world.registry.apply(&commands).unwrap();
    world
}

const PERSISTENT: u32 = ServiceFlags::PERSISTENT;
const ONE_PACKET: u32 = ServiceFlags::PERSISTENT | ServiceFlags::ONE_PACKET;

/// A client's datagram; the number of the server that gets it.
fn ask(world: &mut World, from: (IpAddr, u16), text: &[u8]) -> Result<u8, Reason> {
    let mut shape = Shape::new(UDP, from, (vip(false, 0), PORT), 0);
    shape.payload = text.to_vec();
    let mut frame = shape.frame(own_mac(OUTSIDE));
    match world.handle(&mut frame, OUTSIDE) {
        Verdict::Send { .. } => match seen(&frame).destination {
            (IpAddr::V4(address), PORT) => Ok(address.octets()[3]),
            other => panic!("{other:?}"),
        },
        Verdict::Drop(reason) => Err(reason),
        verdict => panic!("{verdict:?}"),
    }
}

/// A server's own datagram; whether it leaves as the service's.
fn call(world: &mut World, number: u8, to: (IpAddr, u16), text: &[u8]) -> bool {
    let mut shape = Shape::new(UDP, (server(false, number), PORT), to, 0);
    shape.payload = text.to_vec();
    let mut frame = shape.frame(own_mac(INSIDE));
    match world.handle(&mut frame, INSIDE) {
        Verdict::Send { ifindex: OUTSIDE, .. } => {
            assert_eq!(seen(&frame).source, (vip(false, 0), PORT));
            true
        }
        Verdict::Pass(Reason::NoService) => false,
        verdict => panic!("{verdict:?}"),
    }
}

fn message(call_id: &str) -> Vec<u8> {
    format!("INVITE sip:b@x SIP/2.0\r\nVia: a\r\nCall-ID: {call_id}\r\nCSeq: 1\r\n\r\n")
        .into_bytes()
}

fn connections(world: &mut World) -> Vec<ConnStatus> {
    let mut all = Vec::new();
    world.registry.connections(&mut |status| all.push(status));
    all
}

/// Call-IDs of the templates, with the last octet of the destination.
fn templates(world: &mut World) -> Vec<(String, u8, u16)> {
    let mut kept: Vec<_> = connections(world)
        .into_iter()
        .filter(|status| status.flags & ConnFlags::TEMPLATE != 0)
        .map(|status| {
            assert_eq!(status.client_port, 0);
            let (name, data) = status.engine.unwrap();
            assert_eq!(name.as_str(), "sip");
            let text = String::from_utf8_lossy(&data.octets().collect::<Vec<_>>()).into_owned();
            (text, status.dest.v4_octets()[3], status.virtual_port)
        })
        .collect();
    kept.sort();
    kept
}

#[test]
fn a_call_id_is_found_as_the_kernel_finds_it() {
    let first = "INVITE sip:b@x SIP/2.0\r\n";
    let found = [
        ("Call-ID: v01@x\r\n", "v01@x"),
        ("call-id: v02@x\r\n", "v02@x"),
        ("CALL-ID:v03@x\r\n", "v03@x"),
        ("i: v04@x\r\n", "v04@x"),
        ("I:v05@x\r\n", "v05@x"),
        ("Call-ID : v06@x\r\n", "v06@x"),
        ("Call-ID\t:\tv07@x\r\n", "v07@x"),
        ("Call-ID: v10@x\n", "v10@x"),
        ("Call-ID: v11@x\r", "v11@x"),
        ("Call-ID:\r\n v14@x\r\n", "v14@x"),
        ("Call-ID: v16\r\n", "v16"),
        ("Call-ID: <a>\"b\"\r\n", "<a>\"b\""),
        ("Call-ID:::n6\r\n", "::n6"),
        ("Call-ID: {[o5]}%!~*`'\r\n", "{[o5]}%!~*`'"),
        ("\r\nCall-ID: body@x\r\n", "body@x"),
        ("Call-ID: d1@x\r\nCall-ID: d2@x\r\n", "d1@x"),
        ("Call-I\r\nCall-ID: e1\r\n", "e1"),
    ];
    for (text, call_id) in found {
        let mut world = director(UDP, ONE_PACKET, ForwardingMethod::Masquerade);
        let text = [first, text].concat();
        ask(&mut world, (client(false, 1), PORT), text.as_bytes()).expect(&text);
        let kept = templates(&mut world);
        assert_eq!(kept, [(call_id.to_owned(), 11 + 2, PORT)], "{}", text.escape_debug());
    }
    let none = [
        "Call-ID:   v08@x  \r\n",
        "Call-ID: v09@x",
        "X-Call-ID: v12@x\r\n",
        "Call-ID: v15 x\r\n",
        "Call-ID: \r\n\r\n",
        "Call-ID: a@b@c\r\n",
        "Call-ID: a;b\r\n",
        "Call-ID: a,b\r\n",
        "Call-ID: a&b\r\n",
        "\nCall-ID: lf@x\n",
        " Call-ID: fold@x\r\n",
        "Via: x\r\n\tCall-ID: n7\r\n",
        "Call-IDx: n@x\r\n",
        "Call-ID=n2@x\r\n",
        "Call-ID: n3@\r\n",
        "Call-ID: @n4\r\n",
        "Call-ID\r\n: o4\r\n",
        "",
    ];
    let mut world = director(UDP, ONE_PACKET, ForwardingMethod::Masquerade);
    for text in none {
        let text = [first, text].concat();
        let asked = ask(&mut world, (client(false, 1), PORT), text.as_bytes());
        assert_eq!(asked, Err(Reason::NoEngineData), "{}", text.escape_debug());
    }
    let asked = ask(&mut world, (client(false, 1), PORT), b"Call-ID: v13@x\r\n\r\n");
    assert_eq!(asked, Err(Reason::NoEngineData), "the first line is no header");
    assert!(ask(&mut world, (client(false, 1), PORT), b"\r\nCall-ID: n8\r\n").is_ok());
}

#[test]
fn a_call_id_has_at_most_255_octets() {
    let mut world = director(UDP, ONE_PACKET, ForwardingMethod::Masquerade);
    let longest = "x".repeat(255);
    ask(&mut world, (client(false, 1), PORT), &message(&longest)).unwrap();
    assert_eq!(templates(&mut world)[0].0, longest);
    let asked = ask(&mut world, (client(false, 1), PORT), &message(&"y".repeat(256)));
    assert_eq!(asked, Err(Reason::NoEngineData));
}

#[test]
fn calls_of_one_client_go_each_to_its_own_server_and_stay_there() {
    let mut world = director(UDP, ONE_PACKET, ForwardingMethod::DirectRoute);
    let tell = |world: &mut World, number: u32| {
        let mut shape = Shape::new(UDP, (client(false, 1), PORT), (vip(false, 0), PORT), 0);
        shape.payload = message(&format!("call-{number}@x"));
        let mut frame = shape.frame(own_mac(OUTSIDE));
        assert!(matches!(world.handle(&mut frame, OUTSIDE), Verdict::Send { .. }));
        seen(&frame).to[5]
    };
    let first: Vec<_> = (0..3000).map(|number| tell(&mut world, number)).collect();
    let again: Vec<_> = (0..3000).map(|number| tell(&mut world, number)).collect();
    assert_eq!(first, again);
    assert_eq!(first[..4], [13, 12, 11, 13]);
    world.pass_time(61_000);
    world.sweep();
    assert!(connections(&mut world).is_empty());
}

#[test]
fn only_datagrams_that_start_a_connection_need_a_call_id() {
    let mut world = director(UDP, PERSISTENT, ForwardingMethod::Masquerade);
    let from = (client(false, 1), PORT);
    let number = ask(&mut world, from, &message("a")).unwrap();
    assert_eq!(ask(&mut world, from, b"anything"), Ok(number));
    assert_eq!(ask(&mut world, (from.0, 7), b"anything"), Err(Reason::NoEngineData));
    let mut world = director(UDP, 0, ForwardingMethod::Masquerade);
    assert!(ask(&mut world, from, b"anything").is_ok(), "not persistent");
    let mut world = director(TCP, PERSISTENT, ForwardingMethod::Masquerade);
    let mut frame = Shape::new(TCP, from, (vip(false, 0), PORT), SYN).frame(own_mac(OUTSIDE));
    assert_eq!(world.handle(&mut frame, OUTSIDE), Verdict::Drop(Reason::NoEngineData));
}

#[test]
fn what_answers_a_server_s_own_call_comes_back_to_it() {
    for flags in [PERSISTENT, ONE_PACKET] {
        let mut world = director(UDP, flags, ForwardingMethod::Masquerade);
        let callee = (client(false, 9), PORT);
        assert!(call(&mut world, 12, callee, &message("q")));
        assert_eq!(templates(&mut world), [("q".to_owned(), 12, PORT)]);
        assert_eq!(ask(&mut world, callee, &message("q")), Ok(12));
        assert_eq!(ask(&mut world, (callee.0, 7), &message("q")), Ok(12));
        assert!(!call(&mut world, 12, (client(false, 8), PORT), b"anything"));
        assert!(!call(&mut world, 14, callee, &message("q")), "no server of ours");
    }
    let mut world = director(UDP, 0, ForwardingMethod::Masquerade);
    assert!(call(&mut world, 12, (client(false, 9), PORT), b"anything"), "not persistent");
    let mut world = director(UDP, PERSISTENT, ForwardingMethod::DirectRoute);
    assert!(!call(&mut world, 12, (client(false, 9), PORT), &message("q")));
}

#[test]
fn a_call_that_another_server_takes_up_moves_there() {
    let mut world = director(UDP, ONE_PACKET, ForwardingMethod::Masquerade);
    let from = (client(false, 1), PORT);
    assert_eq!(ask(&mut world, from, &message("a")), Ok(13));
    assert!(call(&mut world, 13, from, &message("a")));
    assert_eq!(templates(&mut world), [("a".to_owned(), 13, PORT)]);
    assert!(call(&mut world, 11, from, &message("a")));
    let kept = templates(&mut world);
    assert_eq!(kept, [("a".to_owned(), 11, PORT), ("a".to_owned(), 13, 65535)]);
    assert_eq!(ask(&mut world, from, &message("a")), Ok(11));
}

#[test]
fn a_server_that_leaves_the_service_calls_for_itself_again() {
    let mut world = director(UDP, PERSISTENT, ForwardingMethod::Masquerade);
    let key = service_key(UDP, vip(false, 0), PORT);
    let callee = (client(false, 9), PORT);
    let leave = Command::DeleteDest(key, dest_key(server(false, 12), PORT));
    world.registry.apply(&[leave]).unwrap();
    assert!(!call(&mut world, 12, callee, &message("q")));
    assert!(call(&mut world, 13, callee, &message("q")));
    world.registry.apply(&[Command::Flush]).unwrap();
    let key = service_key(UDP, vip(false, 1), PORT);
    let add = Command::AddService(key, service_spec(key.family(), "rr", 0));
    world.registry.apply(&[add]).unwrap();
    assert!(!call(&mut world, 11, callee, &message("r")));
    assert_eq!(world.registry.settings().callers, 0);
}

proptest! {
    #[test]
    fn any_datagram_is_borne(
        texts in prop::collection::vec(
            prop_oneof![
                prop::collection::vec(any::<u8>(), 0..600),
                "(INVITE|\r|\n|Call-ID|i|:| |\t|@|a){0,40}".prop_map(String::into_bytes),
            ],
            1..6,
        ),
    ) {
        let mut world = director(UDP, ONE_PACKET, ForwardingMethod::Masquerade);
        for text in texts {
            let asked = ask(&mut world, (client(false, 1), PORT), &text);
            prop_assert!(matches!(asked, Ok(11..14) | Err(Reason::NoEngineData)), "{asked:?}");
            call(&mut world, 12, (client(false, 2), PORT), &text);
        }
    }

    #[test]
    fn data_is_kept_octet_by_octet(octets in prop::collection::vec(any::<u8>(), 0..300)) {
        match Data::of(&octets) {
            Some(data) => {
                prop_assert_eq!(data.octets().collect::<Vec<_>>(), octets);
                prop_assert!(data.is(&data));
            }
            None => prop_assert!(octets.len() > 255),
        }
    }
}
