//! Plans carried out by the director's own registry.
#![expect(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    reason = "this file is a test, with what it needs"
)]

use std::fmt::Write as _;

use ipvs_config::{Change, Running, RunningService, Wanted, plan, read};
use ipvs_core::addr::{Addr, Family};
use ipvs_core::hop::{RouteQuery, Way};
use ipvs_core::snapshot::Control;
use ipvs_core::time::Instant;
use ipvs_plane::memory::{Host, MemoryTables};
use ipvs_plane::registry::Registry;
use ipvs_plane::store::Limits;
use proptest::prelude::*;

/// The host: no packet comes, so nothing is asked of it.
#[derive(Debug)]
struct NoHost;

impl Host for NoHost {
    fn route(&self, _: &RouteQuery) -> Way {
        Way::default()
    }
    fn source_towards(&self, _: Family, _: Addr) -> Option<Addr> {
        Some(Addr::UNSPECIFIED)
    }
    fn interface(&self, _: &str) -> Option<u32> {
        None
    }
    fn mtu(&self, _: &str) -> Option<u32> {
        None
    }
    fn now(&self) -> Instant {
        Instant::default()
    }
}

/// A file of random services; few keys, so that two files have some in common.
fn text() -> impl Strategy<Value = String> {
    let dest = (1..6_u8, 0..4_u32, 0..3_usize, any::<bool>());
    let service = (0..6_u16, 0..4_usize, any::<bool>(), prop::collection::vec(dest, 0..5));
    let services = prop::collection::vec(service, 0..6);
    (services, 1..4_u32, 0..4_u32).prop_map(|(services, udp, drop_entry)| {
        let mut text = format!("timeouts.udp = {udp}\nsysctl.drop_entry = {drop_entry}\n");
        let mut seen = Vec::new();
        for (number, scheduler, persistent, dests) in services {
            if seen.contains(&number) {
                continue;
            }
            seen.push(number);
            let key = match number {
                0 => "fwmark = 7".to_owned(),
                1 => "fwmark = 7\nfamily = \"ipv6\"".to_owned(),
                2 => "address = \"2001:db8::1\"\nprotocol = \"udp\"\nport = 53".to_owned(),
                other => format!("address = \"192.0.2.1\"\nprotocol = \"tcp\"\nport = {other}"),
            };
            let scheduler = ["rr", "wlc", "sh", "mh"].get(scheduler).unwrap_or(&"rr");
            let _ = writeln!(text, "[[service]]\n{key}\nscheduler = \"{scheduler}\"");
            if persistent {
                text += "persistence = { timeout = 60, netmask = 24 }\n";
            }
            let mut taken = Vec::new();
            for (host, weight, method, gue) in dests {
                if taken.contains(&host) {
                    continue;
                }
                taken.push(host);
                let net = if matches!(number, 1 | 2) { "2001:db8:1::" } else { "10.0.0." };
                let method = *["route", "masquerade", "tunnel"].get(method).unwrap_or(&"route");
                let _ = writeln!(
                    text,
                    "[[service.destination]]\naddress = \"{net}{host}\"\nmethod = \"{method}\"\n\
                     weight = {weight}\nupper_threshold = {weight}"
                );
                if gue && method == "tunnel" {
                    text += "tunnel = { type = \"gue\", port = 6080, checksum = \"remote\" }\n";
                }
            }
        }
        text
    })
}

fn running(control: &mut dyn Control) -> Running {
    let mut services = Vec::new();
    control.services(&mut |status| {
        services.push(RunningService { key: status.key, spec: status.spec, dests: Vec::new() });
    });
    for service in &mut services {
        control.dests(&service.key, &mut |dest| service.dests.push((dest.key, dest.spec, 0)));
    }
    let mut settings = Vec::new();
    control.sysctls(&mut |name, value| settings.push((name.to_owned(), value.to_string())));
    Running { services, timeouts: control.timeouts(), settings }
}

fn carry_out(control: &mut dyn Control, changes: &[Change]) {
    let edits: Vec<_> = changes.iter().map(Change::edit).collect();
    control.apply(&edits).unwrap();
}

const LIMITS: Limits =
    Limits { services: 64, dests: 64, members: 256, blocks: 256, cached: 64, conns: 64 };

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 64, failure_persistence: None, ..ProptestConfig::default()
    })]
    #[test]
    fn a_plan_that_was_carried_out_leaves_nothing_to_plan(first in text(), second in text()) {
        let tables = MemoryTables::new(NoHost, LIMITS).unwrap();
        let mut director = Registry::new(tables).unwrap();
        for text in [first, second] {
            let wanted: Wanted = read("f", &text).unwrap();
            let changes = plan(&wanted, &running(&mut director));
            carry_out(&mut director, &changes);
            prop_assert_eq!(plan(&wanted, &running(&mut director)), []);
        }
    }
}
