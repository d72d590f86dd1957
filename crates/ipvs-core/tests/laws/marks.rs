//! Laws of firewall marks: which service a marked packet is for, what its
//! connection remembers, and what it leaves with.

use std::net::IpAddr;

use ipvs_core::addr::{Addr, Family};
use ipvs_core::command::Command;
use ipvs_core::dest::ForwardingMethod;
use ipvs_core::director::Arrival;
use ipvs_core::mark::{MarkRule, prefix_mask};
use ipvs_core::service::{ServiceFlags, ServiceKey};
use ipvs_core::verdict::{Reason, Verdict};
use proptest::prelude::*;

use crate::packet::{SYN, Shape, TCP, UDP, seen};
use crate::world::{
    Host, OUTSIDE, World, client, dest_key, dest_spec, own_mac, server, service_key, service_spec,
    vip,
};

fn family(v6: bool) -> Family {
    if v6 { Family::V6 } else { Family::V4 }
}

/// A service by mark 7 with server 11, and one by address and port with server 12.
fn world(v6: bool, flags: u32) -> World {
    let marked = ServiceKey::fwmark(family(v6), 7);
    let plain = service_key(TCP, vip(v6, 0), 80);
    let spec = dest_spec(ForwardingMethod::Masquerade, 1);
    let commands = [
        Command::AddService(marked, service_spec(family(v6), "rr", flags)),
        Command::AddDest(marked, dest_key(server(v6, 11), 8080), spec),
        Command::AddService(plain, service_spec(family(v6), "rr", 0)),
        Command::AddDest(plain, dest_key(server(v6, 12), 8080), spec),
    ];
    World::with(&commands, Host::default())
}

/// Where a packet to `destination` that comes with `mark` is sent; the mark that it leaves with.
fn sent(
    world: &mut World,
    (protocol, destination): (u8, (IpAddr, u16)),
    source_port: u16,
    mark: u32,
) -> Option<((IpAddr, u16), u32)> {
    let from = (client(destination.0.is_ipv6(), 1), source_port);
    let mut frame = Shape::new(protocol, from, destination, SYN).frame(own_mac(OUTSIDE));
    let verdict = world.arrive(&mut frame, Arrival { ifindex: OUTSIDE, mark });
    matches!(verdict, Verdict::Send { .. }).then(|| (seen(&frame).destination, world.mark()))
}

proptest! {
    #[test]
    fn a_mark_goes_before_the_address_and_its_connection_needs_no_mark(
        v6 in any::<bool>(), ports in 1024u16.., address in 0u8..9,
    ) {
        let mut world = world(v6, 0);
        let to = (vip(v6, 0), 80);
        let marked = Some(((server(v6, 11), 8080), 7));
        prop_assert_eq!(sent(&mut world, (TCP, to), ports, 7), marked);
        prop_assert_eq!(sent(&mut world, (TCP, to), ports, 0), marked);
        let other = ports ^ 1;
        prop_assert_eq!(sent(&mut world, (TCP, to), other, 0).map(|it| it.0.0), Some(server(v6, 12)));
        // A mark without a service does not keep a packet from its address's.
        let third = ports ^ 2;
        let plain = sent(&mut world, (TCP, to), third, 9).map(|it| it.0.0);
        prop_assert_eq!(plain, Some(server(v6, 12)));
        // Any address, any port, any protocol.
        let to = (vip(v6, address), ports);
        prop_assert_eq!(sent(&mut world, (UDP, to), 5000, 7), marked);
    }

    #[test]
    fn one_template_serves_all_that_a_mark_covers(v6 in any::<bool>(), port in 1u16..) {
        let mut world = world(v6, ServiceFlags::PERSISTENT);
        let (first, second) = ((TCP, (vip(v6, 1), 80)), (UDP, (vip(v6, 2), port)));
        // The destination's port means nothing here (recorded).
        let at = |port| Some(((server(v6, 11), port), 7));
        prop_assert_eq!(sent(&mut world, first, 4000, 7), at(80));
        prop_assert_eq!(sent(&mut world, second, 4001, 7), at(port));
        let mut templates = 0;
        world.each_conn(|_, conn| templates += u32::from(conn.tuple.get().protocol == 0));
        prop_assert_eq!(templates, 1);
    }

    #[test]
    fn every_rule_that_fits_changes_the_mark_in_turn(
        v6 in any::<bool>(), port in 80u16..90, first in 80u16..90,
    ) {
        let mut world = world(v6, 0);
        let mut low = MarkRule::any(family(v6), 3, 0xf);
        let (_, net) = Addr::from_ip(vip(v6, 0));
        low.destination = net;
        low.destination_mask = prefix_mask(family(v6), if v6 { 128 } else { 32 });
        let mut high = MarkRule::any(family(v6), 4, 4);
        (high.protocol, high.first_port, high.last_port) = (TCP, first, u16::MAX);
        world.registry.apply(&[Command::AddMarkRule(low), Command::AddMarkRule(high)]).unwrap();
        let got = sent(&mut world, (TCP, (vip(v6, 0), port)), 4000, 0).map(|it| it.0.0);
        let expect = if port >= first {
            Some(server(v6, 11))
        } else {
            (port == 80).then(|| server(v6, 12))
        };
        prop_assert_eq!(got, expect);
    }
}

#[test]
fn an_error_under_a_mark_is_sent_from_an_address_of_the_host_only() {
    let mut world = World::with(
        &[Command::AddService(
            ServiceKey::fwmark(Family::V4, 7),
            service_spec(Family::V4, "rr", 0),
        )],
        Host::default(),
    );
    let mut verdict = |destination: IpAddr| {
        let from = (client(false, 1), 4000);
        let mut frame = Shape::new(TCP, from, (destination, 80), SYN).frame(own_mac(OUTSIDE));
        world.arrive(&mut frame, Arrival { ifindex: OUTSIDE, mark: 7 })
    };
    assert!(matches!(verdict(vip(false, 0)), Verdict::Send { .. }));
    assert_eq!(verdict([203, 0, 113, 9].into()), Verdict::Drop(Reason::NoDestination));
}
