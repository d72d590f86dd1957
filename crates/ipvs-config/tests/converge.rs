//! Plans carried out by the director's own registry.
#![expect(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "this file is a test, with what it needs"
)]

use std::fmt::Write as _;

use ipvs_config::health::{Checked, Standing, Weight, effective};
use ipvs_config::{Change, Running, Wanted, export, plan, read};
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
        Some(9000)
    }
    fn now(&self) -> Instant {
        Instant::default()
    }
}

/// Mark rules, of which a file has some in any order.
const MARKS: [&str; 5] = [
    "mark = 7",
    "mark = 0x70\nmask = 0xf0\nfamily = \"ipv6\"\nprotocol = \"udp\"\nports = 53",
    "mark = 1\nfrom = \"198.51.100.0/24\"\nprotocol = \"tcp\"\nports = \"80-443\"",
    "mark = 2\nto = \"2001:db8::/32\"\nprotocol = 50",
    "mark = 3\ninterface = \"eth0\"",
];

/// Sync daemons.
const SYNC: [&str; 4] = [
    "",
    "[sync.master]\ninterface = \"eth0\"\n",
    "[sync.backup]\ninterface = \"eth0\"\nid = 9\nmax_length = 1400\nttl = 3\n",
    "[sync.master]\ninterface = \"eth1\"\ngroup = \"ff02::5\"\nport = 9\n\
     [sync.backup]\ninterface = \"eth0\"\n",
];

/// What a service may have besides.
const MORE: [&str; 6] = [
    "",
    "",
    "persistence = { timeout = 60, netmask = 24 }\n",
    "persistence = {}\n",
    "persistence = { engine = \"sip\" }\n",
    "persistence = { timeout = 9, netmask = \"255.0.255.0\" }\n",
];

/// How a destination is reached.
const WAYS: [&str; 6] = [
    "method = \"route\"\n",
    "method = \"masquerade\"\nport = 8080\n",
    "method = \"tunnel\"\n",
    "method = \"tunnel\"\ntunnel = { type = \"gue\", port = 6080, checksum = \"remote\" }\n",
    "method = \"tunnel\"\ntunnel = { type = \"gre\", checksum = \"full\" }\n",
    "method = \"tunnel\"\ntunnel = { type = \"gue\", port = 6081 }\n",
];

/// How a service is checked, if it is. Of the host no service has as a destination is the
/// sorry server.
const HEALTH: [&str; 6] = [
    "",
    "",
    "[[service.check]]\ntype = \"tcp\"\nport = 81\n",
    "[service.health]\non_failure = \"inhibit\"\nquorum = 4\nhysteresis = 1\n\
     [[service.check]]\ntype = \"http\"\nport = 81\nbody = \"up|\\\\d\"\n\
     status = [204, \"300-399\"]\ninterval = \"1500ms\"\nmark = 7\n\
     dampening = { falls = 3, within = \"5m\", hold = \"1m\" }\n\
     [service.sorry_server]\naddress = \"SORRY\"\nmethod = \"tunnel\"\n",
    "[service.health]\ninitial = \"up\"\nslow_start = \"90s\"\n\
     [[service.check]]\ntype = \"https\"\nport = 443\nverify = false\nsni = \"a.example\"\n\
     [[service.check]]\ntype = \"tcp\"\nport = 9\njitter = 0\nrise = 1\nfall = 1\n",
    "[[service.check]]\ntype = \"tls\"\nport = 443\ndays = 9\nca_file = \"/ca.pem\"\n\
     [[service.check]]\ntype = \"dns\"\nport = 53\nname = \"a.example\"\nanswer = \"::1\"\n\
     [[service.check]]\ntype = \"udp\"\nport = 9\npayload_hex = \"ff 00\"\nreply_hex = \"x1 2X\"\n\
     [[service.check]]\ntype = \"udp\"\nport = 9\npayload = \"a\\n\\\"b\"\nrequire_reply = false\n\
     [[service.check]]\ntype = \"smtp\"\nport = 25\n\
     [[service.check]]\ntype = \"agent\"\nport = 9\nsend = \"a\\r\\n\"\n\
     [[service.check]]\ntype = \"exec\"\nport = 9\ncommand = [\"/x\", \"'a b'\"]\ndynamic = true\n",
];

/// Schedulers, with flags.
const SCHEDULERS: [&str; 5] =
    ["\"rr\"", "\"wlc\"", "\"sh\"", "\"mh\"", "\"mh\"\nflags = [\"mh-port\", \"mh-fallback\"]"];

/// A destination: its host, weight, way, and whether it is of the other family where it may be.
type DestOf = (u8, u32, usize, bool);

/// The part of a service, if it is the first of its number.
fn service(
    number: u16,
    scheduler: usize,
    (more, health): (usize, usize),
    dests: &[DestOf],
    syncs: bool,
) -> String {
    let is_v6 = matches!(number, 1 | 2);
    let mut key = match number {
        0 => "fwmark = 7\none_packet = true".to_owned(),
        1 => "fwmark = 7\nfamily = \"ipv6\"".to_owned(),
        2 => "address = \"2001:db8::1\"\nprotocol = \"udp\"\nport = 53".to_owned(),
        other => format!("address = \"192.0.2.1\"\nprotocol = \"tcp\"\nport = {other}"),
    };
    let more = if is_v6 { more.min(4) } else { more };
    let _ = writeln!(key, "\nscheduler = {}\n{}", SCHEDULERS[scheduler], MORE[more]);
    let sorry = if is_v6 { "2001:db8:1::9" } else { "10.0.0.9" };
    let mut text = format!("[[service]]\n{key}{}", HEALTH[health].replace("SORRY", sorry));
    let mut taken = Vec::new();
    for &(host, weight, way, other) in dests {
        let is_tunnel = WAYS[way].contains("tunnel");
        let to_v6 = is_v6 != (other && is_tunnel && !syncs);
        let net = if to_v6 { "2001:db8:1::" } else { "10.0.0." };
        let way =
            if number < 2 { WAYS[way].replace("port = 8080\n", "") } else { WAYS[way].into() };
        // Not twice, with whatever port.
        if !taken.contains(&(host, to_v6)) {
            taken.push((host, to_v6));
            let _ = writeln!(
                text,
                "[[service.destination]]\naddress = \"{net}{host}\"\n{way}\
                 weight = {weight}\nupper_threshold = {weight}\nlower_threshold = {}",
                weight / 2
            );
        }
    }
    text
}

/// A random file; few keys, so that two files have some in common.
fn text() -> impl Strategy<Value = String> {
    let dest = (1..6_u8, 0..4_u32, 0..WAYS.len(), any::<bool>());
    let dests = prop::collection::vec(dest, 0..5);
    let more = (0..MORE.len(), 0..HEALTH.len());
    let one = (0..6_u16, 0..SCHEDULERS.len(), more, dests);
    let services = prop::collection::vec(one, 0..6);
    let marks = prop::sample::subsequence(MARKS.to_vec(), 0..=MARKS.len()).prop_shuffle();
    (services, 1..4_u32, 0..4_u32, marks, 0..SYNC.len()).prop_map(
        |(services, udp, drop_entry, marks, sync)| {
            let mut text = format!("timeouts.udp = {udp}\nsysctl.drop_entry = {drop_entry}\n");
            text += SYNC[sync];
            for mark in marks {
                let _ = writeln!(text, "[[mark]]\n{mark}");
            }
            let mut seen = Vec::new();
            for (number, scheduler, more, dests) in services {
                if !seen.contains(&number) {
                    seen.push(number);
                    text += &service(number, scheduler, more, &dests, sync != 0);
                }
            }
            text
        },
    )
}

fn carry_out(control: &mut dyn Control, changes: &[Change]) {
    let edits: Vec<_> = changes.iter().filter_map(Change::edit).collect();
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
            let changes = plan(&wanted, &Running::of(&mut director));
            carry_out(&mut director, &changes);
            let checked = Checked::of(&wanted.services);
            prop_assert_eq!(plan(&wanted, &Running::of(&mut director).with(checked)), []);
        }
    }

    /// Whoever is down, and however often that changes.
    #[test]
    fn what_follows_from_health_is_no_drift_and_can_be_undone(text in text(), ups: [u8; 3]) {
        let mut director = Registry::new(MemoryTables::new(NoHost, LIMITS).unwrap()).unwrap();
        let wanted = read("f", &text).unwrap();
        let mut checked = Checked::of(&wanted.services);
        for up in ups {
            for service in &wanted.services {
                for (dest, _) in &service.dests {
                    let host = dest.addr.octets().into_iter().fold(0, u8::wrapping_add);
                    let up = up >> (host % 8) & 1 == 1;
                    let weight = [Weight::Configured, Weight::Percent(50), Weight::Exactly(9)];
                    let standing = Standing { up, weight: weight[usize::from(host % 3)] };
                    checked.standings.dests.insert((service.key, *dest), standing);
                    if host & 1 == 1 {
                        checked.standings.warming.insert((service.key, *dest), u32::from(host));
                    }
                }
                let quorum = effective(service, &checked.standings, &|_| None).quorum;
                checked.standings.quorums.insert(service.key, quorum);
            }
            let changes = plan(&wanted, &Running::of(&mut director).with(checked.clone()));
            carry_out(&mut director, &changes);
            let running = Running::of(&mut director).with(checked.clone());
            prop_assert_eq!(plan(&wanted, &running), []);
            let again = read("exported", &export(&running.wanted())).unwrap();
            prop_assert_eq!(plan(&again, &running), []);
            prop_assert_eq!(Checked::of(&again.services), Checked::of(&wanted.services));
        }
    }

    #[test]
    fn checks_are_said_as_they_are(text in text()) {
        let services = read("f", &text).unwrap().services;
        let file = Checked::of(&services).file();
        prop_assert_eq!(
            Checked::of(&read("said", &file).unwrap().services),
            Checked::of(&services)
        );
    }
    #[test]
    fn what_was_exported_makes_the_same_again(before in text(), text in text()) {
        let director = || Registry::new(MemoryTables::new(NoHost, LIMITS).unwrap()).unwrap();
        let (mut one, mut other) = (director(), director());
        for text in [&before, &text] {
            let changes = plan(&read("f", text).unwrap(), &Running::of(&mut one));
            carry_out(&mut one, &changes);
        }
        let exported = export(&Running::of(&mut one).wanted());
        let wanted = read("exported", &exported).unwrap();
        prop_assert_eq!(plan(&wanted, &Running::of(&mut one)), [], "{}", exported);
        let changes = plan(&wanted, &Running::of(&mut other));
        carry_out(&mut other, &changes);
        prop_assert_eq!(export(&Running::of(&mut other).wanted()), exported);
    }

    /// As a rollback is made.
    #[test]
    fn the_way_back_leads_to_where_one_was(before in text(), after in text()) {
        let mut director = Registry::new(MemoryTables::new(NoHost, LIMITS).unwrap()).unwrap();
        let changes = plan(&read("f", &before).unwrap(), &Running::of(&mut director));
        carry_out(&mut director, &changes);
        let back = Running::of(&mut director).wanted();
        let changes = plan(&read("f", &after).unwrap(), &Running::of(&mut director));
        carry_out(&mut director, &changes);
        let changes = plan(&back, &Running::of(&mut director));
        carry_out(&mut director, &changes);
        prop_assert_eq!(plan(&back, &Running::of(&mut director)), []);
        let now = Running::of(&mut director).wanted();
        prop_assert_eq!((now.marks, now.sync), (back.marks, back.sync));
    }
}
