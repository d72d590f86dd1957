//! Laws of lblc and lblcr: every pick, and everything they remember, is that of
//! an independent, dumb model over hours.

use std::collections::HashMap;

use ipvs_core::addr::{Addr, Family};
use ipvs_core::command::Command;
use ipvs_core::conn::NONE;
use ipvs_core::dest::{DestKey, ForwardingMethod, Load};
use ipvs_core::sched::{self, Flow};
use ipvs_core::service::ServiceKey;
use ipvs_core::tables::Tables as _;
use ipvs_core::verdict::Reason;
use ipvs_plane::store::Limits;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::packet::TCP;
use crate::world::{
    Host, LIMITS, World, dest_key, dest_spec, server, service_key, service_spec, vip,
};

/// Members of one entry, at most.
const MEMBERS: usize = 32;

#[derive(Clone, Copy, Debug)]
struct Server {
    number: u8,
    weight: u64,
    active: u64,
    inactive: u64,
    overloaded: bool,
    listed: bool,
}

impl Server {
    fn overhead(&self) -> u64 {
        self.active * 256 + self.inactive
    }

    fn is_usable(&self) -> bool {
        self.listed && self.weight > 0 && !self.overloaded
    }

    /// Whether the load per weight is above the other's.
    fn is_above(&self, other: &Self) -> bool {
        u128::from(self.overhead()) * u128::from(other.weight)
            > u128::from(other.overhead()) * u128::from(self.weight)
    }
}

#[derive(Clone, Debug, Default)]
struct Entry {
    /// Newest first.
    set: Vec<u8>,
    used: u64,
    changed: u64,
}

/// Times are in seconds from the binding of the scheduler.
#[derive(Clone, Debug)]
struct Model {
    replicates: bool,
    expiration: u64,
    /// Newest first, those that left the list included.
    servers: Vec<Server>,
    entries: HashMap<u8, Entry>,
    now: u64,
    turns: u64,
}

impl Model {
    fn server(&self, number: u8) -> &Server {
        self.servers.iter().find(|server| server.number == number).unwrap()
    }

    /// The first of those with the least load per weight.
    fn least<'a>(servers: impl Iterator<Item = &'a Server>) -> Option<u8> {
        let mut servers = servers.filter(|server| server.is_usable());
        let first = servers.next()?;
        let best = servers.fold(first, |best, it| if best.is_above(it) { it } else { best });
        Some(best.number)
    }

    fn is_busy(&self, number: u8) -> bool {
        let server = self.server(number);
        let idle = |it: &Server| it.listed && it.active * 2 < it.weight;
        server.active > server.weight && self.servers.iter().any(idle)
    }

    fn pick(&mut self, address: u8) -> Option<u8> {
        let now = self.now;
        let remembered = self.entries.get(&address).cloned().and_then(|mut entry| {
            entry.used = now;
            let kept = if self.replicates {
                let least = Self::least(entry.set.iter().map(|number| self.server(*number)));
                if entry.set.len() > 1 && now > entry.changed + self.expiration {
                    let heavy = entry.set.iter().map(|number| self.server(*number));
                    let most = heavy
                        .filter(|server| server.weight > 0)
                        .reduce(|most, it| if it.is_above(most) { it } else { most })
                        .map(|server| server.number);
                    entry.set.retain(|number| Some(*number) != most);
                    if most.is_some() {
                        entry.changed = now;
                    }
                }
                least
            } else {
                let server = self.server(entry.set[0]);
                (server.listed && server.weight > 0).then_some(server.number)
            };
            self.entries.insert(address, entry);
            kept.filter(|number| !self.is_busy(*number))
        });
        remembered.or_else(|| {
            let picked = Self::least(self.servers.iter())?;
            let entry = self.entries.entry(address).or_default();
            entry.used = now;
            if !self.replicates {
                entry.set = vec![picked];
            } else if !entry.set.contains(&picked) {
                entry.set.insert(0, picked);
                entry.set.truncate(MEMBERS);
                entry.changed = now;
            }
            Some(picked)
        })
    }

    fn wait(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.now += 1;
            if self.now.is_multiple_of(60) {
                self.turns += 1;
                if self.turns.is_multiple_of(30) {
                    let (now, expiration) = (self.now, self.expiration);
                    self.entries.retain(|_, entry| entry.used + expiration > now);
                }
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Pick(u8),
    /// The pick becomes a connection.
    Connect(u8),
    Wait(u64),
    Add(i32),
    Remove(Index),
    Edit(Index, i32),
    Overload(Index, bool),
    Load(Index, u32, u32),
}

fn any_step() -> impl Strategy<Value = Step> {
    let wait = prop_oneof![3 => 1u64..90, 1 => 60u64..4000];
    prop_oneof![
        4 => (0u8..6).prop_map(Step::Pick),
        8 => (0u8..6).prop_map(Step::Connect),
        3 => wait.prop_map(Step::Wait),
        1 => (0i32..5).prop_map(Step::Add),
        1 => any::<Index>().prop_map(Step::Remove),
        1 => (any::<Index>(), 0i32..5).prop_map(|(at, weight)| Step::Edit(at, weight)),
        1 => (any::<Index>(), any::<bool>()).prop_map(|(at, mark)| Step::Overload(at, mark)),
        2 => (any::<Index>(), 0u32..6, 0u32..600).prop_map(|(at, a, i)| Step::Load(at, a, i)),
    ]
}

fn key() -> ServiceKey {
    service_key(TCP, vip(false, 0), 80)
}

fn dest(number: u8) -> DestKey {
    dest_key(server(false, number), 80)
}

fn flow(world: &World, address: u32) -> Flow {
    let destination = Addr::v4((0xc612_0000 + address).to_be_bytes());
    Flow { destination, now: world.now(), ..Flow::default() }
}

fn pick(world: &World, address: u32) -> Option<u8> {
    let tables = world.tables();
    let id = sched::pick(tables, tables.service(&key()).unwrap(), &flow(world, address));
    (id != NONE).then(|| tables.dest(id).unwrap().key.addr.v4_octets()[3])
}

fn entries(world: &World) -> u32 {
    let place = world.tables().service(&key()).unwrap().table;
    world.tables().cache(place).unwrap().entries.get()
}

fn bound(scheduler: &str, limits: Limits) -> World {
    let mut world = World::new(Host::default(), limits);
    let spec = service_spec(Family::V4, scheduler, 0);
    world.registry.apply(&[Command::AddService(key(), spec)]).unwrap();
    world
}

fn add(number: u8, weight: i32) -> Command {
    Command::AddDest(key(), dest(number), dest_spec(ForwardingMethod::DirectRoute, weight))
}

/// Both, side by side.
struct Pair {
    world: World,
    model: Model,
}

impl Pair {
    fn new(scheduler: &str, expiration: u32) -> Self {
        let mut world = bound(scheduler, LIMITS);
        let Ok(()) = world.registry.change_settings(|settings| {
            settings.lblc_expiration = expiration;
            settings.lblcr_expiration = expiration;
        });
        let model = Model {
            replicates: scheduler == "lblcr",
            expiration: u64::from(expiration),
            servers: Vec::new(),
            entries: HashMap::new(),
            now: 0,
            turns: 0,
        };
        Self { world, model }
    }

    fn add(&mut self, weight: i32) {
        let number = u8::try_from(self.model.servers.len()).unwrap() + 1;
        self.world.registry.apply(&[add(number, weight)]).unwrap();
        let server = Server {
            number,
            weight: u64::from(weight.unsigned_abs()),
            active: 0,
            inactive: 0,
            overloaded: false,
            listed: true,
        };
        self.model.servers.insert(0, server);
    }

    fn load(&self, number: u8) -> &Load {
        let mut listed = self.world.registry.listed_dests();
        let (id, _) = listed.find(|(_, it)| it.key == dest(number)).unwrap();
        self.world.tables().load(id).unwrap()
    }

    /// One of those on the list.
    fn choose(&mut self, index: Index) -> Option<&mut Server> {
        let mut listed: Vec<_> = self.model.servers.iter_mut().filter(|it| it.listed).collect();
        (!listed.is_empty()).then(|| listed.swap_remove(index.index(listed.len())))
    }

    fn picks_agree(&mut self, address: u8) -> Result<Option<u8>, TestCaseError> {
        let before = self.model.clone();
        let picked = pick(&self.world, u32::from(address));
        prop_assert_eq!(picked, self.model.pick(address), "for {} of {:?}", address, before);
        prop_assert_eq!(entries(&self.world) as usize, self.model.entries.len());
        Ok(picked)
    }

    fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match step {
            Step::Pick(address) => {
                self.picks_agree(*address)?;
            }
            Step::Connect(address) => {
                if let Some(number) = self.picks_agree(*address)? {
                    let servers = &mut self.model.servers;
                    servers.iter_mut().find(|it| it.number == number).unwrap().active += 1;
                    let load = self.load(number);
                    load.active.set(load.active.get() + 1);
                }
            }
            Step::Wait(seconds) => {
                self.model.wait(*seconds);
                self.world.pass_time(seconds * 1000);
                self.world.sweep();
                prop_assert_eq!(entries(&self.world) as usize, self.model.entries.len());
            }
            Step::Add(weight) => self.add(*weight),
            Step::Remove(index) => {
                let Some(server) = self.choose(*index) else { return Ok(()) };
                server.listed = false;
                let number = server.number;
                self.world.registry.apply(&[Command::DeleteDest(key(), dest(number))]).unwrap();
            }
            Step::Edit(index, weight) => {
                let Some(server) = self.choose(*index) else { return Ok(()) };
                server.weight = u64::from(weight.unsigned_abs());
                server.overloaded = false;
                let spec = dest_spec(ForwardingMethod::DirectRoute, *weight);
                let edit = Command::EditDest(key(), dest(server.number), spec);
                self.world.registry.apply(&[edit]).unwrap();
            }
            Step::Overload(index, mark) => {
                let Some(server) = self.choose(*index) else { return Ok(()) };
                server.overloaded = *mark;
                let number = server.number;
                self.load(number).overloaded.set(u32::from(*mark));
            }
            Step::Load(index, active, inactive) => {
                let Some(server) = self.choose(*index) else { return Ok(()) };
                (server.active, server.inactive) = (u64::from(*active), u64::from(*inactive));
                let number = server.number;
                let load = self.load(number);
                load.active.set(*active);
                load.inactive.set(*inactive);
            }
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn picks_and_memory_are_the_model_s(
        scheduler in prop::sample::select(vec!["lblc", "lblcr"]),
        expiration in prop::sample::select(vec![100u32, 1000, 86_400]),
        weights in prop::collection::vec(0i32..5, 0..6),
        steps in prop::collection::vec(any_step(), 1..60),
    ) {
        let mut pair = Pair::new(scheduler, expiration);
        for weight in weights {
            pair.add(weight);
        }
        steps.iter().try_for_each(|step| pair.step(step))?;
    }
}

#[test]
fn without_room_an_address_is_scheduled_and_counted_but_not_remembered() {
    for scheduler in ["lblc", "lblcr"] {
        let mut world = bound(scheduler, Limits { cached: 2, ..LIMITS });
        world.registry.apply(&[add(1, 1), add(2, 1)]).unwrap();
        let picked: Vec<_> = (0..5).map(|address| pick(&world, address)).collect();
        assert_eq!(picked, [Some(2); 5], "{scheduler}");
        assert_eq!((entries(&world), world.tables().counted(Reason::CacheFull)), (2, 3));
        // What is unused makes room.
        world.pass_time(86_400_000 + 1_800_000);
        world.sweep();
        assert_eq!(entries(&world), 0);
        pick(&world, 4);
        assert_eq!((entries(&world), world.tables().counted(Reason::CacheFull)), (1, 3));
    }
}

#[test]
fn a_crowded_cache_loses_a_third_more_than_its_surplus_of_what_was_unused_for_six_minutes() {
    let mut world = bound("lblc", Limits { cached: 20_000, ..LIMITS });
    world.registry.apply(&[add(1, 1)]).unwrap();
    for address in 0..16_684 {
        pick(&world, address);
    }
    for (minute, left) in [(5, 16_684), (6, 16_284), (7, 16_284)] {
        world.pass_time(minute * 60_000 - world.now().nanos() / 1_000_000);
        world.sweep();
        assert_eq!(entries(&world), left, "after {minute} minutes");
    }
}

#[test]
fn a_full_set_gives_its_oldest_member_up() {
    let mut world = bound("lblcr", LIMITS);
    let many = u8::try_from(MEMBERS).unwrap() + 2;
    for number in 1..=many {
        world.registry.apply(&[add(number, 1)]).unwrap();
    }
    let load = |world: &World, number: u8, active: u32| {
        let mut listed = world.registry.listed_dests();
        let (id, _) = listed.find(|(_, it)| it.key == dest(number)).unwrap();
        world.tables().load(id).unwrap().active.set(active);
    };
    // Each member becomes busy, so the next one comes to the set.
    for number in (1..=many).rev() {
        assert_eq!(pick(&world, 0), Some(number));
        load(&world, number, 100 + u32::from(number));
    }
    let place = world.tables().service(&key()).unwrap().table;
    let destination = flow(&world, 0).destination;
    let key = sched::cache::CacheKey { addr: destination, cache: place };
    let members: Vec<u8> = world
        .tables()
        .cached(&key)
        .unwrap()
        .dests()
        .map(|id| world.tables().dest(id).unwrap().key.addr.v4_octets()[3])
        .collect();
    assert_eq!(members, (1..=many - 2).rev().collect::<Vec<_>>());
}
