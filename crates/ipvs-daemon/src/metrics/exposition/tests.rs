//! What a scrape looks like.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ipvs_core::dest::DestKey;
use ipvs_core::name::Name;
use ipvs_health::TargetKey;
use ipvs_plane::measure::{Ground, Interface, MeasuredService, Measures, Program, Table};
use ipvs_plane::store::LoadValues;

use super::*;
use crate::metrics::{CheckSnapshot, HealthSnapshot, Process};

/// A table as it stands in the text: name, type and labels.
type Families = BTreeMap<String, (String, BTreeSet<String>)>;

fn counters(of: u64) -> Counters {
    Counters {
        conns: of,
        in_packets: of + 1,
        out_packets: of + 2,
        in_bytes: of + 3,
        out_bytes: of + 4,
    }
}

fn health() -> HealthSnapshot {
    let service = ServiceKey::address(Family::V4, 6, Addr::v4([192, 0, 2, 10]), 80);
    let dest = DestKey::new(Family::V4, Addr::v4([10, 1, 0, 11]), 8080);
    let key = TargetKey { service, dest, position: 0 };
    let (spent, last) = (Duration::from_millis(1500), Some(Duration::from_millis(250)));
    let results = [5, 4, 3, 2, 1, 0, 0];
    let check = CheckSnapshot { key, check: "http /".to_owned(), up: true, results, spent, last };
    HealthSnapshot {
        quorums: vec![(service, false)],
        up: vec![(service, dest, true)],
        checks: vec![check],
    }
}

/// One of everything.
fn snapshot() -> Snapshot {
    let addr = Addr::v4([192, 0, 2, 10]);
    let dest = MeasuredDest {
        key: DestKey::new(Family::V4, Addr::v4([10, 1, 0, 11]), 8080),
        weight: 3,
        drains: true,
        load: LoadValues { active: 4, inactive: 5, persistent: 6, overloaded: 0 },
        counters: counters(100),
    };
    let service = |key, dests| MeasuredService {
        key,
        scheduler: Name::from("wlc"),
        counters: counters(200),
        dests,
    };
    let measures = Measures {
        services: vec![
            service(ServiceKey::address(Family::V4, 6, addr, 80), vec![dest]),
            service(ServiceKey::fwmark(Family::V6, 7), Vec::new()),
        ],
        total: counters(300),
        tables: vec![Table { name: "connections", entries: 9, capacity: 4096 }],
        adoptions: 2,
    };
    let program =
        Program { name: "ipvs_xdp", tag: "438d1af8".into(), run_time_ns: 1_500_000_000, runs: 8 };
    let eth0 = Interface { name: "eth0".into(), mode: "xdp", reason: String::new() };
    let ground = Ground {
        plane: "bpf",
        interfaces: vec![eth0],
        programs: vec![program],
        maps: vec![("IPVS_CONNS", 4096)],
        neighbours: Some([1, 2]),
    };
    Snapshot {
        measures,
        ground,
        packets: vec![(Reason::NoRoute, 11)],
        settings: vec![("expire_nodest_conn", 1)],
        health: health(),
        process: Process { started: 1.5, cpu_seconds: 0.25, resident: 4096 },
    }
}

fn text(snapshot: Snapshot) -> String {
    write(snapshot, Format::Prometheus).unwrap()
}

#[track_caller]
fn assert_has(text: &str, line: &str) {
    assert!(text.lines().any(|it| it == line), "{line} is not in\n{text}");
}

/// What is written, by its headers and the labels of its lines.
fn written(text: &str) -> Families {
    let mut families = Families::new();
    for line in text.lines() {
        if let Some(family) = line.strip_prefix("# TYPE ") {
            let (name, kind) = family.split_once(' ').unwrap();
            families.insert(name.to_owned(), (kind.to_owned(), BTreeSet::new()));
        } else if let Some((name, rest)) = line.split_once('{').filter(|_| !line.starts_with('#')) {
            let labels = rest.split("\",").filter_map(|label| Some(label.split_once('=')?.0));
            families.get_mut(name).unwrap().1.extend(labels.map(str::to_owned));
        }
    }
    families
}

/// What is documented, by the rows of tables whose second column is a type.
fn documented() -> Families {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/metrics.md");
    let page = std::fs::read_to_string(page).unwrap();
    let words = |cell: &str| -> BTreeSet<String> {
        cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    };
    let rows = page.lines().map(|line| line.split('|').map(str::trim).collect::<Vec<_>>());
    let rows =
        rows.filter(|row| row.get(2).is_some_and(|kind| ["counter", "gauge"].contains(kind)));
    let family = |row: Vec<&str>| (row[1].replace('`', ""), (row[2].to_owned(), words(row[3])));
    rows.map(family).collect()
}

#[test]
fn names_types_and_labels_are_those_that_are_documented() {
    assert_eq!(written(&text(snapshot())), documented());
}

#[test]
fn every_value_stands_behind_its_labels() {
    let text = text(snapshot());
    let dest = r#"{protocol="tcp",service="192.0.2.10:80",destination="10.1.0.11:8080"}"#;
    for (name, value) in [
        ("weight", 3),
        ("drains", 1),
        ("active_connections", 4),
        ("inactive_connections", 5),
        ("persistent_connections", 6),
        ("connections_total", 100),
        ("incoming_packets_total", 101),
        ("outgoing_packets_total", 102),
        ("incoming_bytes_total", 103),
        ("outgoing_bytes_total", 104),
    ] {
        assert_has(&text, &format!("ipvs_destination_{name}{dest} {value}"));
    }
    let check = dest.replace('}', r#",check="http /"}"#);
    let refused = check.replace('}', r#",result="refused"}"#);
    for line in [
        &format!("ipvs_destination_up{dest} 1"),
        &format!("ipvs_check_up{check} 1"),
        &format!("ipvs_check_results_total{refused} 4"),
        &format!("ipvs_check_duration_seconds_total{check} 1.5"),
        &format!("ipvs_check_latency_seconds{check} 0.25"),
        r#"ipvs_service_quorum{protocol="tcp",service="192.0.2.10:80"} 0"#,
        "ipvs_connections_total 300",
        "ipvs_outgoing_bytes_total 304",
        r#"ipvs_service_incoming_bytes_total{protocol="tcp",service="192.0.2.10:80"} 203"#,
        r#"ipvs_service_destinations{protocol="fwmark6",service="7"} 0"#,
        r#"ipvs_service_info{protocol="tcp",service="192.0.2.10:80",scheduler="wlc"} 1"#,
        r#"ipvs_packets_total{outcome="dropped",reason="no_route"} 11"#,
        r#"ipvs_packets_total{outcome="passed",reason="no_service"} 0"#,
        r#"ipvs_table_capacity{table="connections"} 4096"#,
        r#"ipvs_neighbours{state="on_demand"} 2"#,
        r#"ipvs_bpf_program_run_time_seconds_total{program="ipvs_xdp"} 1.5"#,
        r#"ipvs_setting{name="expire_nodest_conn"} 1"#,
        "ipvs_adoptions_total 2",
        "process_start_time_seconds 1.5",
    ] {
        assert_has(&text, line);
    }
}

#[test]
fn a_value_of_a_label_cannot_end_it() {
    let mut snapshot = snapshot();
    // Linux takes such names for interfaces.
    snapshot.ground.interfaces[0].name = "a\"b\\c\n".to_owned();
    let line = r#"ipvs_interface_info{interface="a\"b\\c\n",mode="xdp"} 1"#;
    assert_has(&text(snapshot), line);
}

#[test]
fn an_ipv6_service_has_its_address_in_brackets() {
    let addr = Addr::v6([0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    let key = ServiceKey::address(Family::V6, 132, addr, 9);
    assert_eq!((protocol(&key).as_ref(), name(&key).as_str()), ("sctp", "[2001:db8::1]:9"));
}

#[test]
fn openmetrics_is_for_those_who_ask_for_it() {
    // As Prometheus 2.42 and 3 ask.
    let asked = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;\
                 version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    assert_eq!(Format::of(asked), Format::OpenMetrics);
    assert_eq!(Format::of("*/*"), Format::Prometheus);
    let text = write(snapshot(), Format::OpenMetrics).unwrap();
    assert!(text.ends_with("# EOF\n"), "{text}");
    assert_has(&text, "# TYPE ipvs_connections counter");
    assert_has(&text, "ipvs_connections_total 300");
}

#[test]
fn what_the_core_drops_is_counted_as_dropped() {
    for reason in Reason::ALL.iter().filter(|reason| reason.drops()) {
        assert_eq!(outcome(*reason), "dropped", "{reason:?}");
    }
}
