//! Many edits at a time, each whatever became of those before it.

use core::slice;

use ipvs_core::command::{Command, CommandError};

use super::Registry;
use crate::store::Store;

impl<S: Store> Registry<S> {
    /// Applies `commands` in order and calls `each` with what became of each.
    ///
    /// Services and destinations that are added one after the other, as in a restore, are
    /// written together: a list once, instead of once for each destination on it.
    pub fn apply_each(
        &mut self,
        commands: &[Command],
        each: &mut dyn FnMut(Result<(), CommandError>),
    ) {
        let mut rest = commands;
        while !rest.is_empty() {
            let additions = rest.iter().take_while(|command| adds(command)).count();
            let (now, later) = rest.split_at(additions.max(1));
            self.apply_some(now, each);
            rest = later;
        }
    }

    /// Applies one command, or additions.
    fn apply_some(&mut self, commands: &[Command], each: &mut dyn FnMut(Result<(), CommandError>)) {
        if commands.len() > 1 {
            let mut draft = self.draft();
            let dests = commands.iter().filter_map(|command| match command {
                Command::AddDest(_, key, _) => Some((key.family(), key.addr)),
                _ => None,
            });
            self.store.look_ahead(&dests.collect::<Vec<_>>());
            // Staging refuses an addition before it has touched the draft.
            let outcomes: Vec<_> =
                commands.iter().map(|command| self.stage(&mut draft, command)).collect();
            self.store.look_ahead(&[]);
            match self.commit(draft) {
                Ok(()) => return outcomes.into_iter().for_each(each),
                // Some may fit, and which do not is to be told.
                Err(CommandError::Full { .. }) => {}
                Err(error) => return commands.iter().for_each(|_| each(Err(error))),
            }
        }
        for command in commands {
            each(self.apply(slice::from_ref(command)).map_err(|refused| refused.error));
        }
    }
}

const fn adds(command: &Command) -> bool {
    matches!(command, Command::AddService(..) | Command::AddDest(..))
}

#[cfg(test)]
mod tests {
    use ipvs_core::dest::DestSpec;
    use ipvs_core::service::ServiceSpec;
    use ipvs_core::snapshot::{Control as _, DestStatus};
    use ipvs_core::tables::Tables as _;
    use proptest::prelude::*;

    use super::super::tests::{Tested, dest, registry_of, service};
    use super::*;
    use crate::store::Limits;

    const LIMITS: Limits =
        Limits { services: 3, dests: 6, members: 256, blocks: 64, cached: 8, conns: 4 };

    fn spec(scheduler: &str) -> ServiceSpec {
        let (scheduler, engine) = (scheduler.into(), "".into());
        ServiceSpec { scheduler, engine, flags: 0, timeout: 0, netmask: [255; 4] }
    }

    fn weighing(weight: i32) -> DestSpec {
        DestSpec { weight, ..DestSpec::default() }
    }

    fn together(registry: &mut Tested, commands: &[Command]) -> Vec<Result<(), CommandError>> {
        let mut outcomes = Vec::new();
        registry.apply_each(commands, &mut |outcome| outcomes.push(outcome));
        outcomes
    }

    fn alone(registry: &mut Tested, commands: &[Command]) -> Vec<Result<(), CommandError>> {
        let outcomes = commands.iter().map(|command| registry.apply(slice::from_ref(command)));
        outcomes.map(|outcome| outcome.map_err(|refused| refused.error)).collect()
    }

    /// What a packet finds for a service: its list and its scheduler's word.
    type Found = (Vec<Option<u32>>, u32, u32, Option<u64>);

    fn found(registry: &Tested, port: u16) -> Option<Found> {
        let tables = registry.store();
        let record = tables.service(&service(port))?;
        let members = (0..record.len).map(|place| tables.member(record.place(place))).collect();
        let word = tables.scheduler_word(record.id).map(core::cell::Cell::get);
        Some((members, record.weight_gcd, record.weight_top, word))
    }

    fn listed(registry: &mut Tested, port: u16) -> Vec<DestStatus> {
        let mut listed = Vec::new();
        registry.dests(&service(port), &mut |dest| listed.push(dest));
        listed
    }

    fn assert_same(one: &mut Tested, other: &mut Tested) {
        for port in 80..85 {
            assert_eq!(one.service(&service(port)), other.service(&service(port)));
            assert_eq!(listed(one, port), listed(other, port));
            assert_eq!(found(one, port), found(other, port), "port {port}");
        }
        assert_eq!(one.settings(), other.settings());
    }

    #[test]
    fn weighted_round_robin_begins_where_it_would_after_each_addition_alone() {
        let commands = [
            Command::AddService(service(80), spec("wrr")),
            Command::AddDest(service(80), dest(1), weighing(1)),
            Command::AddDest(service(80), dest(2), weighing(3)),
        ];
        let (mut one, mut other) = (registry_of(LIMITS), registry_of(LIMITS));
        together(&mut one, &commands);
        alone(&mut other, &commands);
        assert_same(&mut one, &mut other);
    }

    #[test]
    fn what_does_not_fit_is_refused_and_the_rest_made() {
        let limits = Limits { members: 3, ..LIMITS };
        let mut registry = registry_of(limits);
        let mut commands = vec![Command::AddService(service(80), spec("rr"))];
        commands
            .extend((1..=4).map(|number| Command::AddDest(service(80), dest(number), weighing(1))));
        let outcomes = together(&mut registry, &commands);
        assert!(outcomes.first().is_some_and(Result::is_ok));
        let full = CommandError::Full { what: "places in destination lists", limit: 3 };
        assert_eq!(outcomes.last(), Some(&Err(full)));
        let made = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        assert_eq!(listed(&mut registry, 80).len(), made - 1);
    }

    fn command() -> impl Strategy<Value = Command> {
        let port = 80..84_u16;
        let scheduler = prop::sample::select(vec!["rr", "wrr", "wlc", "dh", "lblc", "nosuch"]);
        let addition = (port.clone(), 0..6_u8, 0..6_i32).prop_map(|(port, number, weight)| {
            Command::AddDest(service(port), dest(number), weighing(weight - 1))
        });
        prop_oneof![
            4 => (port.clone(), scheduler.clone())
                .prop_map(|(port, name)| Command::AddService(service(port), spec(name))),
            16 => addition,
            1 => (port.clone(), scheduler)
                .prop_map(|(port, name)| Command::EditService(service(port), spec(name))),
            1 => port.clone().prop_map(|port| Command::DeleteService(service(port))),
            2 => (port.clone(), 0..6_u8)
                .prop_map(|(port, number)| Command::DeleteDest(service(port), dest(number))),
            1 => (port, 0..6_u8, 0..4_i32).prop_map(|(port, number, weight)| {
                Command::EditDest(service(port), dest(number), weighing(weight))
            }),
            1 => Just(Command::Flush),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Together or alone, the same becomes of them, and the same is there then.
        #[test]
        fn commands_do_together_what_each_does_alone(
            lists in prop::collection::vec(prop::collection::vec(command(), 0..24), 1..4),
        ) {
            let (mut one, mut other) = (registry_of(LIMITS), registry_of(LIMITS));
            for commands in lists {
                let outcomes = together(&mut one, &commands);
                prop_assert_eq!(outcomes, alone(&mut other, &commands));
                assert_same(&mut one, &mut other);
                one.tick();
                other.tick();
            }
        }
    }
}
