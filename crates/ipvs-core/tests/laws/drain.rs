//! Laws of destinations that are drained.

use std::net::IpAddr;

use ipvs_core::addr::Family;
use ipvs_core::command::Command;
use ipvs_core::dest::ForwardingMethod;
use ipvs_core::drain::{AtDeadline, Drain, DrainStatus};
use ipvs_core::service::{ServiceFlags, ServiceKey};
use ipvs_core::snapshot::Control as _;
use ipvs_core::time::Millis;
use ipvs_core::verdict::{Reason, Verdict};
use ipvs_plane::frame::Frame;
use proptest::prelude::*;

use crate::packet::{ACK, FIN, SYN, Seen, Shape, TCP, UDP, seen};
use crate::world::{
    Host, INSIDE, OUTSIDE, World, client, dest_key, dest_spec, own_mac, server, service_key,
    service_spec, vip,
};

const SCHEDULERS: [&str; 14] =
    ["rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "sed", "nq", "fo", "ovf", "mh", "twos"];

/// Two servers behind a service, all of whose connections can be told apart.
struct Pair {
    world: World,
    key: ServiceKey,
    v6: bool,
    protocol: u8,
}

impl Pair {
    fn new(scheduler: &str, protocol: u8, v6: bool, flags: u32, method: ForwardingMethod) -> Self {
        let key = service_key(protocol, vip(v6, 0), 80);
        let family = if v6 { Family::V6 } else { Family::V4 };
        let add = |number, weight| {
            Command::AddDest(key, dest_key(server(v6, number), 80), dest_spec(method, weight))
        };
        let commands = [
            Command::AddService(key, service_spec(family, scheduler, flags)),
            add(11, 1000),
            add(12, 1000),
        ];
        Self { world: World::with(&commands, Host::default()), key, v6, protocol }
    }

    fn drain(&mut self, number: u8, drain: Drain) {
        let dest = dest_key(server(self.v6, number), 80);
        self.world.registry.apply(&[Command::DrainDest(self.key, dest, drain)]).unwrap();
    }

    fn shape(&self, from: u8, port: u16, event: u8) -> Shape {
        let (source, virtual_addr) = (client(self.v6, from), vip(self.v6, 0));
        Shape::new(self.protocol, (source, port), (virtual_addr, 80), event)
    }

    fn send(&mut self, shape: &Shape) -> (Verdict, Frame) {
        let mut frame = shape.frame(own_mac(OUTSIDE));
        let verdict = self.world.handle(&mut frame, OUTSIDE);
        (verdict, frame)
    }

    /// The server that a client's packet goes to by masquerading.
    fn served(&mut self, from: u8, port: u16, event: u8) -> Option<u8> {
        let shape = self.shape(from, port, event);
        let (Verdict::Send { .. }, frame) = self.send(&shape) else { return None };
        self.server_of(seen(&frame).destination.0)
    }

    fn server_of(&self, address: IpAddr) -> Option<u8> {
        [11, 12].into_iter().find(|number| server(self.v6, *number) == address)
    }

    fn status(&mut self) -> Option<DrainStatus> {
        let mut found = None;
        self.world.registry.drains(&mut |status| found = Some(status));
        found
    }

    fn pass(&mut self, millis: u64) {
        self.world.pass_time(millis);
        self.world.registry.tick();
    }
}

fn deadline(seconds: u32, then: AtDeadline) -> Drain {
    Drain { limit: Some(Millis(seconds * 1000)), then }
}

fn other(number: u8) -> u8 {
    23 - number
}

proptest! {
    #[test]
    fn nothing_new_goes_to_a_destination_that_is_drained_and_what_is_there_stays(
        scheduler in prop::sample::select(SCHEDULERS.to_vec()),
        protocol in prop::sample::select(vec![TCP, UDP]),
        persistent: bool,
        v6: bool,
    ) {
        let flags = if persistent { ServiceFlags::PERSISTENT } else { 0 };
        let mut pair = Pair::new(scheduler, protocol, v6, flags, ForwardingMethod::Masquerade);
        let drained = pair.served(1, 40_000, SYN).unwrap();
        pair.drain(drained, Drain::default());
        for from in 1..20 {
            let got = pair.served(from, 50_000 + u16::from(from), SYN);
            prop_assert_eq!(got, Some(other(drained)), "client {}", from);
        }
        prop_assert_eq!(pair.served(1, 40_000, ACK), Some(drained));
        let status = pair.status().unwrap();
        prop_assert_eq!((status.began_with, status.open, status.over), (1, 1, 0));
    }

    #[test]
    fn a_destination_serves_again_when_its_drain_ends(v6: bool, again: bool) {
        let mut pair = Pair::new("rr", TCP, v6, 0, ForwardingMethod::Masquerade);
        pair.drain(11, deadline(1, AtDeadline::Reset));
        if again {
            pair.pass(2_000);
        }
        let dest = dest_key(server(v6, 11), 80);
        pair.world.registry.apply(&[Command::UndrainDest(pair.key, dest)]).unwrap();
        prop_assert_eq!(pair.status(), None);
        let served: Vec<_> = (0..4).map(|port| pair.served(1, port + 1, SYN).unwrap()).collect();
        prop_assert!(served.contains(&11) && served.contains(&12), "{:?}", served);
        prop_assert!(pair.world.registry.apply(&[Command::UndrainDest(pair.key, dest)]).is_err());
    }

    #[test]
    fn at_the_deadline_datagrams_move_and_not_before(
        v6: bool,
        persistent: bool,
        then in prop::sample::select(AtDeadline::ALL.to_vec()),
    ) {
        let flags = if persistent { ServiceFlags::PERSISTENT } else { 0 };
        let mut pair = Pair::new("rr", UDP, v6, flags, ForwardingMethod::Masquerade);
        let first = pair.served(1, 40_000, 0).unwrap();
        pair.drain(first, deadline(60, then));
        pair.pass(59_000);
        prop_assert_eq!(pair.served(1, 40_000, 0), Some(first));
        pair.pass(2_000);
        let last = if then == AtDeadline::Wait { first } else { other(first) };
        prop_assert_eq!(pair.served(1, 40_000, 0), Some(last));
        let status = pair.status().unwrap();
        prop_assert_eq!(status.deadline, Some(Millis(0)));
        let left = u32::from(then == AtDeadline::Wait);
        prop_assert_eq!(status.open, left);
    }

    #[test]
    fn at_the_deadline_tcp_is_reset_towards_the_server_and_then_towards_the_client(
        v6: bool,
        method in prop::sample::select(vec![
            ForwardingMethod::Masquerade, ForwardingMethod::DirectRoute, ForwardingMethod::Tunnel,
        ]),
        sequence: u32,
        acknowledged: u32,
        payload in prop::collection::vec(any::<u8>(), 0..50),
        options in 0_usize..2,
        pending: bool,
    ) {
        let mut pair = Pair::new("rr", TCP, v6, 0, method);
        let opening = pair.shape(1, 40_000, SYN);
        let (verdict, _) = pair.send(&opening);
        prop_assert_eq!(verdict, Verdict::Send { ifindex: INSIDE, mtu: 1500 });
        for number in [11, 12] {
            pair.drain(number, deadline(10, AtDeadline::Reset));
        }
        pair.pass(11_000);
        let shape =
            Shape { sequence, acknowledged, options, pending, payload, ..pair.shape(1, 40_000, ACK) };

        let (verdict, frame) = pair.send(&shape);
        prop_assert_eq!(verdict, Verdict::Send { ifindex: INSIDE, mtu: 1500 });
        if method == ForwardingMethod::Tunnel {
            prop_assert!(frame.octets().len() <= 14 + 40 + 40 + 20);
        } else {
            prop_assert_eq!(numbers(&seen(&frame)), (sequence, acknowledged, RST_ACK));
        }

        let (verdict, frame) = pair.send(&shape);
        prop_assert_eq!(verdict, Verdict::Send { ifindex: OUTSIDE, mtu: 1500 });
        let answer = seen(&frame);
        prop_assert_eq!(answer.source, (vip(v6, 0), 80));
        prop_assert_eq!(answer.destination, (client(v6, 1), 40_000));
        prop_assert_eq!(numbers(&answer), (acknowledged, 0, RST));
        prop_assert_eq!(pair.world.tables().counted(Reason::SentReset), 1);

        // One that acknowledges nothing is told what it takes.
        let last = Shape { event: FIN, ..shape };
        let (_, frame) = pair.send(&last);
        let taken = sequence.wrapping_add(u32::try_from(last.payload.len()).unwrap() + 1);
        prop_assert_eq!(numbers(&seen(&frame)), (0, taken, RST_ACK));

        // The client's next attempt is a new connection.
        pair.world.registry.apply(&[Command::UndrainDest(pair.key, dest_key(server(v6, 12), 80))]).unwrap();
        let (verdict, _) = pair.send(&opening);
        prop_assert_eq!(verdict, Verdict::Send { ifindex: INSIDE, mtu: 1500 });
    }
}

const RST: u8 = 4;
const RST_ACK: u8 = RST | ACK;

/// Sequence and acknowledged number and flags of a segment.
fn numbers(seen: &Seen) -> (u32, u32, u8) {
    let word = |at: usize| u32::from_be_bytes(seen.rest[at..at + 4].try_into().unwrap());
    assert_eq!(seen.rest.len(), 16, "a header and nothing else");
    (word(0), word(4), seen.rest[9])
}

#[test]
fn an_edit_of_a_drained_destination_leaves_it_drained_and_a_deletion_ends_it() {
    let mut pair = Pair::new("wrr", TCP, false, 0, ForwardingMethod::Masquerade);
    pair.drain(11, Drain::default());
    let dest = dest_key(server(false, 11), 80);
    let heavy = dest_spec(ForwardingMethod::Masquerade, 9_000);
    pair.world.registry.apply(&[Command::EditDest(pair.key, dest, heavy)]).unwrap();
    assert_eq!(pair.served(1, 1, SYN), Some(12));
    assert!(pair.status().is_some());
    let (delete, add) =
        (Command::DeleteDest(pair.key, dest), Command::AddDest(pair.key, dest, heavy));
    pair.world.registry.apply(&[delete, add]).unwrap();
    assert_eq!(pair.status(), None);
    assert_eq!(pair.served(1, 2, SYN), Some(11));
}

#[test]
fn a_service_with_nothing_but_drained_destinations_refuses() {
    for scheduler in SCHEDULERS {
        let mut pair = Pair::new(scheduler, TCP, true, 0, ForwardingMethod::Masquerade);
        pair.drain(11, Drain::default());
        pair.drain(12, Drain::default());
        let opening = pair.shape(1, 1, SYN);
        let (verdict, _) = pair.send(&opening);
        assert_eq!(verdict, Verdict::Send { ifindex: OUTSIDE, mtu: 1500 }, "{scheduler}");
        let sent = pair.world.tables().counted(Reason::SentUnreachable);
        assert_eq!(sent, 1, "{scheduler}");
    }
}
