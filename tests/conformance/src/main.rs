//! `cargo xtask conformance`: replays a folder of recorded cases on a plane.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Parser;
use ipvs_conformance::applet;
use ipvs_conformance::case::{Recorded, folders};
use ipvs_conformance::plane::Plane;
use ipvs_conformance::report::{Report, write_case};
use ipvs_conformance::run::run_all;
use ipvs_conformance::selection::{MustPass, Selection};

/// Replays recorded behaviour of the kernel's IPVS and tells what differs.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask conformance")]
struct Cli {
    /// Folder of cases, or of one case [default: the public cases]
    dir: Option<PathBuf>,
    /// The plane that is held against the recordings
    #[arg(long, value_enum, default_value_t = Plane::Core)]
    plane: Plane,
    /// Only cases with one of these tags or names
    #[arg(long, value_name = "TAG,…", value_delimiter = ',')]
    only: Vec<String>,
    /// No case with one of these tags or names
    #[arg(long, value_name = "TAG,…", value_delimiter = ',')]
    skip: Vec<String>,
    /// Only the case of this name
    #[arg(long, value_name = "NAME")]
    case: Option<String>,
    /// Only the cases that passing.txt says must pass on this plane; one that is skipped fails
    #[arg(long, conflicts_with = "case")]
    must_pass: bool,
    /// Write the outcomes to this file too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Leave out no difference of a case that fails
    #[arg(long)]
    whole: bool,
}

fn main() -> ExitCode {
    if let Some(status) = applet::by_name() {
        return status;
    }
    match run(&Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            // Nobody is left to be told that standard error is closed.
            drop(writeln!(io::stderr().lock(), "error: {error:#}"));
            ExitCode::from(2)
        }
    }
}

/// Replays what was asked for; returns whether nothing failed.
fn run(cli: &Cli) -> Result<bool> {
    let ready = cli.plane.prepare();
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dir = cli.dir.clone().unwrap_or_else(|| home.join("cases"));
    let mut selection = Selection { only: cli.only.clone(), skip: cli.skip.clone(), names: None };
    if cli.must_pass {
        selection.names = Some(MustPass::load(&home.join("passing.txt"))?.on(cli.plane.name()));
    } else if let Some(name) = &cli.case {
        selection.names = Some(vec![name.clone()]);
    }
    let mut out = Quiet(io::stdout().lock());
    let missing = match &ready {
        Ok(()) => cli.plane.is_missing(),
        Err(error) => Some(format!("{error:#}")),
    };
    if let (true, Some(reason)) = (cli.must_pass, &missing) {
        writeln!(out, "skipped: conformance on plane {}: {reason}", cli.plane.name())?;
        return Ok(true);
    }
    ready?;
    let mut cases = Vec::new();
    for folder in folders(&dir)? {
        let recorded = Recorded::load(&folder)?;
        if selection.takes(&recorded.case) {
            cases.push(recorded);
        }
    }
    let mut report = Report { plane: cli.plane.name().to_owned(), cases: Vec::new() };
    let mut written = Ok(());
    run_all(&cases, cli.plane, |recorded, outcome| {
        let case = &recorded.case;
        let outcome = if cli.must_pass { outcome.or_failed() } else { outcome };
        if written.is_ok() {
            written = write_case(&mut out, &case.name, &case.title, &outcome, cli.whole);
        }
        report.cases.push((case.name.clone(), outcome));
    });
    written?;
    if let Some(path) = &cli.json {
        let file =
            File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        let mut file = BufWriter::new(file);
        report.write_json(&mut file)?;
        file.flush()?;
    }
    writeln!(out, "{}", report.summary())?;
    anyhow::ensure!(!report.cases.is_empty(), "no case fits what was asked for");
    Ok(report.counts().1 == 0)
}

/// Standard output; a reader that has gone away is no error.
struct Quiet<W>(W);

impl<W: Write> Write for Quiet<W> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        match self.0.write(octets) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(octets.len()),
            other => other,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self.0.flush() {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => other,
        }
    }
}
