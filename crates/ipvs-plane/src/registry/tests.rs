//! What lists of commands do to places, counts and connections.

use std::cell::Cell;

use ipvs_core::addr::{Addr, AddrKey, AddrUse, Family};
use ipvs_core::command::{Command, CommandError};
use ipvs_core::dest::{DestId, DestKey, DestSpec};
use ipvs_core::hop::{RouteQuery, Way};
use ipvs_core::mark::{self, MarkRule};
use ipvs_core::name::Name;
use ipvs_core::sched::{self, Flow};
use ipvs_core::service::{ServiceKey, ServiceSpec};
use ipvs_core::snapshot::Control as _;
use ipvs_core::sysctl::{self, SysctlError};
use ipvs_core::tables::Tables as _;
use ipvs_core::time::{Instant, Millis};

use super::Registry;
use super::adopt::Found;
use crate::memory::{Host, MemoryTables};
use crate::store::{Limits, Store as _};

/// A host that knows the time, and perhaps one interface.
#[derive(Debug, Default)]
pub(super) struct Clock(Cell<Instant>, Cell<Option<u32>>);

impl Host for Clock {
    fn route(&self, _query: &RouteQuery) -> Way {
        Way::default()
    }

    fn source_towards(&self, _family: Family, _addr: Addr) -> Option<Addr> {
        Some(Addr::UNSPECIFIED)
    }

    fn interface(&self, _name: &str) -> Option<u32> {
        self.1.get()
    }

    fn mtu(&self, _name: &str) -> Option<u32> {
        self.1.get().map(|_| 1500)
    }

    fn now(&self) -> Instant {
        self.0.get()
    }
}

pub(super) type Tested = Registry<MemoryTables<Clock>>;

const LIMITS: Limits =
    Limits { services: 2, dests: 4, members: 16, blocks: 40, cached: 8, conns: 4 };

pub(super) fn registry() -> Tested {
    registry_of(LIMITS)
}

pub(super) fn registry_of(limits: Limits) -> Tested {
    Registry::new(MemoryTables::new(Clock::default(), limits).unwrap()).unwrap()
}

pub(super) fn service(port: u16) -> ServiceKey {
    ServiceKey::address(Family::V4, 6, Addr::v4([192, 0, 2, 10]), port)
}

fn scheduled_by(scheduler: &str) -> ServiceSpec {
    ServiceSpec {
        scheduler: Name::from(scheduler),
        engine: Name::default(),
        flags: 0,
        timeout: 300,
        netmask: [255; 4],
    }
}

pub(super) fn add_service(port: u16) -> Command {
    Command::AddService(service(port), scheduled_by("rr"))
}

pub(super) fn dest(number: u8) -> DestKey {
    DestKey::new(Family::V4, Addr::v4([10, 1, 0, number]), 80)
}

pub(super) fn add_dest(port: u16, number: u8) -> Command {
    let spec = DestSpec { weight: 1, ..DestSpec::default() };
    Command::AddDest(service(port), dest(number), spec)
}

pub(super) fn id_of(registry: &Tested, number: u8) -> Option<DestId> {
    registry.listed_dests().find(|(_, listed)| listed.key == dest(number)).map(|(id, _)| id)
}

/// A connection points at the destination, as far as its counts say.
fn refer_to(registry: &Tested, id: DestId, active: u32) {
    registry.store().load(id).unwrap().active.set(active);
}

/// Two seconds, after which statistics are made anew.
pub(super) fn pass_interval(registry: &mut Tested) {
    let clock = &registry.store().host.0;
    clock.set(clock.get().after(Millis(2_000)));
    registry.tick();
}

pub(super) fn pass_time(registry: &mut Tested, minutes: u32) {
    for _ in 0..minutes {
        let clock = &registry.store().host.0;
        clock.set(clock.get().after(Millis(60_000)));
        registry.tick();
    }
}

/// The list of the only service, as a packet sees it, newest first.
fn members(registry: &Tested) -> Vec<Option<DestId>> {
    let tables = registry.store();
    let record = tables.service(&service(80)).unwrap();
    (0..record.len).map(|position| tables.member(record.place(position))).collect()
}

#[test]
fn services_replaced_in_one_list_give_their_places_back() {
    let mut registry = registry();
    registry.apply(&[add_service(80)]).unwrap();
    for _ in 0..5 {
        let replace = [Command::DeleteService(service(80)), add_service(80)];
        registry.apply(&replace).unwrap();
        registry.tick();
    }
    registry.apply(&[add_service(81)]).unwrap();
}

#[test]
fn services_that_come_and_go_in_one_list_take_no_place() {
    let mut registry = registry();
    for _ in 0..5 {
        registry.apply(&[add_service(80), Command::Flush]).unwrap();
    }
    registry.apply(&[add_service(80), add_service(81)]).unwrap();
    let error = registry.apply(&[add_service(82)]).unwrap_err().error;
    assert_eq!(error, CommandError::Full { what: "services", limit: 2 });
}

#[test]
fn a_destination_deleted_and_added_in_one_list_keeps_its_connections_and_statistics() {
    let mut registry = registry();
    registry.apply(&[add_service(80), add_dest(80, 1), add_dest(80, 2)]).unwrap();
    let id = id_of(&registry, 1).unwrap();
    refer_to(&registry, id, 3);
    registry.store().counters(id).unwrap().count_in(100);
    registry.apply(&[Command::DeleteDest(service(80), dest(1)), add_dest(80, 1)]).unwrap();
    assert_eq!(id_of(&registry, 1), Some(id));
    assert_eq!(members(&registry), [id_of(&registry, 1), id_of(&registry, 2)]);
    pass_interval(&mut registry);
    let mut listed = Vec::new();
    registry.dests(&service(80), &mut |dest| listed.push((dest.active, dest.counters.in_bytes)));
    assert_eq!(listed, [(3, 100), (0, 0)]);
    assert_eq!(registry.service(&service(80)).unwrap().counters.in_bytes, 100);
}

#[test]
fn a_configuration_replaced_in_one_list_keeps_its_connections_but_no_statistics() {
    let mut registry = registry();
    let all = [add_service(80), add_dest(80, 1), add_dest(80, 2)];
    registry.apply(&all).unwrap();
    let id = id_of(&registry, 1).unwrap();
    refer_to(&registry, id, 3);
    registry.store().counters(id).unwrap().count_in(100);
    registry.apply(&[&[Command::Flush][..], &all].concat()).unwrap();
    assert_eq!(id_of(&registry, 1), Some(id));
    assert_eq!(members(&registry), [id_of(&registry, 2), id_of(&registry, 1)]);
    assert_eq!(registry.store().load(id).unwrap().active.get(), 3);
    pass_interval(&mut registry);
    assert_eq!(registry.service(&service(80)).unwrap().counters.in_bytes, 0);
    assert_eq!(registry.statistics().0.in_bytes, 100, "the total forgets nothing");
    // The place of the list is still its own.
    registry.tick();
    registry.apply(&[add_service(81), add_dest(81, 3)]).unwrap();
    assert_eq!(members(&registry), [id_of(&registry, 2), id_of(&registry, 1)]);
}

#[test]
fn a_configuration_that_fills_the_tables_can_be_replaced_by_its_like_in_one_list() {
    let mut registry = registry();
    let all = [add_service(80), add_dest(80, 1), add_dest(80, 2), add_service(81)];
    let all = [&all[..], &[add_dest(81, 1), add_dest(81, 2)]].concat();
    for _ in 0..3 {
        registry.apply(&[&[Command::Flush][..], &all].concat()).unwrap();
    }
    let twice = [&[Command::Flush][..], &all, &[Command::Flush], &all].concat();
    registry.apply(&twice).unwrap();
    assert_eq!(members(&registry).len(), 2);
    // What was refused has taken nothing either.
    let refused = [&[Command::Flush][..], &all, &[add_service(80)]].concat();
    assert_eq!(registry.apply(&refused).unwrap_err().error, CommandError::ServiceExists);
    registry.apply(&[&[Command::Flush][..], &all].concat()).unwrap();
}

#[test]
fn what_the_old_service_counted_is_not_of_the_new_one_in_its_place() {
    let mut registry = registry();
    registry.apply(&[add_service(80), add_dest(80, 1)]).unwrap();
    let id = id_of(&registry, 1).unwrap();
    registry.store().counters(id).unwrap().count_in(100);
    registry.apply(&[Command::Flush, add_service(80), add_dest(80, 2)]).unwrap();
    pass_interval(&mut registry);
    assert_eq!(registry.service(&service(80)).unwrap().counters.in_bytes, 0);
    assert_eq!(registry.statistics().0.in_bytes, 100, "the total forgets nothing");
}

#[test]
fn a_new_daemon_tells_what_the_old_service_left_from_what_is_of_the_new_one() {
    let mut first = registry();
    first.apply(&[add_service(80), add_dest(80, 1)]).unwrap();
    let id = id_of(&first, 1).unwrap();
    refer_to(&first, id, 1);
    first.store().counters(id).unwrap().count_in(100);
    first.apply(&[Command::Flush, add_service(80)]).unwrap();
    let record = *first.store().dest(id).unwrap();
    let services = vec![(*first.store().service(&service(80)).unwrap(), Vec::new())];
    let found = Found { services, dests: [(id, record)].into(), ..Found::default() };
    let mut second = Registry::adopt(first.store, found);
    second.apply(&[add_dest(80, 1)]).unwrap();
    pass_interval(&mut second);
    assert_eq!(second.service(&service(80)).unwrap().counters.in_bytes, 0);
    let mut listed = Vec::new();
    second.dests(&service(80), &mut |dest| listed.push((dest.active, dest.counters.in_bytes)));
    assert_eq!(listed, [(0, 0)]);
}

#[test]
fn settings_change_with_the_rest_of_a_list_or_not_at_all() {
    let mut registry = registry();
    let set =
        |name, value| Command::SetSysctl(sysctl::find(name).unwrap(), sysctl::Value::One(value));
    let refused = [set("sloppy_tcp", 1), add_service(80), set("drop_entry", 4)];
    let refused = registry.apply(&refused).unwrap_err();
    assert_eq!((refused.position, refused.error), (2, CommandError::Invalid));
    assert_eq!(registry.settings().sloppy_tcp, 0);
    assert!(registry.service(&service(80)).is_none());
    let calls = [set("nat_icmp_send", 1), add_service(80), add_dest(80, 1), set("drop_packet", 3)];
    registry.apply(&calls).unwrap();
    let settings = registry.settings();
    assert_eq!((settings.callers, settings.drop_rate), (1, settings.am_droprate));
    registry.apply(&[set("nat_icmp_send", 0)]).unwrap();
    assert_eq!(registry.settings().callers, 0);
}

#[test]
fn a_refused_list_takes_no_place() {
    let mut registry = registry();
    registry.apply(&[add_service(80)]).unwrap();
    for _ in 0..5 {
        let refused = [add_service(81), add_dest(81, 1), add_dest(80, 1), add_dest(80, 1)];
        let refused = registry.apply(&refused).unwrap_err();
        assert_eq!((refused.position, refused.error), (3, CommandError::DestExists));
    }
    registry.apply(&[add_service(81)]).unwrap();
    registry.apply(&(1..=4).map(|number| add_dest(80, number)).collect::<Vec<_>>()).unwrap();
}

#[test]
fn what_a_deleted_service_left_is_freed_after_its_connections_under_a_new_daemon_too() {
    let mut first = registry();
    first.apply(&[add_service(80), add_dest(80, 1)]).unwrap();
    let id = id_of(&first, 1).unwrap();
    refer_to(&first, id, 1);
    first.apply(&[Command::Flush]).unwrap();
    let record = *first.store().dest(id).unwrap();
    let found = Found { dests: [(id, record)].into(), ..Found::default() };

    let mut second = Registry::adopt(first.store, found);
    second.apply(&[add_service(80)]).unwrap();
    let add_all: Vec<_> = (1..=4).map(|number| add_dest(80, number)).collect();
    pass_time(&mut second, 10);
    assert!(second.apply(&add_all).is_err(), "a connection still points there");
    refer_to(&second, id, 0);
    pass_time(&mut second, 4);
    second.apply(&add_all).unwrap();
}

pub(super) fn rebind(scheduler: &str) -> Command {
    Command::EditService(service(80), scheduled_by(scheduler))
}

/// What a new daemon finds of the only service.
pub(super) fn found(registry: &Tested) -> Found {
    let record = *registry.store().service(&service(80)).unwrap();
    let dests = registry.listed_dests().map(|(id, dest)| (id, *dest)).collect();
    let list = registry.services.get(&service(80)).unwrap().dests.clone();
    Found { services: vec![(record, list)], dests, ..Found::default() }
}

#[test]
fn a_new_daemon_keeps_hash_tables_and_the_weights_they_go_by_and_frees_what_is_left_over() {
    let mut first = registry();
    first.apply(&[add_service(80), rebind("mh"), add_dest(80, 1), add_dest(80, 2)]).unwrap();
    let Command::AddDest(_, _, spec) = add_dest(80, 1) else { unreachable!() };
    let quiesce =
        |number| Command::EditDest(service(80), dest(number), DestSpec { weight: 0, ..spec });
    // The blocks of the first table rest, and the daemon dies before it frees them.
    first.apply(&[quiesce(1)]).unwrap();
    assert_eq!(first.store.blocks().len(), 32);
    let slots = |registry: &Tested| -> Vec<_> {
        let table = registry.store().service(&service(80)).unwrap().table;
        (0..4093).map(|slot| registry.store().slot(table, slot)).collect()
    };
    let before = slots(&first);
    assert!(before.iter().all(Option::is_some));

    let found = found(&first);
    let mut second = Registry::adopt(first.store, found);
    assert_eq!(second.store.blocks().len(), 16);
    assert_eq!(slots(&second), before);
    // Both weights are 0 now, and the table is still that of their last ones.
    second.apply(&[quiesce(2)]).unwrap();
    second.tick();
    assert_eq!(slots(&second), before);
    assert_eq!(second.store.blocks().len(), 16);
    second.apply(&[rebind("rr")]).unwrap();
    second.tick();
    assert_eq!(second.store.blocks(), [0_u32; 0]);
}

/// Schedules a packet to the virtual address now.
fn pick(registry: &Tested) -> DestId {
    let tables = registry.store();
    let flow = Flow { destination: service(80).addr, now: tables.host.now(), ..Flow::default() };
    sched::pick(tables, tables.service(&service(80)).unwrap(), &flow)
}

#[test]
fn a_deleted_destination_waits_while_a_cache_names_it_under_a_new_daemon_too() {
    for scheduler in ["lblc", "lblcr"] {
        let mut first = registry();
        first.apply(&[add_service(80), rebind(scheduler), add_dest(80, 1)]).unwrap();
        let id = pick(&first);
        first.apply(&[Command::DeleteDest(service(80), dest(1))]).unwrap();
        pass_time(&mut first, 10);
        let found =
            Found { dests: [(id, *first.store().dest(id).unwrap())].into(), ..found(&first) };
        let mut second = Registry::adopt(first.store, found);
        assert_eq!(second.store.open_caches(), [0]);
        pass_time(&mut second, 10);
        second.apply(&[add_dest(80, 1)]).unwrap();
        assert_eq!(id_of(&second, 1), Some(id), "{scheduler}");
        assert_eq!(pick(&second), id);
        // Another scheduler remembers nothing: the destination is freed in time.
        second.apply(&[Command::DeleteDest(service(80), dest(1)), rebind("rr")]).unwrap();
        pass_time(&mut second, 4);
        assert_eq!((second.store.open_caches(), second.store.cached_dests().len()), (vec![], 0));
        assert!(!second.dests.contains_key(&id));
    }
}

#[test]
fn a_cache_keeps_what_it_knows_over_edits_and_none_of_it_for_the_next_service() {
    let mut registry = registry();
    registry.apply(&[add_service(80), rebind("lblc"), add_dest(80, 1), add_dest(80, 2)]).unwrap();
    let id = pick(&registry);
    refer_to(&registry, id, 1);
    assert_eq!(pick(&registry), id, "not busy, it keeps what is for the address");
    registry.apply(&[add_dest(80, 3), Command::DeleteDest(service(80), dest(1))]).unwrap();
    assert_eq!(pick(&registry), id);
    // The daemon dies before it empties what the deleted service had.
    registry.apply(&[Command::Flush]).unwrap();
    assert_eq!(registry.store.cached_dests().len(), 1);
    let mut second = Registry::adopt(registry.store, Found::default());
    assert_eq!((second.store.open_caches(), second.store.cached_dests().len()), (vec![], 0));
    second.apply(&[add_service(80), rebind("lblc"), add_dest(80, 1)]).unwrap();
    assert_eq!(Some(pick(&second)), id_of(&second, 1));
}

#[test]
fn places_are_used_in_order_after_a_refused_list() {
    let mut registry = registry();
    registry.apply(&[add_service(80)]).unwrap();
    let refused = [add_dest(80, 1), add_dest(80, 2), add_dest(80, 3), add_dest(80, 3)];
    registry.apply(&refused).unwrap_err();
    for (number, id) in [(1, 0), (2, 1), (3, 2), (4, 3)] {
        registry.apply(&[add_dest(80, number)]).unwrap();
        assert_eq!(id_of(&registry, number), Some(id));
    }
}

#[test]
fn addresses_are_known_as_long_as_services_or_connections_have_them() {
    let mut registry = registry();
    let uses =
        |registry: &Tested, addr: Addr| registry.store().addr_use(&AddrKey::new(Family::V4, addr));
    let (vip, server) = (service(80).addr, dest(1).addr);
    assert_eq!((uses(&registry, vip), uses(&registry, server)), (0, 0));
    registry.apply(&[add_service(80), add_service(81), add_dest(80, 1)]).unwrap();
    assert_eq!(uses(&registry, vip), AddrUse::SERVICE);
    assert_eq!(uses(&registry, server), AddrUse::TRANSLATED);
    // It may have connections: an edit forgets nothing.
    let Command::AddDest(key, dest, mut spec) = add_dest(80, 1) else { unreachable!() };
    spec.method = 3;
    registry.apply(&[Command::EditDest(key, dest, spec)]).unwrap();
    registry.tick();
    assert_eq!(uses(&registry, server), AddrUse::TRANSLATED);
    let id = id_of(&registry, 1).unwrap();
    refer_to(&registry, id, 1);
    registry.apply(&[Command::DeleteService(service(80))]).unwrap();
    pass_time(&mut registry, 5);
    assert_eq!(uses(&registry, vip), AddrUse::SERVICE, "the other service has it");
    assert_eq!(uses(&registry, server), AddrUse::TRANSLATED, "a connection is left");
    refer_to(&registry, id, 0);
    registry.apply(&[Command::DeleteService(service(81))]).unwrap();
    pass_time(&mut registry, 5);
    assert_eq!((uses(&registry, vip), uses(&registry, server)), (0, 0));
}

/// The list of mark rules as a packet sees it.
fn marks(registry: &Tested) -> Vec<MarkRule> {
    let (first, len) = mark::places(registry.settings().mark_rules);
    (first..first + len).map(|place| *registry.store().mark_rule(place).unwrap()).collect()
}

fn on(interface: &[u8], mark: u32) -> MarkRule {
    let mut rule = MarkRule::any(Family::V4, mark, u32::MAX);
    rule.interface[..interface.len()].copy_from_slice(interface);
    rule.named()
}

#[test]
fn mark_rules_are_replaced_as_a_whole_in_other_places() {
    let mut registry = registry();
    let (one, two) = (on(b"", 1), on(b"", 2));
    registry.apply(&[Command::AddMarkRule(one), Command::AddMarkRule(two)]).unwrap();
    let before = mark::places(registry.settings().mark_rules).0;
    assert_eq!(marks(&registry), [one, two]);
    let error = registry.apply(&[Command::FlushMarkRules, Command::DeleteMarkRule(one)]);
    assert_eq!(error.unwrap_err().error, CommandError::NoSuchMarkRule);
    assert_eq!(marks(&registry), [one, two]);
    registry.apply(&[Command::DeleteMarkRule(one), Command::AddMarkRule(one)]).unwrap();
    assert_eq!(marks(&registry), [two, one]);
    assert_ne!(mark::places(registry.settings().mark_rules).0, before, "a packet may look there");
    let error = registry.apply(&[Command::AddMarkRule(two)]).unwrap_err().error;
    assert_eq!(error, CommandError::MarkRuleExists);
    registry.apply(&[Command::FlushMarkRules]).unwrap();
    assert_eq!(registry.settings().mark_rules, 0);
}

#[test]
fn as_many_mark_rules_as_there_may_be_can_be_replaced_again_and_again() {
    let mut registry = registry();
    let all = || (1..=mark::MAX_RULES).map(|number| Command::AddMarkRule(on(b"", number)));
    for _ in 0..9 {
        let commands: Vec<_> = std::iter::once(Command::FlushMarkRules)
            .chain(all().rev())
            .chain([Command::FlushMarkRules])
            .chain(all())
            .collect();
        registry.apply(&[Command::FlushMarkRules]).unwrap();
        registry.apply(&commands).unwrap();
        assert_eq!(marks(&registry).len(), mark::MAX_RULES as usize);
    }
    let more = registry.apply(&[Command::AddMarkRule(on(b"", 5000))]).unwrap_err().error;
    assert_eq!(more, CommandError::Full { what: "mark rules", limit: mark::MAX_RULES });
}

#[test]
fn a_mark_rule_waits_for_its_interface_and_follows_it() {
    let mut registry = registry();
    registry.apply(&[Command::AddMarkRule(on(b"eth7", 1))]).unwrap();
    assert_eq!(marks(&registry)[0].ifindex, mark::NO_INTERFACE);
    registry.store_mut().host.1.set(Some(17));
    registry.refresh_marks().unwrap();
    assert_eq!(marks(&registry)[0].ifindex, 17);
    let found =
        Found { settings: *registry.settings(), mark_rules: marks(&registry), ..Found::default() };
    let mut second = Registry::adopt(registry.store, found);
    assert_eq!(second.mark_rules(), [on(b"eth7", 1)]);
    second.apply(&[Command::DeleteMarkRule(on(b"eth7", 1))]).unwrap();
}

/// Octets that came in, as they are shown of the service, of its only
/// destination, and of everything together.
fn shown(registry: &mut Tested) -> [u64; 3] {
    let mut of_dest = 0;
    registry.dests(&service(80), &mut |dest| of_dest = dest.counters.in_bytes);
    let of_service = registry.service(&service(80)).unwrap().counters.in_bytes;
    [of_service, of_dest, registry.statistics().0.in_bytes]
}

#[test]
fn statistics_are_those_of_the_last_look_and_a_new_zero_point_is_there() {
    let mut registry = registry();
    registry.apply(&[add_service(80), add_dest(80, 1)]).unwrap();
    let id = id_of(&registry, 1).unwrap();
    let count = |registry: &Tested, octets| registry.store().counters(id).unwrap().count_in(octets);
    count(&registry, 100);
    assert_eq!(shown(&mut registry), [0; 3]);
    pass_interval(&mut registry);
    count(&registry, 10);
    assert_eq!(shown(&mut registry), [100; 3]);
    assert_eq!(registry.service(&service(80)).unwrap().rates.in_bytes, 12);
    registry.apply(&[Command::Zero(Some(service(80)))]).unwrap();
    assert_eq!(shown(&mut registry), [0, 0, 100], "the total has its own zero point");
    assert_eq!(registry.service(&service(80)).unwrap().rates.in_bytes, 0);
    pass_interval(&mut registry);
    assert_eq!(shown(&mut registry), [10, 10, 110], "what was not looked at comes after it");
    registry.apply(&[Command::Zero(None)]).unwrap();
    assert_eq!(shown(&mut registry), [0; 3]);
}

#[test]
fn statistics_stand_still_while_estimation_is_off() {
    let mut registry = registry();
    registry.apply(&[add_service(80), add_dest(80, 1)]).unwrap();
    let id = id_of(&registry, 1).unwrap();
    registry.set_sysctl("run_estimation", "0").unwrap();
    registry.store().counters(id).unwrap().count_in(100);
    pass_interval(&mut registry);
    assert_eq!(shown(&mut registry), [0; 3]);
    registry.set_sysctl("run_estimation", "1").unwrap();
    pass_interval(&mut registry);
    assert_eq!(shown(&mut registry), [100; 3]);
}

#[test]
fn the_total_keeps_what_was_deleted_and_counts_nothing_twice() {
    let mut registry = registry();
    registry.apply(&[add_service(80), add_dest(80, 1)]).unwrap();
    let id = id_of(&registry, 1).unwrap();
    refer_to(&registry, id, 1);
    registry.store().counters(id).unwrap().count_in(100);
    for _ in 0..3 {
        registry.apply(&[Command::DeleteDest(service(80), dest(1))]).unwrap();
        pass_interval(&mut registry);
        assert_eq!(registry.statistics().0.in_bytes, 100);
        registry.apply(&[add_dest(80, 1)]).unwrap();
        pass_interval(&mut registry);
        assert_eq!(shown(&mut registry), [100; 3]);
    }
    let mut cpus = 0;
    registry.cpu_counters(&mut |counters| cpus += counters.in_bytes);
    assert_eq!(cpus, 100);
    registry.apply(&[Command::Flush]).unwrap();
    pass_interval(&mut registry);
    assert_eq!(registry.statistics().0.in_bytes, 100);
}

#[test]
fn a_mode_that_memory_decides_reads_back_what_memory_decided() {
    let mut registry = registry();
    registry.set_sysctl("secure_tcp", "2").unwrap();
    assert_eq!(registry.settings().secure_tcp, 1);
    // More pages than the host has.
    registry.set_sysctl("amemthresh", "2000000000").unwrap();
    assert_eq!(registry.settings().secure_tcp, 2);
    registry.set_sysctl("drop_packet", "1").unwrap();
    assert_eq!((registry.settings().drop_packet, registry.settings().drop_rate), (2, 1));
    assert_eq!(registry.set_sysctl("drop_packet", "4"), Err(SysctlError::Invalid));
    registry.set_sysctl("amemthresh", "0").unwrap();
    assert_eq!((registry.settings().drop_packet, registry.settings().drop_rate), (1, 0));
}
