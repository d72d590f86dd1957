//! Laws of the schedulers that hash: the known tables and picks (spec A.2 and
//! A.3), and the rules by an independent, dumb model.

use ipvs_core::addr::{Addr, Family};
use ipvs_core::command::{Command, CommandError};
use ipvs_core::conn::NONE;
use ipvs_core::dest::{Dest, DestKey, ForwardingMethod};
use ipvs_core::sched::table::{self, Seat};
use ipvs_core::sched::{self, Flow};
use ipvs_core::service::{SchedulerKind, ServiceFlags, ServiceKey};
use ipvs_core::tables::Tables as _;
use ipvs_plane::store::Limits;
use proptest::prelude::*;

use crate::packet::TCP;
use crate::world::{Host, LIMITS, World, addr, dest_spec, service_key, service_spec, vip};

const FALLBACK: u32 = ServiceFlags::SCHED_1;
const PORT: u32 = ServiceFlags::SCHED_2;
const MAGLEV: u32 = 4093;

fn key() -> ServiceKey {
    service_key(TCP, vip(false, 0), 80)
}

fn dest_key(number: u8) -> DestKey {
    DestKey::new(Family::V4, Addr::v4([10, 0, 0, number]), 80)
}

fn bind(scheduler: &str, flags: u32) -> Command {
    Command::AddService(key(), service_spec(Family::V4, scheduler, flags))
}

fn rebind(scheduler: &str, flags: u32) -> Command {
    Command::EditService(key(), service_spec(Family::V4, scheduler, flags))
}

fn add(number: u8, weight: i32) -> Command {
    Command::AddDest(key(), dest_key(number), dest_spec(ForwardingMethod::DirectRoute, weight))
}

fn edit(number: u8, weight: i32) -> Command {
    Command::EditDest(key(), dest_key(number), dest_spec(ForwardingMethod::DirectRoute, weight))
}

fn delete(number: u8) -> Command {
    Command::DeleteDest(key(), dest_key(number))
}

fn world(scheduler: &str, flags: u32, weights: &[i32]) -> World {
    let mut world = World::new(Host::default(), LIMITS);
    world.registry.apply(&[bind(scheduler, flags)]).unwrap();
    for (number, weight) in (1..).zip(weights) {
        world.registry.apply(&[add(number, *weight)]).unwrap();
    }
    world
}

/// What a client at this address gets; what is asked for has the same address.
fn pick(world: &World, octets: [u8; 4], port: u16) -> Option<u8> {
    let address = Addr::v4(octets);
    let flow = Flow { client: address, destination: address, client_port: port, ..Flow::default() };
    pick_for(world, &flow)
}

fn pick_for(world: &World, flow: &Flow) -> Option<u8> {
    let tables = world.tables();
    let id = sched::pick(tables, tables.service(&key()).unwrap(), flow);
    (id != NONE).then(|| tables.dest(id).unwrap().key.addr.v4_octets()[3])
}

const CLIENTS: [[u8; 4]; 3] = [[192, 0, 2, 99], [198, 51, 100, 7], [203, 0, 113, 200]];

fn picks(world: &World, port: u16) -> [Option<u8>; 3] {
    CLIENTS.map(|client| pick(world, client, port))
}

/// The table of mh for servers 1, 2, … of these weights, by last digit.
fn maglev(weights: &[u32]) -> Vec<u8> {
    let mut seats: Vec<Seat> = (1..)
        .zip(weights)
        .map(|(number, weight)| {
            let dest = Dest {
                key: dest_key(number),
                spec: dest_spec(ForwardingMethod::DirectRoute, 1),
                service: 0,
                flags: Dest::AVAILABLE,
                tunnel_source: Addr::UNSPECIFIED,
            };
            Seat::new(u32::from(number), &dest, *weight)
        })
        .collect();
    seats.reverse();
    let mut slots = vec![NONE; table::len(SchedulerKind::MaglevHashing) as usize];
    assert!(table::fill(SchedulerKind::MaglevHashing, &mut seats, &mut slots));
    slots.into_iter().map(|id| u8::try_from(id).unwrap()).collect()
}

fn owned(slots: &[u8]) -> [usize; 3] {
    let mut counts = [0; 3];
    for slot in slots {
        counts[usize::from(*slot) - 1] += 1;
    }
    counts
}

/// The checksum of zlib, of the slots as digits.
fn adler32(slots: &[u8]) -> u32 {
    let (mut low, mut high) = (1, 0);
    for slot in slots {
        low = (low + u32::from(slot + b'0')) % 65521;
        high = (high + low) % 65521;
    }
    high << 16 | low
}

#[test]
fn maglev_tables_are_the_known_ones() {
    let even = maglev(&[1, 1, 1]);
    assert_eq!(even[..24], *b"122331233112211322113233".map(|digit| digit - b'0').as_slice());
    assert_eq!((owned(&even), adler32(&even)), ([1364, 1364, 1365], 4_141_555_609));
    let uneven = maglev(&[3, 2, 1]);
    assert_eq!(uneven[..24], *b"112211233112211322113233".map(|digit| digit - b'0').as_slice());
    assert_eq!((owned(&uneven), adler32(&uneven)), ([2046, 1364, 683], 1_798_969_925));
    // Shares of more than 6 bits are cut.
    let steep = maglev(&[300, 1, 100]);
    assert_eq!((owned(&steep), adler32(&steep)), ([3027, 82, 984], 4_196_931_485));
}

#[test]
fn maglev_picks_are_the_known_ones() {
    let mut even = world("mh", 0, &[1, 1, 1]);
    assert_eq!(picks(&even, 40_000), [Some(3), Some(1), Some(2)]);
    even.registry.apply(&[rebind("mh", PORT)]).unwrap();
    assert_eq!(picks(&even, 40_000), [Some(1), Some(2), Some(3)]);
    assert_eq!(picks(&world("mh", 0, &[3, 2, 1]), 40_000), [Some(1), Some(1), Some(2)]);
}

#[test]
fn source_hashing_picks_are_the_known_ones() {
    assert_eq!(picks(&world("sh", 0, &[3, 2, 1]), 40_000), [Some(1), Some(1), Some(1)]);
    assert_eq!(picks(&world("sh", PORT, &[3, 2, 1]), 40_000), [Some(1), Some(2), Some(3)]);
}

#[test]
fn destination_hashing_picks_are_the_known_ones() {
    assert_eq!(picks(&world("dh", 0, &[3, 2, 1]), 0), [Some(1), Some(3), Some(2)]);
}

#[test]
fn destination_hashing_goes_by_the_packet_and_not_by_the_service() {
    let world = world("dh", 0, &[1, 1, 1]);
    let to = |octets| Flow { destination: Addr::v4(octets), ..Flow::default() };
    let picked = CLIENTS.map(|octets| pick_for(&world, &to(octets)));
    assert_eq!(picked, [Some(1), Some(3), Some(2)]);
}

#[test]
fn an_ipv6_client_is_hashed_by_all_its_words() {
    let world = world("sh", 0, &[1, 1, 1]);
    let picked: std::collections::HashSet<_> = (0..64u16)
        .map(|number| {
            let client = addr(std::net::IpAddr::from([0x2001, 0xdb8, number, 0, 0, 0, 0, 7]));
            pick_for(&world, &Flow { client, ..Flow::default() })
        })
        .collect();
    assert_eq!(picked.len(), 3);
}

#[test]
fn an_edit_to_weight_0_keeps_the_slots_of_mh_and_an_addition_with_0_has_none() {
    let mut quiesced = world("mh", FALLBACK, &[1, 1, 1]);
    quiesced.registry.apply(&[edit(1, 0)]).unwrap();
    let mut without = world("mh", FALLBACK, &[0, 1, 1]);
    let clients = || (0..=255u8).map(|last| [198, 51, 100, last]);
    let before = world("mh", 0, &[1, 1, 1]);
    for client in clients() {
        let had = pick(&before, client, 0);
        if had != Some(1) {
            assert_eq!(pick(&quiesced, client, 0), had, "{client:?}");
        }
        assert_ne!(pick(&quiesced, client, 0), None);
    }
    let moved = |world: &World| {
        clients().filter(|client| pick(world, *client, 0) != pick(&before, *client, 0)).count()
    };
    assert!(moved(&quiesced) <= clients().filter(|it| pick(&before, *it, 0) == Some(1)).count());
    // The weight that counts comes with the first edit that is not to 0, and in one list, too.
    without.registry.apply(&[edit(1, 1), edit(1, 0)]).unwrap();
    for client in clients() {
        assert_eq!(pick(&without, client, 0), pick(&quiesced, client, 0));
    }
    // Taken out and added with 0, it has none again.
    quiesced.registry.apply(&[delete(1)]).unwrap();
    quiesced.registry.apply(&[add(1, 0)]).unwrap();
    let never = world("mh", FALLBACK, &[0, 1, 1]);
    for client in clients() {
        // The order of the list is another one, the owners of slots are the same two.
        assert_ne!(pick(&quiesced, client, 0), Some(1));
        assert_ne!(pick(&never, client, 0), Some(1));
    }
}

#[test]
fn more_destinations_than_a_maglev_table_has_slots_are_refused_at_its_binding_only() {
    let limits = Limits { dests: 5000, members: 20_000, ..LIMITS };
    let mut world = World::new(Host::default(), limits);
    let many = |count: u32| {
        (0..count).map(|number| {
            let [_, _, high, low] = number.to_be_bytes();
            let dest = DestKey::new(Family::V4, Addr::v4([10, 7, high, low]), 80);
            Command::AddDest(key(), dest, dest_spec(ForwardingMethod::DirectRoute, 1))
        })
    };
    let all: Vec<Command> = [bind("rr", 0)].into_iter().chain(many(MAGLEV + 1)).collect();
    world.registry.apply(&all).unwrap();
    let refused = world.registry.apply(&[rebind("mh", 0)]).unwrap_err();
    assert_eq!(refused.error, CommandError::Invalid);
    let last = DestKey::new(Family::V4, Addr::v4([10, 7, 0, 0]), 80);
    world.registry.apply(&[Command::DeleteDest(key(), last), rebind("mh", 0)]).unwrap();
    let before = pick(&world, [198, 51, 100, 7], 0);
    assert_ne!(before, None);
    // One more has no slot, and the table stays as it was.
    world.registry.apply(&[add(1, 60)]).unwrap();
    assert_eq!(pick(&world, [198, 51, 100, 7], 0), before);
}

#[test]
fn a_scheduler_bound_in_mid_flow_finds_its_table() {
    let mut world = world("rr", 0, &[3, 2, 1]);
    for (scheduler, expected) in [
        ("mh", [Some(1), Some(1), Some(2)]),
        ("sh", [Some(1), Some(1), Some(1)]),
        ("dh", [Some(1), Some(3), Some(2)]),
    ] {
        world.registry.apply(&[rebind(scheduler, 0)]).unwrap();
        assert_eq!(picks(&world, 40_000), expected, "{scheduler}");
    }
    world.registry.apply(&[rebind("none", 0)]).unwrap();
    assert_eq!(picks(&world, 40_000), [None; 3]);
}

#[test]
fn tables_do_not_use_up_their_blocks_however_often_they_change() {
    // Room for one table of mh and the next that is to take its place.
    let mut world = World::new(Host::default(), Limits { blocks: 32, ..LIMITS });
    world.registry.apply(&[bind("mh", 0), add(1, 1), add(2, 1)]).unwrap();
    for weight in 2..50 {
        world.registry.apply(&[edit(1, weight)]).unwrap();
        assert_ne!(pick(&world, CLIENTS[0], 0), None);
    }
    let other = service_key(TCP, vip(false, 1), 80);
    let second = Command::AddService(other, service_spec(Family::V4, "mh", 0));
    let spec = dest_spec(ForwardingMethod::DirectRoute, 1);
    let dest = Command::AddDest(other, dest_key(9), spec);
    world.registry.tick();
    world.registry.apply(&[second, dest]).unwrap();
    let full = world.registry.apply(&[edit(1, 1)]).unwrap_err();
    assert!(matches!(full.error, CommandError::Full { limit: 32, .. }));
    // Refused, the edit has changed nothing and kept nothing.
    world.registry.apply(&[Command::DeleteService(other)]).unwrap();
    world.registry.tick();
    world.registry.apply(&[edit(1, 1)]).unwrap();
}

/// The slots of sh and dh, written down as they are dealt.
fn dealt(weights: &[i32], share: impl Fn(i32) -> i32) -> Vec<usize> {
    let newest_first = weights.iter().enumerate().rev();
    let hands: Vec<usize> =
        newest_first.flat_map(|(at, weight)| (0..share(*weight)).map(move |_| at)).collect();
    hands.into_iter().cycle().take(256).collect()
}

fn multiplied(value: u32) -> usize {
    let product = u64::from(value) * 0x61c8_8647 % (1 << 32);
    usize::try_from(product >> 24).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn sh_and_dh_are_dealt_and_fall_back_as_the_model(
        weights in prop::collection::vec(
            prop_oneof![2 => Just(0), 6 => 1i32..6, 1 => 100i32..400], 1..7),
        scheduler in prop::sample::select(vec!["sh", "dh"]),
        flags in prop::sample::select(vec![0, FALLBACK, PORT, FALLBACK | PORT]),
        overloaded in any::<u8>(),
        clients in prop::collection::vec((any::<[u8; 4]>(), any::<u16>()), 1..40),
    ) {
        let world = world(scheduler, flags, &weights);
        for (id, dest) in world.registry.listed_dests() {
            let at = dest.key.addr.v4_octets()[3] - 1;
            let mark = u32::from(overloaded >> at & 1);
            world.tables().load(id).unwrap().overloaded.set(mark);
        }
        let slots = if scheduler == "dh" {
            dealt(&weights, |_| 1)
        } else {
            dealt(&weights, |weight| weight.max(1))
        };
        let usable = |at: usize| weights[at] > 0 && overloaded >> at & 1 == 0;
        for (client, port) in clients {
            let mut value = u32::from_be_bytes(client);
            if scheduler == "sh" && flags & PORT != 0 {
                value = value.wrapping_add(u32::from(port));
            }
            let slot = multiplied(value);
            let mut tried = vec![slot];
            if scheduler == "sh" && flags & FALLBACK != 0 {
                tried.extend((0..256).map(|step| (2 * slot + step) % 256));
            }
            let expected = tried.into_iter().map(|slot| slots[slot]).find(|at| usable(*at));
            let picked = pick(&world, client, port).map(|number| usize::from(number) - 1);
            prop_assert_eq!(picked, expected);
        }
    }

    /// Who falls back gets the next of his own slots that can be used; who had
    /// one that can be used keeps it.
    #[test]
    fn a_maglev_client_moves_only_if_its_destination_cannot_be_used(
        weights in prop::collection::vec(1i32..5, 2..6),
        quiesced in any::<prop::sample::Index>(),
        clients in prop::collection::vec(any::<[u8; 4]>(), 1..40),
    ) {
        let before = world("mh", FALLBACK, &weights);
        let mut after = world("mh", FALLBACK, &weights);
        let mut strict = world("mh", 0, &weights);
        let number = u8::try_from(quiesced.index(weights.len())).unwrap() + 1;
        after.registry.apply(&[edit(number, 0)]).unwrap();
        strict.registry.apply(&[edit(number, 0)]).unwrap();
        for client in clients {
            let had = pick(&before, client, 0);
            let has = pick(&after, client, 0);
            if had == Some(number) {
                prop_assert!(has.is_some() && has != had);
                prop_assert_eq!(pick(&strict, client, 0), None);
            } else {
                prop_assert_eq!(has, had);
                prop_assert_eq!(pick(&strict, client, 0), had);
            }
        }
    }

    /// Picks of twos follow the weights while nobody has a load, and shun the
    /// loaded ones when somebody has.
    #[test]
    fn twos_draws_by_weight_and_takes_the_less_loaded(
        weights in prop::collection::vec(1i32..8, 2..5),
        start in any::<u32>(),
    ) {
        let world = world("twos", 0, &weights);
        // 0 is drawn, too, and is the newest's: the list begins with it.
        let ends = f64::from(weights.iter().sum::<i32>() + 1);
        let share = |at: usize| {
            f64::from(weights[at] + i32::from(at + 1 == weights.len())) / ends
        };
        let draw = || {
            let mut picks = vec![0; weights.len()];
            for turn in 0..4000 {
                let client = Addr::v4(start.wrapping_add(turn).to_be_bytes());
                let flow = Flow { client, client_port: 4000, ..Flow::default() };
                picks[usize::from(pick_for(&world, &flow).unwrap()) - 1] += 1;
            }
            picks
        };
        let near = |picked: i32, share: f64| {
            let expected = share * 4000.0;
            (f64::from(picked) - expected).abs() < 6.0 * expected.sqrt() + 10.0
        };
        for (at, picked) in draw().into_iter().enumerate() {
            prop_assert!(near(picked, share(at)), "{} of server {}", picked, at);
        }
        // All but the oldest get a load: whoever draws that one once has it.
        for (id, dest) in world.registry.listed_dests() {
            let loaded = dest.key.addr.v4_octets()[3] != 1;
            world.tables().load(id).unwrap().active.set(u32::from(loaded) * 1000);
        }
        let picked = draw()[0];
        prop_assert!(near(picked, 1.0 - (1.0 - share(0)).powi(2)), "{} of the idle one", picked);
    }
}

#[test]
fn twos_draws_apart_for_one_client_at_one_time() {
    let world = world("twos", 0, &[1, 1, 1]);
    let picked: std::collections::HashSet<_> =
        (0..64).map(|_| pick(&world, CLIENTS[0], 0)).collect();
    assert_eq!(picked.len(), 3);
}

#[test]
fn twos_takes_nobody_where_nobody_can_be_used() {
    assert_eq!(pick(&world("twos", 0, &[0, 0]), CLIENTS[0], 0), None);
    assert_eq!(pick(&world("twos", 0, &[]), CLIENTS[0], 0), None);
}
