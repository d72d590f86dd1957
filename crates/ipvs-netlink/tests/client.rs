//! The client against the server, in one process: what was put in comes out.

#![expect(clippy::tests_outside_test_module, reason = "the whole file is a test module")]

mod support;

use ipvs_core::addr::{Addr, Family};
use ipvs_core::command::{Command, TimeoutEdit};
use ipvs_core::dest::{DestKey, DestSpec};
use ipvs_core::engine::Data;
use ipvs_core::mark::MarkRule;
use ipvs_core::name::Name;
use ipvs_core::service::{ServiceFlags, ServiceKey, ServiceSpec};
use ipvs_core::snapshot::{ConnStatus, Timeouts};
use ipvs_core::stats::Counters;
use ipvs_core::sync::{SyncDaemon, SyncState};
use ipvs_core::sysctl;
use ipvs_core::verdict::Reason;
use ipvs_netlink::client::LocalTransport;
use ipvs_netlink::status::Fill;
use ipvs_netlink::{Client, ClientError, Errno, Info};
use proptest::prelude::*;
use support::SmallTable;

fn service_key() -> impl Strategy<Value = ServiceKey> {
    let family = prop_oneof![Just(Family::V4), Just(Family::V6)];
    let by_address = (family.clone(), any::<u8>(), any::<[u8; 16]>(), any::<u16>()).prop_map(
        |(family, protocol, addr, port)| {
            ServiceKey::address(family, protocol, address(family, addr), port)
        },
    );
    let by_mark =
        (family, 1..=u32::MAX).prop_map(|(family, mark)| ServiceKey::fwmark(family, mark));
    prop_oneof![by_address, by_mark]
}

fn address(family: Family, octets: [u8; 16]) -> Addr {
    match family {
        Family::V4 => Addr::v4([octets[0], octets[1], octets[2], octets[3]]),
        Family::V6 => Addr::v6(octets),
    }
}

fn service_spec() -> impl Strategy<Value = ServiceSpec> {
    let scheduler = prop_oneof![Just("rr"), Just("wlc"), Just("none"), Just("lblcr")];
    let engine = prop_oneof![Just(""), Just("sip")];
    (scheduler, engine, any::<u32>(), any::<u32>(), 1..=128_u32).prop_map(
        |(scheduler, engine, flags, timeout, prefix)| ServiceSpec {
            scheduler: scheduler.into(),
            engine: engine.into(),
            flags: flags & !ServiceFlags::HASHED,
            timeout,
            netmask: prefix.to_ne_bytes(),
        },
    )
}

fn dest() -> impl Strategy<Value = (DestKey, DestSpec)> {
    let family = prop_oneof![Just(Family::V4), Just(Family::V6)];
    let key = (family, any::<u16>()).prop_map(|(family, port)| {
        // An address that may be a real server's, of either family.
        let octets = [32, 1, 13, 184, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 17];
        DestKey::new(family, address(family, octets), port)
    });
    let spec = (0..=i32::MAX, any::<u32>(), 1..=u16::MAX, any::<u16>(), any::<u8>()).prop_map(
        |(weight, upper, tunnel_port, tunnel_flags, tunnel_type)| DestSpec {
            weight,
            upper,
            lower: upper / 2,
            tunnel_port,
            tunnel_flags,
            tunnel_type,
            // A tunnel, as the only method for which the families may differ.
            method: 2,
            reserved: [0; 2],
        },
    );
    (key, spec)
}

proptest! {
    /// The destinations of many services are those of each, also of one that is not there.
    #[test]
    fn destinations_asked_for_together_are_those_of_each(
        services in prop::collection::vec((service_key(), service_spec(), dest(), any::<bool>()), 0..80),
    ) {
        let mut table = SmallTable::default();
        let mut client = Client::new(LocalTransport::new(&mut table)).unwrap();
        for (key, service, (dest, spec), has_dest) in &services {
            // Some are refused: a service that is there already, a destination of no use.
            let _ = client.apply(&Command::AddService(*key, *service));
            if *has_dest {
                let _ = client.apply(&Command::AddDest(*key, *dest, *spec));
            }
        }
        let mut keys: Vec<ServiceKey> = services.iter().map(|(key, ..)| *key).collect();
        keys.push(ServiceKey::fwmark(Family::V4, 77));
        let together = client.dests_of(&keys).unwrap();
        prop_assert_eq!(together.len(), keys.len());
        for (key, dests) in keys.iter().zip(together) {
            prop_assert_eq!(dests, client.dests(key).unwrap());
        }
    }

    /// What many edits sent together come to is what they come to one by one, whichever are
    /// refused.
    #[test]
    fn edits_sent_together_come_to_what_they_do_one_by_one(
        services in prop::collection::vec((service_key(), service_spec()), 1..4),
        picks in prop::collection::vec((any::<prop::sample::Index>(), dest(), 0..4_u8), 0..300),
    ) {
        let mut edits: Vec<Command> =
            services.iter().map(|(key, spec)| Command::AddService(*key, *spec)).collect();
        edits.extend(picks.iter().map(|(service, (dest, spec), what)| {
            let (key, service_spec) = service.get(&services);
            match what {
                0 => Command::AddDest(*key, *dest, *spec),
                1 => Command::DeleteDest(*key, *dest),
                2 => Command::EditService(*key, *service_spec),
                _ => Command::DeleteService(*key),
            }
        }));
        let (mut together, mut singly) = (SmallTable::default(), SmallTable::default());
        let outcomes =
            Client::new(LocalTransport::new(&mut together)).unwrap().apply_each(&edits).unwrap();
        let mut client = Client::new(LocalTransport::new(&mut singly)).unwrap();
        let refused = |outcome: Result<(), ClientError>| match outcome {
            Err(ClientError::Refused(errno)) => Some(errno),
            other => {
                other.unwrap();
                None
            }
        };
        let expected: Vec<Option<Errno>> =
            edits.iter().map(|edit| refused(client.apply(edit))).collect();
        prop_assert_eq!(outcomes.into_iter().map(refused).collect::<Vec<_>>(), expected);
        let all = |table: &mut SmallTable| {
            let mut client = Client::new(LocalTransport::new(table)).unwrap();
            let services = client.services().unwrap();
            let dests: Vec<_> =
                services.iter().map(|service| client.dests(&service.key).unwrap()).collect();
            (services, dests)
        };
        prop_assert_eq!(all(&mut together), all(&mut singly));
    }
}

proptest! {
    /// A service reads back as it was added, one by one and in the dump.
    #[test]
    fn services_read_as_added(key in service_key(), spec in service_spec()) {
        let mut table = SmallTable::default();
        let mut client = Client::new(LocalTransport::new(&mut table)).unwrap();
        client.apply(&Command::AddService(key, spec)).unwrap();
        let status = client.service(&key).unwrap();
        prop_assert_eq!((status.key, status.spec), (key, spec));
        prop_assert_eq!(client.services().unwrap(), vec![status]);
    }

    /// A destination reads back as it was added.
    #[test]
    fn destinations_read_as_added(key in service_key(), (dest, spec) in dest()) {
        let mut table = SmallTable::default();
        let mut client = Client::new(LocalTransport::new(&mut table)).unwrap();
        let service = ServiceSpec {
            scheduler: "rr".into(),
            engine: "".into(),
            flags: 0,
            timeout: 0,
            netmask: 128_u32.to_ne_bytes(),
        };
        client.apply(&Command::AddService(key, service)).unwrap();
        client.apply(&Command::AddDest(key, dest, spec)).unwrap();
        let dests = client.dests(&key).unwrap();
        prop_assert_eq!(dests.len(), 1);
        prop_assert_eq!((dests[0].key, dests[0].spec), (dest, spec));
    }
}

#[test]
fn the_client_learns_version_and_size() {
    let mut table = SmallTable::default();
    let mut client = Client::new(LocalTransport::new(&mut table)).unwrap();
    let expect = Info { version: 0x01_02_01, table_size: 4096 };
    assert_eq!(client.info().unwrap(), expect);
}

#[test]
fn a_refusal_comes_back_as_its_errno() {
    let mut table = SmallTable::default();
    let mut client = Client::new(LocalTransport::new(&mut table)).unwrap();
    let key = ServiceKey::fwmark(Family::V4, 1);
    let refused = client.apply(&Command::DeleteService(key));
    assert!(matches!(refused, Err(ClientError::Refused(Errno::SRCH))), "{refused:?}");
}

#[test]
fn timeouts_of_zero_stay() {
    let mut table = SmallTable::default();
    let mut client = Client::new(LocalTransport::new(&mut table)).unwrap();
    client.apply(&Command::SetTimeouts(TimeoutEdit { tcp: 100, tcp_fin: 0, udp: 30 })).unwrap();
    let expect = Timeouts { tcp: 100, tcp_fin: 120, udp: 30 };
    assert_eq!(client.timeouts().unwrap(), expect);
}

fn connection() -> ConnStatus {
    ConnStatus {
        family: Family::V4,
        protocol: 6,
        client: Addr::v4([198, 51, 100, 7]),
        client_port: 50000,
        virtual_addr: Addr::v4([192, 0, 2, 10]),
        virtual_port: 80,
        dest_family: Family::V6,
        dest: Addr::v6([0x20; 16]),
        dest_port: 8080,
        state: "ESTABLISHED",
        expires_ms: 899_500,
        flags: 0x0102,
        fwmark: 7,
        engine: None,
    }
}

#[test]
fn a_connection_reads_as_shown() {
    let status = connection();
    let mut table = SmallTable::default();
    table.connections = vec![status; 1000];
    let mut client = Client::new(LocalTransport::new(&mut table)).unwrap();
    let connections = client.connections().unwrap();
    assert_eq!(connections.len(), 1000);
    let conn = &connections[999];
    assert_eq!((conn.client, conn.client_port), (status.client, 50000));
    assert_eq!((conn.virtual_addr, conn.virtual_port), (status.virtual_addr, 80));
    assert_eq!((conn.dest_family, conn.dest, conn.dest_port), (Family::V6, status.dest, 8080));
    assert_eq!((conn.state.as_str(), conn.expires_ms), ("ESTABLISHED", 899_500));
    assert_eq!((conn.flags, conn.fwmark, conn.engine.as_str()), (0x0102, 7, ""));
}

#[test]
fn the_data_of_a_template_s_engine_reads_as_kept() {
    let engine = Some((Name::from("sip"), Data::of(b"id@host").unwrap()));
    let mut table = SmallTable::default();
    table.connections = vec![ConnStatus { engine, ..connection() }];
    let mut client = Client::new(LocalTransport::new(&mut table)).unwrap();
    let shown = client.connections().unwrap();
    assert_eq!((shown[0].engine.as_str(), shown[0].engine_data.as_str()), ("sip", "id@host"));
}

#[test]
fn the_plane_is_described_in_lines_and_reasons() {
    let mut table = SmallTable::default();
    table.lines = vec!["eth0: XDP"; 3000];
    table.packets = vec![(Reason::NoService, 7), (Reason::Forwarded, u64::MAX)];
    let status = Client::new(LocalTransport::new(&mut table)).unwrap().status().unwrap();
    assert_eq!(status.lines, vec!["eth0: XDP"; 3000]);
    let expect = [("no_service".to_owned(), 7), ("forwarded".to_owned(), u64::MAX)];
    assert_eq!(status.packets, expect);
    let [interface] = status.interfaces.as_slice() else { panic!("{status:?}") };
    let shown = [&interface.name, &interface.mode, &interface.why];
    assert_eq!(shown, ["eth0", "xdp", "a network card"]);
    let fill = Fill { name: "connections".to_owned(), entries: 3, capacity: 4096 };
    assert_eq!((status.tables, status.problems), (vec![fill], vec!["no way".to_owned()]));
}

#[test]
fn settings_are_read_and_changed_by_name() {
    let mut table = SmallTable::default();
    let mut client = Client::new(LocalTransport::new(&mut table)).unwrap();
    client.set_setting("sync_threshold", "0x10 50").unwrap();
    assert_eq!(client.setting("sync_threshold").unwrap(), "16\t50");
    let all = client.settings().unwrap();
    assert_eq!(all.len(), sysctl::ALL.len());
    assert!(all.contains(&("sync_threshold".to_owned(), "16\t50".to_owned())));
    let refused = [
        (client.setting("nosuch").err(), Errno::NOENT),
        (client.set_setting("nosuch", "1").err(), Errno::NOENT),
        (client.set_setting("drop_entry", "4").err(), Errno::INVAL),
        (client.set_setting("drop_entry", "").err(), Errno::INVAL),
    ];
    for (error, expect) in refused {
        assert!(matches!(error, Some(ClientError::Refused(errno)) if errno == expect), "{error:?}");
    }
}

#[test]
fn statistics_have_a_total_and_a_part_for_each_cpu() {
    let counted = |conns| Counters { conns, in_bytes: 1 << 40, ..Counters::default() };
    let mut table = SmallTable::default();
    table.counted = vec![counted(1), counted(2)];
    let statistics = Client::new(LocalTransport::new(&mut table)).unwrap().statistics().unwrap();
    assert_eq!((statistics.total.0.conns, statistics.total.0.in_bytes), (3, 2 << 40));
    assert_eq!(statistics.cpus, table.counted);
}

#[test]
fn a_port_that_is_helped_tells_how_many_connections_it_has() {
    let mut table = SmallTable::default();
    table.settings.ftp_ports = [21, 2121, 0, 0, 0, 0, 0, 0];
    let conn = |client_port, virtual_port, flags| ConnStatus {
        protocol: 6,
        client_port,
        virtual_port,
        flags,
        ..connection()
    };
    let direct = 3;
    table.connections =
        vec![conn(50000, 2121, 0), conn(50001, 2121, direct), conn(0, 2121, 0), conn(50002, 80, 0)];
    let mut client = Client::new(LocalTransport::new(&mut table)).unwrap();
    let text = ipvs_netlink::views::text(&mut client, "ip_vs_app").unwrap();
    let expect = "prot port    usecnt name\n\
                  TCP  2121    1      ftp              \n\
                  TCP  21      0      ftp              \n";
    assert_eq!(text, expect);
}

#[test]
fn a_sync_daemon_is_listed_as_it_was_started() {
    let mut table = SmallTable::default();
    let mut client = Client::new(LocalTransport::new(&mut table)).unwrap();
    assert_eq!(client.sync_daemons().unwrap(), []);
    let daemon = SyncDaemon {
        state: SyncState::Backup.number(),
        interface: "c0".into(),
        sync_id: 300,
        max_len: 1400,
        group: "ff02::99".parse().ok(),
        port: 9999,
        ttl: 3,
    };
    client.apply(&Command::StartSync(daemon)).unwrap();
    assert_eq!(client.sync_daemons().unwrap(), [daemon]);
    let twice = client.apply(&Command::StartSync(daemon)).unwrap_err();
    assert!(matches!(twice, ClientError::Refused(Errno::EXIST)), "{twice}");
    client.apply(&Command::StopSync(SyncState::Backup)).unwrap();
    assert_eq!(client.sync_daemons().unwrap(), []);
}

#[test]
fn mark_rules_come_back_in_their_order_and_edits_are_all_or_none() {
    let mut table = SmallTable::default();
    let mut client = Client::new(LocalTransport::new(&mut table)).unwrap();
    let rule = |mark| MarkRule::any(Family::V6, mark, u32::MAX);
    let add = |mark| Command::AddMarkRule(rule(mark));
    client.change_marks(&[Command::FlushMarkRules, add(2), add(1), add(3)]).unwrap();
    client.apply(&Command::DeleteMarkRule(rule(1))).unwrap();
    assert_eq!(client.mark_rules().unwrap(), [rule(2), rule(3)]);
    let refused = client.change_marks(&[Command::DeleteMarkRule(rule(9))]);
    assert!(matches!(refused, Err(ClientError::Refused(Errno::NOENT))), "{refused:?}");
}
