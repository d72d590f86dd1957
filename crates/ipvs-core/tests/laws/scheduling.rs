//! Laws of schedulers: every pick is that of an independent, dumb model.

use ipvs_core::addr::Family;
use ipvs_core::command::Command;
use ipvs_core::conn::NONE;
use ipvs_core::dest::{DestKey, ForwardingMethod};
use ipvs_core::sched::{self, Flow};
use ipvs_core::tables::Tables as _;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::packet::TCP;
use crate::world::{Host, World, dest_key, dest_spec, server, service_key, service_spec, vip};

/// A destination of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Server {
    number: u8,
    weight: u64,
    active: u64,
    inactive: u64,
    overloaded: bool,
}

impl Server {
    fn is_usable(&self) -> bool {
        self.weight > 0 && !self.overloaded
    }

    fn overhead(&self) -> u64 {
        self.active * 256 + self.inactive
    }
}

/// The service's list, newest first, and what its scheduler remembers.
#[derive(Clone, Debug, Default)]
struct Model {
    servers: Vec<Server>,
    /// The position that the next pick begins after.
    cursor: Option<usize>,
    /// wrr: the level it goes on in.
    level: u64,
}

impl Model {
    fn pick(&mut self, scheduler: &str) -> Option<u8> {
        let position = match scheduler {
            "rr" => self.round_robin(),
            "wrr" => return self.weighted_round_robin().map(|at| self.servers[at].number),
            "lc" => self.least(|server| (server.overhead(), 1)),
            "wlc" => self.least(|server| (server.overhead(), server.weight)),
            "sed" => self.least(|server| (server.active + 1, server.weight)),
            "nq" => {
                let idle = |server: &Server| server.is_usable() && server.active == 0;
                let idle = self.servers.iter().position(idle);
                idle.or_else(|| self.least(|server| (server.active + 1, server.weight)))
            }
            "fo" => self.heaviest(|_| true),
            "ovf" => self.heaviest(|server| server.active <= server.weight),
            _ => None,
        };
        position.map(|at| self.servers[at].number)
    }

    /// The list from the place after the cursor, once around.
    fn round_robin(&mut self) -> Option<usize> {
        let len = self.servers.len();
        let first = self.cursor.map_or(0, |cursor| cursor + 1);
        let found =
            (first..first + len).map(|at| at % len).find(|at| self.servers[*at].is_usable());
        self.cursor = found.or(self.cursor);
        found
    }

    /// The first in the list of the smallest quotients, compared exactly.
    fn least(&self, quotient: impl Fn(&Server) -> (u64, u64)) -> Option<usize> {
        let usable = (0..self.servers.len()).filter(|at| self.servers[*at].is_usable());
        usable.min_by(|a, b| {
            let (over, under) = quotient(&self.servers[*a]);
            let (other_over, other_under) = quotient(&self.servers[*b]);
            let left = u128::from(over) * u128::from(other_under);
            left.cmp(&(u128::from(other_over) * u128::from(under)))
        })
    }

    /// The first in the list of the heaviest that are eligible.
    fn heaviest(&self, eligible: impl Fn(&Server) -> bool) -> Option<usize> {
        let eligible = |at: &usize| self.servers[*at].is_usable() && eligible(&self.servers[*at]);
        let at: Vec<usize> = (0..self.servers.len()).filter(eligible).collect();
        let most = at.iter().map(|at| self.servers[*at].weight).max()?;
        at.into_iter().find(|at| self.servers[*at].weight == most)
    }

    fn divisor(&self) -> u64 {
        let weights: Vec<u64> =
            self.servers.iter().map(|server| server.weight).filter(|weight| *weight > 0).collect();
        let divides = |by: &u64| weights.iter().all(|weight| weight % by == 0);
        let least = weights.iter().min().copied().unwrap_or(1);
        (1..=least).rev().find(divides).unwrap_or(1)
    }

    /// The levels of one round, from the top down to 1.
    fn levels(&self) -> Vec<u64> {
        let most = self.servers.iter().map(|server| server.weight).max().unwrap_or(0);
        let divisor = self.divisor();
        (0..most / divisor).rev().map(|step| step * divisor + 1).collect()
    }

    /// Written down as the list of all slots to be tried, in their order: the
    /// rest of the present level, the levels below, and, if the round began
    /// inside the lowest level, the next round as far as where it began.
    fn weighted_round_robin(&mut self) -> Option<usize> {
        let levels = self.levels();
        let len = self.servers.len();
        let (&top, &lowest) = (levels.first()?, levels.last()?);
        let first = self.cursor.map_or(0, |cursor| cursor + 1);
        let mut slots: Vec<(u64, usize)> = (first..len).map(|at| (self.level, at)).collect();
        let below = levels.iter().filter(|level| **level < self.level);
        slots.extend(below.flat_map(|level| (0..len).map(|at| (*level, at))));
        let began_inside = self.cursor.filter(|_| self.level == lowest);
        if let Some(cursor) = began_inside {
            slots.extend(levels.iter().flat_map(|level| (0..len).map(|at| (*level, at))));
            // Not the part of the lowest level that was tried at the beginning.
            slots.truncate(slots.len() - (len - cursor - 1));
        }
        let fits = |(level, at): &(u64, usize)| {
            !self.servers[*at].overloaded && self.servers[*at].weight >= *level
        };
        let found = slots.into_iter().find(fits);
        match found {
            Some((level, at)) => (self.level, self.cursor) = (level, Some(at)),
            None => self.level = if began_inside.is_some() { lowest } else { top },
        }
        found.map(|(_, at)| at)
    }

    /// What an edit does to the memory of wrr (spec 3.2).
    fn recompute(&mut self) {
        let levels = self.levels();
        let top = levels.first().copied().unwrap_or(0);
        let divisor = self.divisor();
        self.cursor = None;
        if self.level > top || self.level == 0 {
            self.level = top;
        } else if divisor > 1 {
            self.level = self.level / divisor * divisor + 1;
        }
    }

    fn removed(&mut self, at: usize) {
        self.servers.remove(at);
        // A cursor on it or behind it moves one towards the head, or onto it.
        self.cursor = match self.cursor {
            Some(cursor) if cursor >= at => cursor.checked_sub(1),
            cursor => cursor,
        };
    }
}

#[derive(Clone, Debug)]
enum Step {
    Pick(usize),
    Add(i32),
    Remove(Index),
    Edit(Index, i32),
    Overload(Index, bool),
    OverloadAll(bool),
    Load(Index, u32, u32),
    /// The pick becomes a connection.
    Connect,
}

fn any_weight() -> impl Strategy<Value = i32> {
    prop_oneof![1 => Just(0), 6 => 1i32..8, 2 => prop::sample::select(vec![10, 20, 30, 60])]
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1usize..12).prop_map(Step::Pick),
        6 => Just(Step::Connect),
        2 => any_weight().prop_map(Step::Add),
        1 => any::<Index>().prop_map(Step::Remove),
        1 => (any::<Index>(), any_weight()).prop_map(|(at, weight)| Step::Edit(at, weight)),
        2 => (any::<Index>(), any::<bool>()).prop_map(|(at, mark)| Step::Overload(at, mark)),
        2 => any::<bool>().prop_map(Step::OverloadAll),
        2 => (any::<Index>(), 0u32..6, 0u32..600).prop_map(|(at, a, i)| Step::Load(at, a, i)),
    ]
}

/// Both, side by side.
struct Pair {
    scheduler: &'static str,
    world: World,
    model: Model,
    added: u8,
}

impl Pair {
    fn new(scheduler: &'static str) -> Self {
        let mut world = World::new(Host::default(), crate::world::LIMITS);
        let spec = service_spec(Family::V4, scheduler, 0);
        world.registry.apply(&[Command::AddService(Self::key(), spec)]).unwrap();
        Self { scheduler, world, model: Model::default(), added: 0 }
    }

    fn key() -> ipvs_core::service::ServiceKey {
        service_key(TCP, vip(false, 0), 80)
    }

    fn dest(number: u8) -> DestKey {
        dest_key(server(false, number), 80)
    }

    fn apply(&mut self, command: Command) {
        self.world.registry.apply(&[command]).unwrap();
    }

    fn add(&mut self, weight: i32) {
        self.added += 1;
        let (number, spec) = (self.added, dest_spec(ForwardingMethod::DirectRoute, weight));
        self.apply(Command::AddDest(Self::key(), Self::dest(number), spec));
        let weight = u64::from(weight.unsigned_abs());
        let new = Server { number, weight, active: 0, inactive: 0, overloaded: false };
        self.model.servers.insert(0, new);
        self.model.cursor = self.model.cursor.map(|cursor| cursor + 1);
        self.edited();
    }

    fn edited(&mut self) {
        if self.scheduler == "wrr" {
            self.model.recompute();
        }
    }

    fn load(&self, number: u8) -> &ipvs_core::dest::Load {
        let mut listed = self.world.registry.listed_dests();
        let (id, _) = listed.find(|(_, dest)| dest.key == Self::dest(number)).unwrap();
        self.world.tables().load(id).unwrap()
    }

    fn overload(&mut self, at: usize, mark: bool) {
        self.model.servers[at].overloaded = mark;
        self.load(self.model.servers[at].number).overloaded.set(u32::from(mark));
    }

    fn picks_agree(&mut self) -> Result<Option<u8>, TestCaseError> {
        let before = self.model.clone();
        let tables = self.world.tables();
        let id = sched::pick(tables, tables.service(&Self::key()).unwrap(), &Flow::default());
        let picked = (id != NONE).then(|| tables.dest(id).unwrap().key.addr.v4_octets()[3]);
        prop_assert_eq!(
            picked,
            self.model.pick(self.scheduler),
            "{} of {:?}",
            self.scheduler,
            before
        );
        Ok(picked)
    }

    fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        let len = self.model.servers.len();
        let at = |index: &Index| (len > 0).then(|| index.index(len));
        match step {
            Step::Pick(times) => {
                for _ in 0..*times {
                    self.picks_agree()?;
                }
            }
            Step::Connect => {
                if let Some(picked) = self.picks_agree()? {
                    let servers = &mut self.model.servers;
                    let server = servers.iter_mut().find(|server| server.number == picked);
                    server.unwrap().active += 1;
                    let load = self.load(picked);
                    load.active.set(load.active.get() + 1);
                }
            }
            Step::Add(weight) => self.add(*weight),
            Step::Remove(index) => {
                let Some(at) = at(index) else { return Ok(()) };
                let number = self.model.servers[at].number;
                self.apply(Command::DeleteDest(Self::key(), Self::dest(number)));
                self.model.removed(at);
                self.edited();
            }
            Step::Edit(index, weight) => {
                let Some(at) = at(index) else { return Ok(()) };
                let server = &mut self.model.servers[at];
                server.weight = u64::from(weight.unsigned_abs());
                // An edit looks at the thresholds anew, and there are none.
                server.overloaded = false;
                let spec = dest_spec(ForwardingMethod::DirectRoute, *weight);
                let number = server.number;
                self.apply(Command::EditDest(Self::key(), Self::dest(number), spec));
                self.edited();
            }
            Step::Overload(index, mark) => {
                let Some(at) = at(index) else { return Ok(()) };
                self.overload(at, *mark);
            }
            Step::OverloadAll(mark) => (0..len).for_each(|at| self.overload(at, *mark)),
            Step::Load(index, active, inactive) => {
                let Some(at) = at(index) else { return Ok(()) };
                let server = &mut self.model.servers[at];
                (server.active, server.inactive) = (u64::from(*active), u64::from(*inactive));
                let load = self.load(self.model.servers[at].number);
                load.active.set(*active);
                load.inactive.set(*inactive);
            }
        }
        Ok(())
    }
}

fn picks_are_the_model_s(
    scheduler: &'static str,
    weights: &[i32],
    steps: &[Step],
) -> Result<(), TestCaseError> {
    let mut pair = Pair::new(scheduler);
    for weight in weights {
        pair.add(*weight);
    }
    steps.iter().try_for_each(|step| pair.step(step))
}

/// One property for each scheduler, by its name.
macro_rules! laws {
    ($($law:ident: $scheduler:literal,)+) => {
        proptest! {
            #![proptest_config(ProptestConfig::with_cases(128))]
            $(#[test]
            fn $law(
                weights in prop::collection::vec(any_weight(), 0..6),
                steps in prop::collection::vec(any_step(), 1..50),
            ) {
                picks_are_the_model_s($scheduler, &weights, &steps)?;
            })+
        }
    };
}

laws! {
    rr_takes_the_next_usable_one: "rr",
    wrr_walks_level_by_level: "wrr",
    lc_takes_the_first_of_the_least_loaded: "lc",
    wlc_takes_the_first_of_the_least_loaded_per_weight: "wlc",
    sed_takes_the_first_of_the_shortest_delays: "sed",
    nq_takes_the_first_idle_one_or_as_sed: "nq",
    fo_takes_the_first_of_the_heaviest: "fo",
    ovf_takes_the_first_of_the_heaviest_with_room: "ovf",
    none_takes_nobody: "none",
}

/// The worked examples of weighted round robin (spec A.4).
#[test]
fn the_model_and_the_code_give_the_known_rounds_of_wrr() {
    let rounds = [
        (&[4, 3, 2][..], "aababcabc"),
        (&[1, 2, 3], "cbcabc"),
        (&[2, 4, 6], "cbcabccbcabc"),
        (&[5, 1], "aaaaab"),
    ];
    for (weights, round) in rounds {
        let mut pair = Pair::new("rr");
        // The list begins with the one added last.
        for weight in weights.iter().rev() {
            pair.add(*weight);
        }
        // Bound to a list that is there, the walk begins at the top.
        pair.scheduler = "wrr";
        let spec = service_spec(Family::V4, "wrr", 0);
        pair.apply(Command::EditService(Pair::key(), spec));
        pair.model.recompute();
        let len = u8::try_from(weights.len()).unwrap();
        for letter in round.repeat(2).bytes() {
            let picked = pair.picks_agree().unwrap().unwrap();
            assert_eq!(letter, b'a' + (len - picked), "{weights:?}");
        }
    }
}

proptest! {
    /// A full round gives each destination its weight over the divisor.
    #[test]
    fn a_round_of_wrr_is_shared_by_weight(weights in prop::collection::vec(1i32..40, 1..6)) {
        let mut pair = Pair::new("wrr");
        for weight in &weights {
            pair.add(*weight);
        }
        let divisor = i32::try_from(pair.model.divisor()).unwrap();
        let mut picks = vec![0; weights.len()];
        for _ in 0..weights.iter().sum::<i32>() / divisor {
            picks[usize::from(pair.picks_agree()?.unwrap()) - 1] += divisor;
        }
        prop_assert_eq!(picks, weights);
    }
}
