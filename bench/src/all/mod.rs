//! `cargo xtask bench --all`: every suite, one after the other, and what was asked held against
//! what was measured.

mod medians;
mod plot;
mod targets;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};

use crate::say;
use medians::Medians;

/// Where results lie that were taken.
const RESULTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/results");

/// A suite with its arguments, under the name that its results have.
struct Suite {
    name: &'static str,
    arguments: &'static [&'static str],
    /// What the machine must have free for it, in GiB.
    memory: f64,
}

const fn suite(name: &'static str, arguments: &'static [&'static str], memory: f64) -> Suite {
    Suite { name, arguments, memory }
}

/// All of them. Together they take less than half an hour.
const SUITES: [Suite; 10] = [
    suite(
        "forward-ipv4",
        &["forward", "--rounds", "5", "--seconds", "0.3", "--flows", "1,10000,100000,1000000"],
        8.0,
    ),
    suite(
        "forward-ipv6",
        &[
            "forward",
            "--ipv6",
            "--rounds",
            "5",
            "--seconds",
            "0.3",
            "--flows",
            "1,10000,100000",
            "--only",
            "xdp-nat,xdp-dr,xdp-ipip,ip-forward,nft-dnat",
        ],
        2.0,
    ),
    suite(
        "forward-zipf-long",
        &[
            "forward",
            "--zipf",
            "--length",
            "1464",
            "--rounds",
            "5",
            "--seconds",
            "0.3",
            "--flows",
            "100000",
            "--only",
            "xdp-nat,xdp-dr,xdp-ipip,xdp-gre,xdp-gue,ip-forward,nft-dnat",
        ],
        2.0,
    ),
    suite("program", &["program", "--seconds", "0.2"], 8.0),
    suite("connect", &["connect"], 2.0),
    suite("connect-10m", &["connect", "--table", "10000000", "--only", "xdp-nat"], 10.0),
    suite("scale", &["scale", "--seconds", "0.5"], 1.0),
    suite("memory", &["memory"], 2.0),
    suite("memory-10m", &["memory", "--connections", "10000000", "--only", "bpf/dr/v4"], 10.0),
    suite("proxy-view", &["proxy-view", "--seconds", "2"], 1.0),
];

/// Suites as `--smoke` runs them.
const SMOKE: [&str; 7] =
    ["memory", "proxy-view", "control", "scale", "program", "connect", "forward"];

/// Runs each suite as its own `--smoke` does, whatever fails on the way.
pub(crate) fn smoke() -> Result<()> {
    let mut failed = Vec::new();
    for suite in SMOKE {
        say(&format!("suite {suite}"));
        let status = program().args([suite, "--smoke"]).status()?;
        if !status.success() {
            failed.push(suite);
        }
    }
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(())
}

/// Runs every suite; with `keeps`, results are put where they are committed, and drawn.
pub(crate) fn run(keeps: bool, only: &[String], out: &mut impl Write) -> Result<()> {
    let names = SUITES.map(|suite| suite.name);
    if let Some(unknown) = only.iter().find(|it| !names.contains(&it.as_str())) {
        anyhow::bail!("no suite {unknown}; there are {}", names.join(", "));
    }
    let scratch = tempfile::Builder::new().prefix("ipvs-bench-").tempdir()?;
    let folder = if keeps { PathBuf::from(RESULTS) } else { scratch.path().to_owned() };
    let start = Instant::now();
    let mut medians = Medians::default();
    let mut failed = Vec::new();
    for suite in SUITES.iter().filter(|it| only.is_empty() || only.iter().any(|o| o == it.name)) {
        let name = suite.name;
        say(&format!("suite {name}, {} s from the beginning", start.elapsed().as_secs()));
        let free = free_gibibytes()?;
        if free < suite.memory {
            let needed = suite.memory;
            writeln!(out, "{name}: skipped: {free:.0} GiB are free, {needed:.0} are needed\n")?;
            continue;
        }
        match one(suite, &folder) {
            Ok((text, whole)) => {
                out.write_all(&text)?;
                out.write_all(b"\n")?;
                if !whole {
                    failed.push(name);
                }
                medians.take(name, &folder.join(format!("{name}.json")))?;
            }
            // What others measured is not to be lost with it.
            Err(error) => {
                writeln!(out, "{name}: no figures: {error:#}\n")?;
                failed.push(name);
            }
        }
    }
    if keeps {
        plot::draw_all(&medians, &folder)?;
        // Counted from what lies there, so that a suite that was left out keeps its picture.
        say(&format!("pictures are in {}", folder.display()));
    }
    writeln!(out, "{} s altogether\n", start.elapsed().as_secs())?;
    targets::write(&medians, out)?;
    if keeps {
        let mut table = Vec::new();
        targets::write(&medians, &mut table)?;
        fs::write(folder.join("targets.txt"), table)?;
    }
    ensure!(failed.is_empty(), "figures are missing of {}", failed.join(", "));
    Ok(())
}

/// Runs a suite; returns its table, and whether it has all its figures.
fn one(suite: &Suite, folder: &Path) -> Result<(Vec<u8>, bool)> {
    let json = folder.join(format!("{}.json", suite.name));
    // What an earlier run left is no figure of this one.
    match fs::remove_file(&json) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let mut command = program();
    command.args(suite.arguments).arg("--json").arg(&json);
    let output = command.stderr(Stdio::inherit()).output()?;
    ensure!(json.exists(), "{}", output.status);
    fs::write(folder.join(format!("{}.txt", suite.name)), &output.stdout)?;
    Ok((output.stdout, output.status.success()))
}

/// This program: suites bind themselves to CPUs and go before others, which must end with them.
fn program() -> Command {
    Command::new("/proc/self/exe")
}

/// What could be had of the machine's memory.
fn free_gibibytes() -> Result<f64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|it| it.split_whitespace().next());
    let kib: f64 = kib.context("/proc/meminfo tells nothing of what is free")?.parse()?;
    Ok(kib / f64::from(1 << 20))
}
