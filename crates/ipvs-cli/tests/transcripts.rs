//! Replays what the real `ipvsadm` printed, command by command, on ours: once
//! before a table that takes all that the kernel takes, which shows what the
//! tool prints, and once before a director, which shows what it can do so far.
#![expect(
    clippy::panic,
    clippy::tests_outside_test_module,
    reason = "the whole file is a test module"
)]

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use ipvs_core::snapshot::Control;
use small_table::SmallTable;
use transcript::Rules;

mod director;
#[path = "../../ipvs-netlink/tests/support/mod.rs"]
mod small_table;
mod transcript;

/// Why persistence timeouts differ in `/proc/net/ip_vs`.
const TICKS: &str = "the recorded kernel had 100 ticks a second";

/// Commands that we answer differently, with the reason.
const DIFFERS: &[(&str, &str)] = &[
    ("ipvsadm -A -t 192.0.2.10:97 -s sh -b ,", "ipvsadm crashes here"),
    (
        "ipvsadm -C; ipvsadm -A -t 192.0.2.10:80 -s mh -p 360 -M 255.255.255.0 -b mh-port; cat /proc/net/ip_vs",
        TICKS,
    ),
    ("ipvsadm -C; ipvsadm -A -u 192.0.2.10:53 -s rr -o -p 60 --pe sip; cat /proc/net/ip_vs", TICKS),
    (
        "ipvsadm -C; ipvsadm -A -f 7 -s lc -p 5; ipvsadm -a -f 7 -r 10.1.0.11 -g; cat /proc/net/ip_vs",
        TICKS,
    ),
    (
        "ipvsadm -C; ipvsadm -A -f 7 -6 -s lc -o -p 5 -M 64; ipvsadm -a -f 7 -6 -r 2001:db8:5::11 -m; cat /proc/net/ip_vs",
        TICKS,
    ),
    (
        "ipvsadm -C; ipvsadm -A -t [2001:db8:c::10]:443 -s sh -p 60; ipvsadm -a -t [2001:db8:c::10]:443 -r [2001:db8:5::11]:8443 -m; ipvsadm -a -t [2001:db8:c::10]:443 -r 10.1.0.11 -i; cat /proc/net/ip_vs",
        TICKS,
    ),
];

/// Transcripts in which the order of services hangs on the kernel's hash order.
const ANY_ORDER: [&str; 3] = ["corners", "service-address", "service-ipv6"];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/transcripts")
}

/// All transcripts, by name.
fn names() -> Vec<String> {
    let files = fs::read_dir(folder()).expect("the transcripts");
    let paths = files.map(|file| file.expect("a file").path());
    let texts = paths.filter(|path| path.extension().is_some_and(|ending| ending == "txt"));
    let mut names: Vec<String> =
        texts.filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned())).collect();
    names.retain(|name| name != "known");
    names.sort();
    names
}

/// Replays all transcripts, each before a new director, and prints what differs.
#[track_caller]
fn check<C: Control>(title: &str, new: impl Fn() -> C) {
    let mut out = io::stdout().lock();
    let mut different = Vec::new();
    for name in names() {
        let text = fs::read_to_string(folder().join(&name).with_extension("txt"));
        let blocks = transcript::parse(&text.expect("a transcript"));
        let any_order = ANY_ORDER.contains(&name.as_str());
        let rules = Rules { differs: DIFFERS, any_order };
        let tally = transcript::replay(&blocks, &mut new(), rules);
        let (passed, failed, skipped) = (tally.passed, tally.failed, tally.skipped.len());
        if failed > 0 {
            let skips = tally.skipped.join("\n");
            writeln!(out, "{}skipped:\n{skips}", tally.report).expect("standard output");
        }
        writeln!(out, "{title}: {name}: {passed} passed, {failed} failed, {skipped} skipped")
            .expect("standard output");
        if failed > 0 {
            different.push(name);
        }
    }
    assert_eq!(different, [""; 0]);
}

#[test]
fn the_tool_prints_what_the_real_one_printed() {
    check("tool", SmallTable::default);
}

#[test]
fn the_director_does_what_the_kernel_did() {
    check("director", director::director);
}
