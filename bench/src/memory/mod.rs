//! `cargo xtask bench memory`: what a connection takes, and what very many cost while nothing
//! moves.

mod charged;
mod fill;
mod idle;

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ipvs_core::addr::Family;

use crate::mode::Method;
use crate::say;
use crate::sheet::Sheet;
use charged::Accounts;
use fill::Filled;

/// Octets that a connection takes, by method and family, and what a table of connections
/// costs while no packet comes.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How many connections there are, for which the tables are just large enough; 10000000
    /// takes a few GiB and a quarter of a minute for each figure
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    connections: u32,
    /// How many rounds; in each, everything is measured once, beginning with nothing
    #[arg(long, value_name = "N", default_value_t = 5)]
    rounds: u32,
    /// How long to look at a plane that idles
    #[arg(long, value_name = "N", default_value_t = 2.0)]
    seconds: f64,
    /// Only these: bpf/nat/v4, bpf/dr/v6, user/nat/v4, …
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    only: Vec<String>,
    /// Write all figures to this file, too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// One round with few connections: does it all work?
    #[arg(long)]
    smoke: bool,
}

/// What is filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Case {
    plane: &'static str,
    method: Method,
    family: Family,
}

impl Case {
    const fn new(plane: &'static str, method: Method, family: Family) -> Self {
        Self { plane, method, family }
    }

    fn name(self) -> String {
        format!("{}/{}/v{}", self.plane, self.method.name(), self.family.tag())
    }

    /// Whether this is the one of its plane that is looked at while it idles.
    fn idles(self) -> bool {
        self.method == Method::Nat && self.family == Family::V4
    }
}

/// All of them, in the order of each round.
const CASES: [Case; 8] = [
    Case::new("bpf", Method::Nat, Family::V4),
    Case::new("bpf", Method::Dr, Family::V4),
    Case::new("bpf", Method::Ipip, Family::V4),
    Case::new("bpf", Method::Nat, Family::V6),
    Case::new("bpf", Method::Dr, Family::V6),
    Case::new("bpf", Method::Ipip, Family::V6),
    Case::new("user", Method::Nat, Family::V4),
    Case::new("user", Method::Nat, Family::V6),
];

/// Those that tell whether it all works.
const SMOKE: [Case; 3] = [
    Case::new("bpf", Method::Nat, Family::V4),
    Case::new("bpf", Method::Dr, Family::V6),
    Case::new("user", Method::Nat, Family::V4),
];

const OCTETS: &str = "octets a connection";
const PERCENT: &str = "% of a CPU";

/// Runs the bench, and writes the table to `out`.
pub(crate) fn run_task(options: &Options, out: &mut impl Write) -> Result<()> {
    let sheet = measure(options)?;
    sheet.publish(out, options.json.as_deref())
}

/// Runs the bench.
pub(crate) fn measure(options: &Options) -> Result<Sheet> {
    let (connections, rounds, seconds) = if options.smoke {
        (20_000, 1, 0.3)
    } else {
        (options.connections, options.rounds, options.seconds)
    };
    ensure!((1_000..=50_000_000).contains(&connections), "1000 to 50000000 connections");
    ensure!(rounds > 0 && seconds > 0.0 && seconds < 60.0, "nothing to be measured");
    let names = CASES.map(Case::name);
    if let Some(unknown) = options.only.iter().find(|it| !names.contains(it)) {
        anyhow::bail!("nothing is called {unknown}; there are {}", names.join(", "));
    }
    let is_wanted = |case: &Case| match options.only.as_slice() {
        [] => !options.smoke || SMOKE.contains(case),
        only => only.contains(&case.name()),
    };
    let mut sheet = Sheet::new("memory", rounds);
    sheet.note(format!(
        "{connections} connections by as many SYNs, tables made for just so many; octets are all \
         that the plane holds, whether it grows with connections or not"
    ));
    for round in 1..=rounds {
        for case in CASES.into_iter().filter(is_wanted) {
            say(&format!("round {round} of {rounds}: {}", case.name()));
            one(case, connections, Duration::from_secs_f64(seconds), &mut sheet)
                .with_context(|| case.name())?;
        }
    }
    Ok(sheet)
}

/// One case in one round.
fn one(case: Case, connections: u32, look: Duration, sheet: &mut Sheet) -> Result<()> {
    let name = case.name();
    let count = f64::from(connections);
    let mut filled = Filled::begin(case, connections)?;
    let empty = Accounts::of(&filled.daemon, filled.charge())?;
    let idle = case.idles().then(|| idle::look(filled.daemon.id(), look)).transpose()?;
    let flaw = filled.fill(connections)?;
    let full = Accounts::of(&filled.daemon, filled.charge())?;
    let mut octets = |which: &str, value: Option<f64>| {
        let name = format!("{which}/{name}");
        match (&flaw, value) {
            (_, None) => {}
            (Some(flaw), Some(_)) => sheet.refuse(&name, OCTETS, flaw),
            (None, Some(value)) => sheet.add(&name, OCTETS, value / count),
        }
    };
    octets("maps", full.maps);
    octets("resident", full.resident.filter(|_| case.plane == "user"));
    octets("charged", full.charged);
    if let (Some(before), None) = (idle, &flaw) {
        let after = idle::look(filled.daemon.id(), look)?;
        for (what, idle) in [("empty", before), ("full", after)] {
            sheet.add(&format!("idle/daemon/{what}/{name}"), PERCENT, idle.daemon * 100.0);
            sheet.add(&format!("idle/kernel/{what}/{name}"), PERCENT, idle.kernel * 100.0);
        }
        let more = after.daemon + after.kernel - before.daemon - before.kernel;
        sheet.add(&format!("idle/added/{name}"), PERCENT, more * 100.0);
    }
    sheet.note(
        "maps: what the kernel says of each map that the plane's programs use (memlock in fdinfo), \
         which leaves out what its allocators round up; charged: what a memory cgroup of the \
         daemon's own is charged, kernel and user memory, pages of files left out",
    );
    if full.charged.is_none() {
        sheet.note("charged: not measured, for want of a memory cgroup that can be made");
    }
    ensure!(empty.maps.is_none() || full.maps >= empty.maps, "maps shrink as they fill");
    filled.end()
}
