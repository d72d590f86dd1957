//! The law of a plane that leaves what it cannot do to another: nobody can tell.

use ipvs_core::command::Command;
use ipvs_core::dest::ForwardingMethod;
use ipvs_core::service::ServiceFlags;
use ipvs_core::snapshot::Control as _;
use ipvs_core::tables::Tables as _;
use ipvs_plane::frame::Frame;
use proptest::prelude::*;

use crate::packet::{ACK, SYN, Shape, TCP, Trimmings, UDP, any_trimmings};
use crate::world::{
    Host, INSIDE, OUTSIDE, World, client, dest_key, dest_spec, own_mac, server, service_key,
    service_spec, vip,
};

const PORTS: [(u8, u16); 2] = [(TCP, 80), (UDP, 53)];
const SERVERS: [u8; 3] = [11, 12, 13];

/// A service of each protocol, all of one kind.
#[derive(Clone, Debug)]
struct Kind {
    v6: bool,
    method: ForwardingMethod,
    scheduler: &'static str,
    flags: u32,
    one_arm: bool,
    /// Of so many packets that start a connection one is dropped; 0 for none.
    drop_rate: u32,
}

fn any_kind() -> impl Strategy<Value = Kind> {
    let method = prop::sample::select(vec![
        ForwardingMethod::Masquerade,
        ForwardingMethod::DirectRoute,
        ForwardingMethod::Tunnel,
        ForwardingMethod::Local,
    ]);
    let flags = prop::sample::select(vec![
        0,
        ServiceFlags::ONE_PACKET,
        ServiceFlags::ONE_PACKET | ServiceFlags::PERSISTENT,
    ]);
    let scheduler = prop::sample::select(vec!["rr", "wrr", "lc"]);
    let rest = (any::<bool>(), prop::sample::select(vec![0, 0, 1, 2, 3]));
    (any::<bool>(), method, scheduler, flags, rest).prop_map(
        |(v6, method, scheduler, flags, (one_arm, drop_rate))| Kind {
            v6,
            method,
            scheduler,
            flags,
            one_arm,
            drop_rate,
        },
    )
}

impl Kind {
    fn world(&self, front: bool) -> World {
        let mut commands = Vec::new();
        for (protocol, port) in PORTS {
            let key = service_key(protocol, vip(self.v6, 0), port);
            // What is for a single packet is so for UDP only.
            let spec = service_spec(key.family(), self.scheduler, self.flags);
            commands.push(Command::AddService(key, spec));
            for (number, weight) in SERVERS.into_iter().zip(1..) {
                let dest = dest_key(server(self.v6, number), 0);
                commands.push(Command::AddDest(key, dest, dest_spec(self.method, weight)));
            }
        }
        let host = Host { one_arm: self.one_arm, is_shy: true, ..Host::default() };
        let mut world = World::with(&commands, host);
        world.front = front;
        if self.drop_rate != 0 {
            world.registry.set_sysctl("am_droprate", &self.drop_rate.to_string()).unwrap();
            world.registry.set_sysctl("drop_packet", "3").unwrap();
        }
        world
    }
}

/// One thing that happens.
#[derive(Clone, Debug)]
enum Event {
    /// From a client, by its number and port: to the service by its place, with the event of
    /// TCP, the time to live, and octets in front of the payload.
    Request(u8, u16, usize, u8, Wish),
    /// From a server to such a client.
    Reply(u8, u8, u16, usize, Wish),
    /// Milliseconds go by.
    Time(u64),
}

/// The rest of a packet: a time to live that may end, and a length that may not fit.
#[derive(Clone, Debug)]
struct Wish {
    trimmings: Trimmings,
    ends: bool,
    longer: usize,
}

fn any_wish() -> impl Strategy<Value = Wish> {
    let longer = prop::sample::select(vec![0usize, 0, 700, 1450, 1600]);
    (any_trimmings(), prop::bool::weighted(0.2), longer)
        .prop_map(|(trimmings, ends, longer)| Wish { trimmings, ends, longer })
}

fn any_event() -> impl Strategy<Value = Event> {
    // That of FTP's data starts nothing.
    let port = prop::sample::select(vec![20u16, 1000, 1001]);
    let (client, service) = (1u8..4, 0..PORTS.len());
    let server = prop::sample::select(SERVERS.to_vec());
    let flags = prop::sample::select(vec![SYN, ACK]);
    prop_oneof![
        6 => (client.clone(), port.clone(), service.clone(), flags, any_wish())
            .prop_map(|(client, port, service, flags, wish)| {
                Event::Request(client, port, service, flags, wish)
            }),
        3 => (server, client, port, service, any_wish()).prop_map(
            |(server, client, port, service, wish)| {
                Event::Reply(server, client, port, service, wish)
            }
        ),
        2 => (0u64..3_000).prop_map(Event::Time),
    ]
}

impl Event {
    /// The frame that comes, and where.
    fn frame(&self, kind: &Kind) -> Option<(Frame, u32)> {
        let v6 = kind.v6;
        let inside = if kind.one_arm { OUTSIDE } else { INSIDE };
        let (shape, wish, ifindex) = match self {
            Self::Request(number, port, service, flags, wish) => {
                let (protocol, to) = PORTS[*service];
                let from = (client(v6, *number), *port);
                (Shape::new(protocol, from, (vip(v6, 0), to), *flags), wish, OUTSIDE)
            }
            Self::Reply(number, of, port, service, wish) => {
                let (protocol, from) = PORTS[*service];
                let from = (server(v6, *number), from);
                (Shape::new(protocol, from, (client(v6, *of), *port), SYN | ACK), wish, inside)
            }
            Self::Time(_) => return None,
        };
        let mut shape = wish.trimmings.put_on(&shape);
        shape.payload.resize(shape.payload.len() + wish.longer, 7);
        if wish.ends {
            shape.ttl = 1;
        }
        Some((shape.frame(own_mac(ifindex)), ifindex))
    }
}

/// All that is counted and kept, as text.
fn kept(world: &World) -> Vec<String> {
    let tables = world.tables();
    let counts = world.dest_ids().map(|id| (tables.counters(id), tables.load(id)));
    let mut kept: Vec<_> = counts.map(|counts| format!("{counts:?}")).collect();
    kept.extend((0..2).map(|service| format!("{:?}", tables.scheduler_word(service))));
    kept.push(format!("{:?}", tables.defence()));
    world.each_conn(|id, conn| {
        let (tuple, dest, flags) = (conn.tuple.get(), conn.dest.get(), conn.flags.get());
        let rest = (conn.in_packets.get(), conn.state.get(), conn.expires.get());
        kept.push(format!("{id}: {tuple:?} to {dest}, {flags:x}, {rest:?}"));
    });
    kept
}

proptest! {
    /// Whether XDP comes first or not: each packet becomes the same, and counts once.
    #[test]
    fn a_plane_in_front_that_only_sends_changes_nothing(
        kind in any_kind(),
        events in prop::collection::vec(any_event(), 1..40),
    ) {
        let (mut alone, mut fronted) = (kind.world(false), kind.world(true));
        for event in &events {
            if let Event::Time(millis) = event {
                alone.pass_time(*millis);
                fronted.pass_time(*millis);
            }
            let Some((frame, ifindex)) = event.frame(&kind) else { continue };
            let (mut by_one, mut by_two) = (frame.clone(), frame);
            let verdict = alone.handle(&mut by_one, ifindex);
            prop_assert_eq!(fronted.handle(&mut by_two, ifindex), verdict);
            prop_assert_eq!(by_two.octets(), by_one.octets());
            prop_assert_eq!(kept(&fronted), kept(&alone));
        }
    }
}
