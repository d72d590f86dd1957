//! What the registry measures.

use crate::measure::{MeasuredDest, MeasuredService, Measures, Table};
use crate::store::{Owner, Store};

use super::{Entry, Registry};

impl<S: Store> Registry<S> {
    /// Counters whatever the zero point, loads, and how full the tables are.
    pub fn measure(&mut self) -> Measures {
        let entries: Vec<Entry> = self.services.values().cloned().collect();
        let services = entries.into_iter().map(|entry| self.measure_service(&entry)).collect();
        Measures {
            services,
            total: self.counted(Owner::Total),
            tables: self.measure_tables(),
            adoptions: self.store.account(Owner::Total).adoptions,
        }
    }

    fn measure_service(&mut self, entry: &Entry) -> MeasuredService {
        let mut dests = Vec::with_capacity(entry.dests.len());
        for id in &entry.dests {
            let Some(dest) = self.dests.get(id).copied() else { continue };
            dests.push(MeasuredDest {
                key: dest.key,
                weight: dest.weight(),
                drains: dest.is_draining(),
                load: self.store.load_values(*id),
                counters: self.counted(Owner::Dest(*id)),
            });
        }
        MeasuredService {
            key: entry.key,
            scheduler: entry.spec.scheduler,
            counters: self.counted(Owner::Service(entry.id)),
            dests,
        }
    }

    fn measure_tables(&mut self) -> Vec<Table> {
        let limits = self.store.limits();
        let mut conns = 0;
        self.store.each_conn(&mut |_, _| conns += 1);
        let table =
            |name, entries, capacity: u32| Table { name, entries, capacity: capacity.into() };
        vec![
            table("connections", conns, limits.conns),
            table("services", self.services.len() as u64, limits.services),
            // Those in the trash take their places still.
            table("destinations", self.dests.len() as u64, limits.dests),
        ]
    }
}

#[cfg(test)]
mod tests {
    use ipvs_core::command::Command;
    use ipvs_core::dest::{DestId, DestSpec};
    use ipvs_core::snapshot::Control as _;
    use ipvs_core::tables::Tables as _;

    use super::*;
    use crate::registry::tests::{
        Tested, add_dest, add_service, dest, found, id_of, pass_interval, rebind, registry, service,
    };

    fn id(registry: &Tested) -> DestId {
        id_of(registry, 1).unwrap()
    }

    fn count(registry: &mut Tested, octets: u64) {
        registry.store().counters(id(registry)).unwrap().count_in(octets);
        pass_interval(registry);
    }

    /// Octets of the total, of the only service and of its destinations.
    fn octets(registry: &mut Tested) -> (u64, u64, Vec<u64>) {
        let measures = registry.measure();
        let [service] = measures.services.as_slice() else { panic!("{measures:?}") };
        let dests = service.dests.iter().map(|dest| dest.counters.in_bytes).collect();
        (measures.total.in_bytes, service.counters.in_bytes, dests)
    }

    #[test]
    fn neither_a_zero_point_nor_an_edit_takes_a_counter_back() {
        let mut registry = registry();
        registry.apply(&[add_service(80), add_dest(80, 1)]).unwrap();
        count(&mut registry, 100);
        registry.apply(&[Command::Zero(None)]).unwrap();
        assert_eq!(registry.service(&service(80)).unwrap().counters.in_bytes, 0);
        assert_eq!(octets(&mut registry), (100, 100, vec![100]));
        let quiesce = Command::EditDest(service(80), dest(1), DestSpec::default());
        registry.apply(&[rebind("wlc"), quiesce]).unwrap();
        count(&mut registry, 10);
        assert_eq!(octets(&mut registry), (110, 110, vec![110]));
        assert_eq!(registry.measure().services[0].dests[0].weight, 0);
    }

    #[test]
    fn what_is_deleted_leaves_its_count_behind() {
        let mut registry = registry();
        registry.apply(&[add_service(80), add_dest(80, 1)]).unwrap();
        count(&mut registry, 100);
        registry.apply(&[Command::DeleteDest(service(80), dest(1))]).unwrap();
        assert_eq!(octets(&mut registry), (100, 100, vec![]));
        registry.apply(&[Command::Flush, add_service(80)]).unwrap();
        pass_interval(&mut registry);
        assert_eq!(octets(&mut registry), (100, 0, vec![]));
    }

    #[test]
    fn the_next_daemon_goes_on_counting_and_is_counted() {
        let mut first = registry();
        first.apply(&[add_service(80), add_dest(80, 1)]).unwrap();
        count(&mut first, 100);
        first.apply(&[Command::Zero(None)]).unwrap();
        assert_eq!(first.measure().adoptions, 0);
        for adoptions in 1..=2 {
            let found = found(&first);
            let mut next = Registry::adopt(first.store, found);
            assert_eq!(octets(&mut next), (100, 100, vec![100]));
            assert_eq!(next.measure().adoptions, adoptions);
            first = next;
        }
        count(&mut first, 10);
        assert_eq!(octets(&mut first), (110, 110, vec![110]));
    }

    #[test]
    fn tables_are_as_full_as_there_are_entries() {
        let mut registry = registry();
        registry.apply(&[add_service(80), add_dest(80, 1), add_dest(80, 2)]).unwrap();
        let tables = registry.measure().tables;
        let shown = tables.iter().map(|it| (it.name, it.entries, it.capacity)).collect::<Vec<_>>();
        assert_eq!(shown, [("connections", 0, 4), ("services", 1, 2), ("destinations", 2, 4)]);
    }
}
