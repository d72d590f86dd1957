//! `cargo xtask bench control`: how long it takes to configure very many services.

mod guest;
mod load;
mod ours;
mod report;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail, ensure};

use crate::daemon;
use crate::machine::Machine;
use crate::say;
use load::{Load, Round};
use report::{Figures, Report};

/// What is measured, in order.
const SUBJECTS: [&str; 3] = ["user", "bpf", KERNEL];
const KERNEL: &str = "kernel";
/// Rounds in the guest, which is slow, at most.
const GUEST_ROUNDS: u32 = 3;

/// How long it takes to load very many services, to list them, and to edit one.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How many services
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    services: u32,
    /// How many destinations each has
    #[arg(long, value_name = "N", default_value_t = 10)]
    dests: u32,
    /// How many rounds; in each, everything is measured once, beginning with nothing
    #[arg(long, value_name = "N", default_value_t = 5)]
    rounds: u32,
    /// Only these: user, bpf, kernel
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    only: Vec<String>,
    /// Write all figures to this file, too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// One round with few services: does it all work?
    #[arg(long)]
    smoke: bool,
}

/// Runs as another program, if that is what this process was started for.
pub(crate) fn other_program() -> Option<ExitCode> {
    if let Some(folder) = guest::folder() {
        guest::run(Path::new(&folder));
        return Some(ExitCode::FAILURE);
    }
    daemon::as_program()
}

/// Runs the bench, and writes the table to `out`.
pub(crate) fn run_task(options: &Options, out: &mut impl Write) -> Result<()> {
    let (services, rounds) =
        if options.smoke { (50, 1) } else { (options.services, options.rounds) };
    ensure!(rounds > 0, "nothing to be measured");
    let load = Load::new(services, options.dests)?;
    if let Some(unknown) = options.only.iter().find(|it| !SUBJECTS.contains(&it.as_str())) {
        bail!("nothing is called {unknown}; there are {}", SUBJECTS.join(", "));
    }
    let is_wanted =
        |name: &str| options.only.is_empty() || options.only.iter().any(|it| it == name);
    let mut results = Vec::new();
    for name in SUBJECTS.into_iter().filter(|name| is_wanted(name)) {
        results.push(figures(name, load, rounds)?);
    }
    let report = Report {
        machine: Machine::this(),
        services,
        dests: options.dests,
        rounds,
        is_asked: !options.smoke,
        results,
    };
    report.write(out)?;
    if let Some(path) = &options.json {
        let text = serde_json::to_string_pretty(&report)? + "\n";
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn figures(name: &'static str, load: Load, rounds: u32) -> Result<Figures> {
    if name == KERNEL {
        if let Some(missing) = guest::is_missing() {
            say(&format!("skipped: {name}: {missing}"));
            return Ok(Figures::without(name, missing));
        }
        return Ok(match in_guests(load, rounds.min(GUEST_ROUNDS)) {
            Ok(figures) => figures,
            // What was measured of ours is not to be lost with it.
            Err(error) => Figures::without(name, format!("no figures: {error:#}")),
        });
    }
    let mut measured: Vec<Round> = Vec::new();
    for round in 1..=rounds {
        say(&format!("{name}: round {round} of {rounds}"));
        measured.push(ours::measure(name, load).with_context(|| format!("plane {name}"))?);
    }
    Ok(Figures::new(name, None, measured))
}

fn in_guests(load: Load, rounds: u32) -> Result<Figures> {
    let (mut caveat, mut measured) = (None, Vec::new());
    for round in 1..=rounds {
        say(&format!("{KERNEL}, in user-mode-linux: round {round} of {rounds}"));
        let one = guest::measure(load)?;
        caveat = Some(one.caveat());
        measured.push(one.round);
    }
    Ok(Figures::new(KERNEL, caveat, measured))
}
