//! Laws of what stays: counts, destinations of flows and listings, through
//! random commands, packets and times.

use std::collections::HashMap;

use ipvs_core::addr::Family;
use ipvs_core::command::{Command, TimeoutEdit};
use ipvs_core::conn::{ConnFlags, ConnId, NONE, Tuple};
use ipvs_core::dest::{Dest, DestId, DestKey, DestSpec, ForwardingMethod};
use ipvs_core::service::{SchedulerKind, ServiceFlags, ServiceKey, ServiceSpec};
use ipvs_core::snapshot::{Control as _, DestStatus, ServiceStatus};
use ipvs_core::stats::Rates;
use ipvs_core::tables::Tables as _;
use ipvs_core::verdict::Verdict;
use ipvs_plane::memory::MemoryTables;
use ipvs_plane::registry::Registry;
use ipvs_plane::registry::adopt::Found;
use proptest::prelude::*;

use crate::packet::{ACK, FIN, INIT, RST, SCTP, SYN, Shape, TCP, UDP};
use crate::world::{
    Host, INSIDE, LIMITS, OUTSIDE, World, client, dest_key, dest_spec, own_mac, server,
    service_key, service_spec, vip,
};

/// One thing that happens to a director.
#[derive(Clone, Debug)]
enum Event {
    /// A list of commands, which may be refused.
    Commands(Vec<Command>),
    /// A client's packet: client, port, service, what it means.
    Request(u8, u16, usize, u8),
    /// A server's packet: client, port, server, service, what it means.
    Reply(u8, u16, u8, usize, u8),
    /// Milliseconds go by.
    Time(u64),
    Sweep,
    Tick,
    /// `expire_nodest_conn`, `expire_quiescent_template`, `conn_reuse_mode`.
    Settings(bool, bool, u32),
}

/// The services there may be. The last two are for one network and all ports.
fn keys() -> Vec<ServiceKey> {
    vec![
        service_key(TCP, vip(false, 0), 80),
        service_key(UDP, vip(false, 0), 53),
        service_key(SCTP, vip(false, 1), 80),
        service_key(TCP, vip(true, 0), 80),
        service_key(TCP, vip(false, 2), 0),
        service_key(TCP, vip(false, 3), 21),
    ]
}

fn any_key() -> impl Strategy<Value = ServiceKey> {
    prop::sample::select(keys())
}

fn any_spec() -> impl Strategy<Value = (&'static str, u32, u32)> {
    let names: Vec<_> = SchedulerKind::ALL.iter().map(|kind| kind.name()).collect();
    let scheduler = prop_oneof![
        12 => prop::sample::select(names),
        // Refused.
        1 => Just("best"),
    ];
    let flags = prop_oneof![
        4 => Just(0),
        2 => Just(ServiceFlags::PERSISTENT),
        1 => Just(ServiceFlags::ONE_PACKET),
        1 => Just(ServiceFlags::PERSISTENT | ServiceFlags::ONE_PACKET),
    ];
    (scheduler, flags, prop::sample::select(vec![1u32, 50, 300]))
}

fn spec_for(key: &ServiceKey, (scheduler, flags, timeout): (&str, u32, u32)) -> ServiceSpec {
    let mut spec = service_spec(key.family(), scheduler, flags);
    spec.timeout = timeout;
    if key.port == 0 {
        spec.flags |= ServiceFlags::PERSISTENT;
        spec.netmask = [255, 255, 255, 0];
    }
    spec
}

fn any_dest(key: &ServiceKey) -> impl Strategy<Value = (DestKey, DestSpec)> + use<> {
    let v6 = key.family() == Family::V6;
    let method = prop::sample::select(vec![
        ForwardingMethod::Masquerade,
        ForwardingMethod::Masquerade,
        ForwardingMethod::DirectRoute,
        ForwardingMethod::Tunnel,
        ForwardingMethod::Local,
    ]);
    let weight = prop_oneof![8 => 0i32..5, 1 => Just(-1), 1 => Just(600)];
    let thresholds = prop_oneof![3 => Just((0, 0)), 2 => (1u32..5, 0u32..5)];
    (1u8..5, prop::sample::select(vec![0u16, 8080]), method, weight, thresholds).prop_map(
        move |(number, port, method, weight, (upper, lower))| {
            let spec = DestSpec { upper, lower, ..dest_spec(method, weight) };
            (dest_key(server(v6, number), port), spec)
        },
    )
}

fn any_command() -> impl Strategy<Value = Command> {
    let dest = || any_key().prop_flat_map(|key| (Just(key), any_dest(&key)));
    prop_oneof![
        3 => (any_key(), any_spec()).prop_map(|(k, s)| Command::AddService(k, spec_for(&k, s))),
        1 => (any_key(), any_spec()).prop_map(|(k, s)| Command::EditService(k, spec_for(&k, s))),
        1 => any_key().prop_map(Command::DeleteService),
        8 => dest().prop_map(|(key, (dest, spec))| Command::AddDest(key, dest, spec)),
        3 => dest().prop_map(|(key, (dest, spec))| Command::EditDest(key, dest, spec)),
        3 => dest().prop_map(|(key, (dest, _))| Command::DeleteDest(key, dest)),
        1 => prop::option::of(any_key()).prop_map(Command::Zero),
        1 => (0u32..2000).prop_map(|tcp| Command::SetTimeouts(TimeoutEdit { tcp, tcp_fin: 0, udp: 9 })),
    ]
}

/// Commands that take away less than they give, so that there is traffic.
fn any_event() -> impl Strategy<Value = Event> {
    let meaning = prop_oneof![
        6 => Just(SYN), 4 => Just(ACK), 1 => Just(FIN | ACK), 1 => Just(RST), 1 => Just(SYN | ACK),
    ];
    let service = 0..keys().len();
    let port = 1000u16..1002;
    prop_oneof![
        4 => any_command().prop_map(|command| Event::Commands(vec![command])),
        2 => prop::collection::vec(any_command(), 0..5).prop_map(Event::Commands),
        // Often what is there, out and in again at once.
        1 => any_key().prop_flat_map(|key| (Just(key), any_dest(&key))).prop_map(
            |(key, (dest, spec))| {
                Event::Commands(vec![
                    Command::DeleteDest(key, dest),
                    Command::AddDest(key, dest, spec),
                ])
            }
        ),
        12 => (1u8..4, port.clone(), service.clone(), meaning.clone())
            .prop_map(|(client, port, service, what)| Event::Request(client, port, service, what)),
        5 => (1u8..4, port, 1u8..5, service, meaning).prop_map(
            |(client, port, server, service, what)| {
                Event::Reply(client, port, server, service, what)
            }
        ),
        3 => prop_oneof![0u64..3_000, 0u64..1_000_000].prop_map(Event::Time),
        1 => Just(Event::Sweep),
        1 => Just(Event::Tick),
        1 => (any::<bool>(), any::<bool>(), 0u32..3)
            .prop_map(|(gone, quiescent, reuse)| Event::Settings(gone, quiescent, reuse)),
    ]
}

/// Some services with destinations to begin with, then anything.
fn any_history(len: usize) -> impl Strategy<Value = Vec<Event>> {
    let service = (any_key(), any_spec()).prop_flat_map(|(key, spec)| {
        let dests = prop::collection::vec(any_dest(&key), 1..4);
        dests.prop_map(move |dests| {
            let adds = dests
                .into_iter()
                .map(|(dest, spec)| Event::Commands(vec![Command::AddDest(key, dest, spec)]));
            let service = Event::Commands(vec![Command::AddService(key, spec_for(&key, spec))]);
            std::iter::once(service).chain(adds).collect::<Vec<_>>()
        })
    });
    (prop::collection::vec(service, 1..5), prop::collection::vec(any_event(), 0..len))
        .prop_map(|(setup, rest)| setup.into_iter().flatten().chain(rest).collect())
}

fn meaning(protocol: u8, what: u8) -> u8 {
    match (protocol, what) {
        (SCTP, SYN) => INIT,
        (SCTP, RST) => 6,
        (SCTP, FIN) => 7,
        (SCTP, _) => 10,
        _ => what,
    }
}

/// The packet of a request.
fn request(client_number: u8, port: u16, service: usize, what: u8) -> Shape {
    let key = keys()[service];
    let v6 = key.family() == Family::V6;
    let virtual_port = if key.port == 0 { 8443 } else { key.port };
    let to = (key.addr.to_ip(key.family()), virtual_port);
    let event = meaning(key.protocol, what);
    Shape::new(key.protocol, (client(v6, client_number), port), to, event)
}

/// What is listed, all in a fixed order.
type Listing = Vec<(ServiceStatus, Vec<DestStatus>)>;

fn listing(world: &mut World) -> Listing {
    let registry = &mut world.registry;
    let mut services = Vec::new();
    registry.services(&mut |service| services.push(service));
    services.sort_by_key(|service| format!("{:?}", service.key));
    let mut all = Vec::new();
    for service in services {
        let mut dests = Vec::new();
        assert!(registry.dests(&service.key, &mut |dest| dests.push(dest)));
        all.push((service, dests));
    }
    all
}

/// The same without rates, which a new daemon does not know.
fn without_rates(world: &mut World) -> Listing {
    let mut all = listing(world);
    for (service, dests) in &mut all {
        service.rates = Rates::default();
        for dest in dests {
            dest.rates = Rates::default();
        }
    }
    all
}

/// Services with their destinations alone: no counts.
type Configuration = Vec<(ServiceKey, ServiceSpec, Vec<(DestKey, DestSpec)>)>;

fn configuration(world: &mut World) -> Configuration {
    let dests = |dests: Vec<DestStatus>| dests.iter().map(|d| (d.key, d.spec)).collect();
    listing(world).into_iter().map(|(s, list)| (s.key, s.spec, dests(list))).collect()
}

/// What `ipvsadm -S` says, as commands.
fn saved(world: &mut World) -> Vec<Command> {
    let mut commands = Vec::new();
    for (key, spec, dests) in configuration(world) {
        commands.push(Command::AddService(key, spec));
        let oldest_first = dests.into_iter().rev();
        commands.extend(oldest_first.map(|(dest, spec)| Command::AddDest(key, dest, spec)));
    }
    commands
}

/// A flow's destination while its connection lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Standing {
    id: ConnId,
    dest: DestId,
    /// The destination was on the list, and an opening packet takes nothing over.
    firm: bool,
}

/// Where every connection goes that goes anywhere: those of deleted
/// destinations do not.
fn standings(world: &World) -> Vec<(ConnId, DestId)> {
    let mut all = Vec::new();
    world.each_conn(|id, conn| {
        let dest = conn.dest.get();
        if world.tables().dest(dest).unwrap().is_available() {
            all.push((id, dest));
        }
    });
    all
}

fn standing(world: &World, tuple: &Tuple) -> Option<Standing> {
    let tables = world.tables();
    let found = tables.find(tuple).filter(|found| !found.reply)?;
    let conn = tables.conn(found.id)?;
    if conn.has_ended(world.now()) && conn.controls.get() == 0 {
        return None;
    }
    let dest = tables.dest(conn.dest.get()).unwrap();
    let settings = tables.settings();
    // A connection that is over, or whose server drains, may make room (spec 4.9).
    let waning = (settings.expire_nodest_conn != 0 && dest.spec.weight == 0)
        || (settings.conn_reuse_mode != 0 && !matches!(conn.state.get(), 0..=3 | 8));
    let firm = dest.is_available() && !waning;
    Some(Standing { id: found.id, dest: conn.dest.get(), firm })
}

/// Counts of connections by what is in the table.
fn counts_are_those_of_the_table(world: &World) -> Result<(), TestCaseError> {
    let mut counted: HashMap<DestId, [u32; 3]> = HashMap::new();
    let mut hanging: HashMap<ConnId, u32> = HashMap::new();
    world.each_conn(|_, conn| {
        let kind = if conn.has(ConnFlags::TEMPLATE) {
            2
        } else {
            usize::from(conn.has(ConnFlags::INACTIVE))
        };
        counted.entry(conn.dest.get()).or_default()[kind] += 1;
        if conn.control.get() != NONE {
            *hanging.entry(conn.control.get()).or_default() += 1;
        }
    });
    for id in world.dest_ids() {
        let load = world.tables().load(id).unwrap();
        let stored = [load.active.get(), load.inactive.get(), load.persistent.get()];
        prop_assert_eq!(stored, counted.remove(&id).unwrap_or_default(), "destination {}", id);
        let upper = world.tables().dest(id).unwrap().spec.upper;
        prop_assert!(upper == 0 || stored[0] + stored[1] < upper || load.overloaded.get() == 1);
    }
    prop_assert!(counted.is_empty(), "connections to no destination: {:?}", counted);
    world.each_conn(|id, conn| {
        assert_eq!(conn.controls.get(), hanging.remove(&id).unwrap_or(0), "controls of {id}");
    });
    prop_assert!(hanging.is_empty(), "connections hang on nothing: {:?}", hanging);
    Ok(())
}

/// Lets the event happen and checks what must hold across it. Returns what
/// became of a packet.
fn happen(world: &mut World, event: &Event) -> Result<Option<Verdict>, TestCaseError> {
    match event {
        Event::Commands(commands) => {
            let before = listing(world);
            let settings = *world.registry.settings();
            if world.registry.apply(commands).is_err() {
                prop_assert_eq!(listing(world), before, "refused, but something changed");
                prop_assert_eq!(*world.registry.settings(), settings);
                prop_assert_eq!(*world.tables().settings(), settings);
            }
        }
        Event::Request(client, port, service, what) => {
            let shape = request(*client, *port, *service, *what);
            return requested(world, &shape, *service).map(Some);
        }
        Event::Reply(client_number, port, number, service, what) => {
            let key = keys()[*service];
            let v6 = key.family() == Family::V6;
            let from = (server(v6, *number), if key.port == 0 { 8443 } else { 8080 });
            let to = (client(v6, *client_number), *port);
            let shape = Shape::new(key.protocol, from, to, meaning(key.protocol, *what));
            let mut frame = shape.frame(own_mac(INSIDE));
            return Ok(Some(world.handle(&mut frame, INSIDE)));
        }
        Event::Time(millis) => world.pass_time(*millis),
        Event::Sweep => world.sweep(),
        Event::Tick => world.registry.tick(),
        Event::Settings(gone, quiescent, reuse) => {
            let change = |settings: &mut ipvs_core::settings::Settings| {
                settings.expire_nodest_conn = u32::from(*gone);
                settings.expire_quiescent_template = u32::from(*quiescent);
                settings.conn_reuse_mode = *reuse;
            };
            world.registry.change_settings(change).unwrap();
        }
    }
    Ok(None)
}

/// A client's packet, and what it may not do.
fn requested(world: &mut World, shape: &Shape, service: usize) -> Result<Verdict, TestCaseError> {
    let mut frame = shape.frame(own_mac(OUTSIDE));
    let headers = ipvs_wire::Headers::parse(&frame).unwrap();
    let tuple = Tuple::of(&headers);
    let before = standing(world, &tuple);
    let known = world.tables().find(&tuple).is_some();
    let ids: Vec<DestId> = world.dest_ids().collect();
    let conns = |world: &World| -> Vec<u64> {
        ids.iter().map(|id| world.tables().counters(*id).unwrap().conns.get()).collect()
    };
    // To the destination that they remember for an address they send more when it is
    // overloaded, as recorded.
    let remembers = world.tables().service(&keys()[service]).is_some_and(|service| {
        matches!(
            service.kind(),
            SchedulerKind::LocalityBased | SchedulerKind::LocalityBasedReplicated
        )
    });
    let usable: Vec<bool> = ids
        .iter()
        .map(|id| {
            let dest: &Dest = world.tables().dest(*id).unwrap();
            let overloaded = world.tables().load(*id).unwrap().overloaded.get() != 0;
            dest.is_available() && dest.spec.weight > 0 && (remembers || !overloaded)
        })
        .collect();
    let made = conns(world);
    let verdict = world.handle(&mut frame, OUTSIDE);
    let new: Vec<usize> = made
        .iter()
        .zip(conns(world))
        .enumerate()
        .filter(|(_, (before, after))| *before != after)
        .map(|(place, _)| place)
        .collect();
    prop_assert!(new.len() <= 1);
    let after = standing(world, &tuple);
    if let Some(before) = before.filter(|before| before.firm) {
        prop_assert_eq!(after.map(|after| after.dest), Some(before.dest), "a flow changed sides");
        prop_assert_eq!(after.map(|after| after.id), Some(before.id));
        prop_assert!(new.is_empty(), "a flow was scheduled twice");
    }
    let persistent = world
        .tables()
        .service(&keys()[service])
        .is_some_and(|service| service.has(ServiceFlags::PERSISTENT));
    // A connection that ends by this very packet may relieve its destination.
    if let [place] = new[..]
        && !persistent
        && !known
    {
        prop_assert!(usable[place], "scheduled to a destination that takes nothing");
    }
    Ok(verdict)
}

/// Every connection ends by itself, and every place of every table is free.
fn all_comes_to_an_end(world: &mut World) -> Result<(), TestCaseError> {
    // An hour for what hangs on nothing, then a minute for each thing that was hung on.
    for _ in 0..4 {
        world.pass_time(3_600_000);
        world.sweep();
    }
    counts_are_those_of_the_table(world)?;
    world.each_conn(|id, conn| panic!("connection {id} lives on: {conn:?}"));
    for id in world.dest_ids() {
        let load = world.tables().load(id).unwrap();
        let counts = [&load.active, &load.inactive, &load.persistent].map(std::cell::Cell::get);
        prop_assert_eq!(counts, [0; 3]);
    }
    let mut places: Vec<_> = std::iter::from_fn(|| world.tables().allocate()).collect();
    places.sort_unstable();
    prop_assert_eq!(places, (0..LIMITS.conns).collect::<Vec<_>>(), "free places of connections");

    world.registry.apply(&[Command::Flush]).unwrap();
    for _ in 0..6 {
        world.pass_time(60_000);
        world.registry.tick();
    }
    let key = |number| service_key(TCP, vip(false, 9), 100 + number);
    for number in 0..LIMITS.services {
        let key = key(u16::try_from(number).unwrap());
        let added = Command::AddService(key, service_spec(Family::V4, "rr", 0));
        prop_assert_eq!(world.registry.apply(&[added]), Ok(()), "place for a service");
    }
    let spec = dest_spec(ForwardingMethod::Masquerade, 1);
    let dest = |number| dest_key(server(false, u8::try_from(number).unwrap()), 80);
    let added: Vec<_> =
        (0..LIMITS.dests).map(|number| Command::AddDest(key(0), dest(number), spec)).collect();
    prop_assert_eq!(world.registry.apply(&added), Ok(()), "places for destinations");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever happens, counts are those of the table, flows keep their
    /// destination, refusals change nothing; and all comes to an end.
    #[test]
    fn counts_are_those_of_the_table_until_all_is_gone(history in any_history(90)) {
        let mut world = World::new(Host::default(), LIMITS);
        for event in &history {
            happen(&mut world, event)?;
            counts_are_those_of_the_table(&world)?;
        }
        all_comes_to_an_end(&mut world)?;
    }

    /// What is saved, restored as one list of commands or one by one, is what was.
    #[test]
    fn restoring_what_was_saved_gives_the_same_configuration(history in any_history(40)) {
        let mut world = World::new(Host::default(), LIMITS);
        for event in &history {
            happen(&mut world, event)?;
        }
        let before = configuration(&mut world);
        let commands = saved(&mut world);
        let mut fresh = World::with(&commands, Host::default());
        prop_assert_eq!(&configuration(&mut fresh), &before);
        let mut slow = World::new(Host::default(), LIMITS);
        for command in &commands {
            slow.registry.apply(&[*command]).unwrap();
        }
        prop_assert_eq!(&configuration(&mut slow), &before);
        // In place, in one step: nobody sees it empty.
        let again: Vec<_> = [Command::Flush].into_iter().chain(commands).collect();
        let flows = standings(&world);
        world.registry.apply(&again).unwrap();
        prop_assert_eq!(&configuration(&mut world), &before);
        counts_are_those_of_the_table(&world)?;
        prop_assert_eq!(standings(&world), flows, "flows are where they were");
        all_comes_to_an_end(&mut world)?;
    }

    /// A list of commands that is taken does what its commands do one by one.
    ///
    /// Not under wrr, whose walk depends on the weights it has seen, and of a
    /// list it sees the last only. And not with `expire_nodest_conn`: what a list
    /// takes away and gives back was never gone.
    #[test]
    fn a_list_does_what_its_commands_do_one_by_one(history in any_history(60)) {
        let mut whole = World::new(Host::default(), LIMITS);
        let mut parts = World::new(Host::default(), LIMITS);
        for event in &history {
            if let Event::Commands(commands) = event {
                let commands: Vec<_> = commands.iter().copied().map(without_wrr).collect();
                if whole.registry.apply(&commands).is_ok() {
                    for command in commands {
                        parts.registry.apply(&[command]).unwrap();
                    }
                }
            } else if !matches!(event, Event::Settings(true, ..)) {
                prop_assert_eq!(happen(&mut whole, event)?, happen(&mut parts, event)?);
            }
            prop_assert_eq!(listing(&mut whole), listing(&mut parts));
        }
    }

    /// A registry over tables that another one wrote shows and does the same.
    #[test]
    fn an_adopted_director_goes_on_as_before(
        history in any_history(60),
        rest in prop::collection::vec(any_event(), 0..40),
    ) {
        let mut kept = World::new(Host::default(), LIMITS);
        let mut lost = World::new(Host::default(), LIMITS);
        for event in &history {
            happen(&mut kept, event)?;
            happen(&mut lost, event)?;
        }
        // What the counters were looked at for last is forgotten with the rates; a new
        // daemon begins with a look.
        for world in [&mut kept, &mut lost] {
            world.pass_time(2000);
            world.registry.tick();
        }
        let mut lost = adopted(lost);
        prop_assert_eq!(without_rates(&mut lost), without_rates(&mut kept));
        prop_assert_eq!(lost.registry.settings(), kept.registry.settings());
        for event in &rest {
            // Which statistics come back from the trash depends on when it was last looked
            // through, so nothing is added again.
            if matches!(event, Event::Commands(_) | Event::Tick) {
                continue;
            }
            prop_assert_eq!(happen(&mut lost, event)?, happen(&mut kept, event)?);
            prop_assert_eq!(without_rates(&mut lost), without_rates(&mut kept));
        }
        all_comes_to_an_end(&mut lost)?;
    }
}

fn without_wrr(mut command: Command) -> Command {
    if let Command::AddService(_, spec) | Command::EditService(_, spec) = &mut command
        && spec.scheduler.as_str() == "wrr"
    {
        spec.scheduler = "rr".into();
    }
    command
}

/// The same tables under a new registry, as a daemon finds them.
fn adopted(mut world: World) -> World {
    let keys: Vec<_> = world.registry.keys().collect();
    let nowhere = MemoryTables::new(Host::default(), LIMITS).unwrap();
    let tables = std::mem::replace(world.registry.store_mut(), nowhere);
    let mut found = Found { settings: *tables.settings(), ..Found::default() };
    for key in keys {
        let service = *tables.service(&key).unwrap();
        let places = service.first..service.first + service.len;
        let dests: Vec<_> = places.map(|place| tables.member(place).unwrap()).collect();
        found.services.push((service, dests));
    }
    for id in 0..LIMITS.dests {
        let (Some(dest), Some(load)) = (tables.dest(id), tables.load(id)) else { continue };
        let listed = found.services.iter().any(|(_, list)| list.contains(&id));
        if listed || load.active.get() + load.inactive.get() + load.persistent.get() != 0 {
            found.dests.insert(id, *dest);
        }
    }
    World::over(Registry::adopt(tables, found))
}
