//! Rules about the sources that plain `cargo test` holds, so that nobody has
//! to remember them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::run::{cargo, output, workspace};

/// What each crate may use of our own; an arrow that is not here is a mistake.
/// Tests may use anything.
const ARROWS: [(&str, &[&str]); 20] = [
    ("ipvs-wire", &[]),
    ("ipvs-core", &["ipvs-wire"]),
    ("ipvs-bpf-programs", &["ipvs-core", "ipvs-wire"]),
    ("ipvs-plane", &["ipvs-core", "ipvs-wire"]),
    ("ipvs-netlink", &["ipvs-core"]),
    ("ipvs-config", &["ipvs-core"]),
    ("ipvs-preload", &["ipvs-netlink"]),
    ("ipvs-lab", &[]),
    ("ipvs-health", &["ipvs-config", "ipvs-core"]),
    (
        "ipvs-daemon",
        &["ipvs-config", "ipvs-core", "ipvs-health", "ipvs-netlink", "ipvs-plane", "ipvs-wire"],
    ),
    (
        "ipvs-cli",
        &["ipvs-config", "ipvs-core", "ipvs-daemon", "ipvs-lab", "ipvs-netlink", "ipvs-plane"],
    ),
    ("ipvs-conformance", CRATES),
    ("ipvs-transcripts", CRATES),
    ("ipvs-e2e", CRATES),
    ("ipvs-guest", &[]),
    ("ipvs-oracle", &["ipvs-conformance", "ipvs-core", "ipvs-guest", "ipvs-lab", "ipvs-netlink"]),
    ("ipvs-fuzz", &["ipvs-core", "ipvs-netlink", "ipvs-plane"]),
    ("ipvs-bench-programs", &["ipvs-wire"]),
    (
        "ipvs-bench",
        &["ipvs-bench-programs", "ipvs-cli", "ipvs-core", "ipvs-lab", "ipvs-plane", "ipvs-wire"],
    ),
    ("xtask", &["ipvs-guest"]),
];

/// What tests that are packages of their own may use.
const CRATES: &[&str] = &[
    "ipvs-cli",
    "ipvs-config",
    "ipvs-core",
    "ipvs-daemon",
    "ipvs-health",
    "ipvs-lab",
    "ipvs-netlink",
    "ipvs-plane",
    "ipvs-preload",
    "ipvs-wire",
];

/// Lines of a file that are not tests.
const LONGEST: usize = 700;

/// The only files and folders that may hold `unsafe`: system calls, what
/// an eBPF program is made of (packet memory, maps, exported symbols), and functions
/// that a program in C calls.
const UNSAFE: [&str; 6] = [
    "bench/bpf/src/main.rs",
    "bpf/src/",
    "crates/ipvs-lab/src/sys.rs",
    "crates/ipvs-plane/src/bpf/mapped.rs",
    "crates/ipvs-plane/src/packet/sys.rs",
    "crates/ipvs-preload/src/hooks.rs",
];

#[test]
fn crates_depend_on_each_other_by_the_arrows_of_the_design_only() {
    let metadata = output(cargo().args(["metadata", "--no-deps", "--format-version=1"])).unwrap();
    let metadata: serde_json::Value = serde_json::from_str(&metadata).unwrap();
    let arrows = BTreeMap::from(ARROWS);
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        let allowed =
            arrows.get(name).unwrap_or_else(|| panic!("{name} is not in the table of arrows"));
        for dependency in package["dependencies"].as_array().unwrap() {
            let used = dependency["name"].as_str().unwrap();
            let ours = !dependency["path"].is_null();
            let for_tests = dependency["kind"] == "dev";
            assert!(
                !ours || for_tests || allowed.contains(&used),
                "{name} may not depend on {used}"
            );
        }
    }
}

#[test]
fn every_source_file_begins_by_saying_what_it_is_for() {
    for (name, text) in sources() {
        assert!(text.starts_with("//! "), "{name} does not begin with `//! `");
    }
}

#[test]
fn no_source_file_is_too_long_to_read() {
    for (name, text) in sources() {
        let is_test = name.contains("/tests/") || name.ends_with("/tests.rs");
        let lines = text.lines().take_while(|line| *line != "#[cfg(test)]").count();
        assert!(is_test || lines <= LONGEST, "{name} has {lines} lines before its tests");
    }
}

#[test]
fn unsafe_stands_in_the_named_files_only() {
    // Put together here, so that this file does not hold them.
    let words = ["{", "fn ", "impl ", "extern ", "trait "].map(|what| ["unsafe", what].join(" "));
    let attribute = ["#[unsafe", "("].concat();
    let holds = |line: &str| {
        words.iter().any(|word| line.contains(word.as_str())) || line.contains(&attribute)
    };
    let mut needed = Vec::new();
    for (name, text) in sources() {
        let mut code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        if code.any(holds) {
            let allowed = UNSAFE.into_iter().find(|place| name.starts_with(place));
            needed.push(allowed.unwrap_or_else(|| panic!("{name} holds unsafe code")));
        }
    }
    for place in UNSAFE {
        assert!(needed.contains(&place), "{place} holds no unsafe code: take it off the list");
    }
}

#[test]
fn nothing_is_left_to_do_without_saying_where_it_is_tracked() {
    let words = [["TO", "DO"].concat(), ["FIX", "ME"].concat(), ["XX", "X"].concat()];
    for (name, text) in sources() {
        for (number, line) in (1..).zip(text.lines()) {
            let open = words.iter().any(|word| line.contains(word.as_str()));
            assert!(!open || line.contains('#'), "{name}:{number}: {}", line.trim());
        }
    }
}

/// Every Rust file of ours with its text, by its name within the workspace.
fn sources() -> Vec<(String, String)> {
    let root = workspace();
    let mut files = Vec::new();
    for folder in ["bench", "bpf", "crates", "fuzz", "tests", "xtask"] {
        collect(&root.join(folder), &mut files);
    }
    assert!(files.len() > 20, "only {} source files found", files.len());
    let named = files.iter().map(|file| {
        let name = file.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
        (name, fs::read_to_string(file).unwrap())
    });
    named.collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if path.file_name().is_none_or(|name| name != "target") {
                collect(&path, files);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}
