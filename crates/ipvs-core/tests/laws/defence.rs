//! Laws of defence against floods, and of the templates that it spares.

use ipvs_core::command::Command;
use ipvs_core::conn::ConnFlags;
use ipvs_core::dest::ForwardingMethod;
use ipvs_core::persistence::ASSURED;
use ipvs_core::service::ServiceFlags;
use ipvs_core::snapshot::Control as _;
use ipvs_core::tables::Tables as _;
use ipvs_core::verdict::{Reason, Verdict};
use proptest::prelude::*;

use crate::packet::{ACK, INIT, SCTP, SYN, Shape, TCP, UDP};
use crate::world::{
    Host, OUTSIDE, World, client, dest_key, dest_spec, own_mac, server, service_key, service_spec,
    vip,
};

/// A service of `protocol` with one destination, masqueraded, under these settings.
fn world(protocol: u8, v6: bool, flags: u32, settings: &[(&str, &str)]) -> World {
    let key = service_key(protocol, vip(v6, 0), 80);
    let commands = [
        Command::AddService(key, service_spec(key.family(), "rr", flags)),
        Command::AddDest(
            key,
            dest_key(server(v6, 11), 80),
            dest_spec(ForwardingMethod::Masquerade, 1),
        ),
    ];
    let mut world = World::with(&commands, Host::default());
    for (name, value) in settings {
        world.registry.set_sysctl(name, value).unwrap();
    }
    world
}

/// A packet of the client with this number.
fn send(world: &mut World, protocol: u8, v6: bool, number: u8, event: u8) -> Verdict {
    let shape = Shape::new(protocol, (client(v6, number), 40_000), (vip(v6, 0), 80), event);
    world.handle(&mut shape.frame(own_mac(OUTSIDE)), OUTSIDE)
}

/// Connections and templates in the table.
fn in_table(world: &World) -> (usize, usize) {
    let (mut conns, mut templates) = (0, 0);
    world.each_conn(|_, conn| {
        let is_template = conn.has(ConnFlags::TEMPLATE);
        *if is_template { &mut templates } else { &mut conns } += 1;
    });
    (conns, templates)
}

fn second(world: &mut World) {
    world.pass_time(1000);
    world.sweep();
}

proptest! {
    /// Of the packets that would start a connection the first is dropped, and then
    /// every n-th; a new rate counts from the drop after the present count.
    #[test]
    fn one_packet_of_many_is_dropped(
        (rate, next) in (1_u32..12, 1_u32..12),
        sent in 1_u32..30,
        protocol in prop_oneof![Just(TCP), Just(UDP), Just(SCTP)],
        v6: bool,
    ) {
        let settings = [("am_droprate", rate.to_string()), ("drop_packet", "3".to_owned())];
        let settings = settings.each_ref().map(|(name, value)| (*name, value.as_str()));
        let mut world = world(protocol, v6, 0, &settings);
        let event = match protocol { TCP => SYN, SCTP => INIT, _ => 0 };
        let mut until = 0;
        let mut number = 0;
        for (rate, count) in [(rate, sent), (next, 40)] {
            world.registry.set_sysctl("am_droprate", &rate.to_string()).unwrap();
            for _ in 0..count {
                // Each from a place of its own, which is free again at the next.
                number = (number + 1) % 200;
                world.pass_time(400_000);
                world.sweep();
                let dropped = send(&mut world, protocol, v6, number, event) == Verdict::Drop(Reason::Defence);
                prop_assert_eq!(dropped, until == 0, "packet {}", number);
                until = if dropped { rate - 1 } else { until - 1 };
            }
        }
    }

    /// Half-open connections go, a 32nd of the table a second, and with each the
    /// template that it alone hung on.
    #[test]
    fn half_open_connections_take_their_templates_with_them(
        clients in 1_u8..24,
        protocol in prop_oneof![Just(TCP), Just(SCTP)],
        v6: bool,
    ) {
        let mut world = world(protocol, v6, ServiceFlags::PERSISTENT, &[("drop_entry", "3")]);
        let event = if protocol == TCP { SYN } else { INIT };
        for number in 0..clients {
            let _sent = send(&mut world, protocol, v6, number, event);
        }
        let mut before = usize::from(clients);
        // SCTP is given up after four seconds by itself; the templates would stay.
        let seconds = if protocol == TCP { 55 } else { 3 };
        for _ in 0..seconds {
            second(&mut world);
            world.sweep();
            let (conns, templates) = in_table(&world);
            prop_assert_eq!(conns, templates);
            prop_assert!(before - conns <= 2, "{} at once", before - conns);
            before = conns;
        }
        // One in 32 a second leaves about a fifth of them.
        prop_assert!(protocol != TCP || before <= 1 + usize::from(clients) / 2, "{before} are left");
        let load = world.tables().load(world.dest_ids().next().unwrap()).unwrap();
        let counted = load.active.get() + load.inactive.get() + load.persistent.get();
        prop_assert_eq!(usize::try_from(counted).unwrap(), 2 * before);
    }
}

#[test]
fn what_was_active_within_a_minute_is_spared_and_so_are_proven_templates() {
    let mut world = world(TCP, false, ServiceFlags::PERSISTENT, &[("drop_entry", "3")]);
    for number in 0..10 {
        let _sent = send(&mut world, TCP, false, number, SYN);
        let _sent = send(&mut world, TCP, false, number, ACK);
    }
    for _ in 0..59 {
        second(&mut world);
    }
    assert_eq!(in_table(&world), (10, 10));
    for _ in 0..120 {
        second(&mut world);
    }
    let (conns, templates) = in_table(&world);
    assert_eq!(templates, 10);
    assert!(conns < 10, "of the idle ones with two packets every second one goes");
    let mut states = Vec::new();
    world.each_conn(|_, conn| {
        if conn.has(ConnFlags::TEMPLATE) {
            states.push(conn.state.get());
        }
    });
    assert_eq!(states, [ASSURED; 10]);
}

#[test]
fn nothing_is_dropped_while_defence_is_off() {
    let mut world = world(TCP, true, ServiceFlags::PERSISTENT, &[("drop_entry", "1")]);
    for number in 0..20 {
        let _sent = send(&mut world, TCP, true, number, SYN);
    }
    for _ in 0..59 {
        second(&mut world);
    }
    assert_eq!(in_table(&world), (20, 20));
}

#[test]
fn under_secure_tcp_a_client_alone_establishes_nothing() {
    let mut world = world(TCP, false, 0, &[("secure_tcp", "3")]);
    let state = |world: &World| {
        let mut state = 0;
        world.each_conn(|_, conn| state = conn.state.get());
        state
    };
    let _sent = send(&mut world, TCP, false, 1, SYN);
    let _sent = send(&mut world, TCP, false, 1, ACK);
    assert_eq!(state(&world), ipvs_core::proto::tcp::SYN_RECV);
    world.registry.set_sysctl("secure_tcp", "0").unwrap();
    let _sent = send(&mut world, TCP, false, 1, ACK);
    assert_eq!(state(&world), ipvs_core::proto::tcp::ESTABLISHED);
}

/// Recorded with `-p 50` and `-p 200`.
#[test]
fn a_template_that_outlived_its_timer_goes_on_in_steps_of_a_minute() {
    let mut world = world(TCP, false, ServiceFlags::PERSISTENT, &[]);
    let left = |world: &World| {
        let mut left = None;
        let now = world.now().nanos();
        world.each_conn(|_, conn| {
            if conn.has(ConnFlags::TEMPLATE) {
                left = Some((conn.expires.get() - now) / 1_000_000_000);
            }
        });
        left
    };
    let open = |world: &mut World, port| {
        let shape = Shape::new(TCP, (client(false, 1), port), (vip(false, 0), 80), SYN);
        let _sent = world.handle(&mut shape.frame(own_mac(OUTSIDE)), OUTSIDE);
    };
    open(&mut world, 40_000);
    let _sent = send(&mut world, TCP, false, 1, ACK);
    world.pass_time(100_000);
    open(&mut world, 40_001);
    assert_eq!(left(&world), Some(360), "another connection: the service's timeout again");
    world.pass_time(360_000);
    world.sweep();
    assert_eq!(left(&world), Some(0), "what hangs on it may end in the same moment");
    world.pass_time(2_000);
    world.sweep();
    assert_eq!(left(&world), Some(60), "a connection still hangs on it");
    world.pass_time(20_000);
    open(&mut world, 40_002);
    assert_eq!(left(&world), Some(60), "the service's timeout is forgotten");
}
