//! `cargo xtask transcripts`: replays what Debian's ipvsadm printed on a real kernel
//! before our daemon, with our tool or with Debian's own.

mod applet;
mod compare;
mod room;
mod transcript;

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};
use clap::Parser;

use crate::room::{House, Room};

/// Replays what Debian's ipvsadm printed on a real kernel before our daemon, and tells what
/// differs.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask transcripts")]
struct Cli {
    /// Folder of transcripts, or one of them [default: the recorded ones]
    dir: Option<PathBuf>,
    /// Run Debian's ipvsadm, led to our daemon by the preloaded library
    #[arg(long)]
    real_binary: bool,
    /// The preloaded library [default: the one that was built]
    #[arg(long, value_name = "FILE")]
    library: Option<PathBuf>,
    /// Fail a transcript for commands, too, that are known to differ
    #[arg(long)]
    strict: bool,
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
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut out = io::stdout().lock();
    let title = if cli.real_binary { "transcripts by the real ipvsadm" } else { "transcripts" };
    if let Some(reason) = missing(cli) {
        writeln!(out, "SKIPPED: {title}: {reason}")?;
        return Ok(true);
    }
    let files = files(cli.dir.as_deref().unwrap_or(home))?;
    let library = if cli.real_binary { Some(library(cli)?) } else { None };
    if ipvs_lab::can_make_namespaces() {
        ipvs_lab::enter_private_mounts()?;
    } else if let Err(error) = ipvs_lab::enter_user_namespace() {
        writeln!(out, "SKIPPED: {title}: {error}")?;
        return Ok(true);
    }
    let house = House::furnish(home, library)?;
    let known = if cli.strict { BTreeMap::new() } else { known(home, cli.real_binary)? };
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for file in &files {
        let name = file.file_stem().unwrap_or_default().display();
        let (report, differ) = replay(file, &house, &known)?;
        if !report.is_empty() {
            failed += 1;
            writeln!(out, "FAIL  {name}\n{report}")?;
        } else if differ.is_empty() {
            passed += 1;
            writeln!(out, "ok    {name}")?;
        } else {
            skipped += 1;
        }
        // Also of one that fails: nothing is left out in silence.
        for (command, reason) in differ {
            writeln!(out, "skip  {name}: known to differ, {reason}: {command}")?;
        }
    }
    writeln!(out, "{passed} passed, {failed} failed, {skipped} skipped")?;
    Ok(failed == 0)
}

/// What this machine lacks.
fn missing(cli: &Cli) -> Option<&'static str> {
    if !Path::new("/etc/services").is_file() {
        return Some("no /etc/services (package netbase)");
    }
    let is_there = Path::new("/usr/sbin/ipvsadm").is_file() || Path::new("/sbin/ipvsadm").is_file();
    (cli.real_binary && !is_there).then_some("ipvsadm is not installed")
}

/// The transcripts at a path, by name.
fn files(path: &Path) -> Result<Vec<PathBuf>> {
    if path.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = fs::read_dir(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let file = entry?.path();
        let is_list = file.file_name().is_some_and(|name| name == "known.txt");
        if file.extension().is_some_and(|ending| ending == "txt") && !is_list {
            files.push(file);
        }
    }
    ensure!(!files.is_empty(), "no transcript in {}", path.display());
    files.sort();
    Ok(files)
}

/// The library that leads Debian's tool to our daemon.
fn library(cli: &Cli) -> Result<PathBuf> {
    const LIBRARY: &str = "libipvs_preload.so";
    let program = std::env::current_exe()?;
    let folder = program.parent().context("a program lies in a folder")?;
    // Where cargo leaves what a program depends on.
    let path = cli.library.clone().unwrap_or_else(|| folder.join("deps").join(LIBRARY));
    ensure!(path.is_file(), "no {}", path.display());
    Ok(std::path::absolute(path)?)
}

/// Commands that are known to differ, with the reason. Those of the list that begin with
/// `tool: ` are our tool's, and not those of the original.
fn known(home: &Path, real_binary: bool) -> Result<BTreeMap<String, String>> {
    let text = fs::read_to_string(home.join("known.txt"))?;
    let mut known = BTreeMap::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (reason, command) = line.split_once(" | ").with_context(|| line.to_owned())?;
        match reason.strip_prefix("tool: ") {
            Some(_) if real_binary => {}
            Some(reason) => drop(known.insert(command.to_owned(), reason.to_owned())),
            None => drop(known.insert(command.to_owned(), reason.to_owned())),
        }
    }
    Ok(known)
}

/// Replays one transcript; returns what differs, readably, and what was known to differ.
fn replay<'a>(
    file: &Path,
    house: &House,
    known: &'a BTreeMap<String, String>,
) -> Result<(String, Vec<(&'a String, &'a String)>)> {
    let text = fs::read_to_string(file)?;
    let blocks = transcript::parse(&text).with_context(|| file.display().to_string())?;
    let room = Room::new(house)?;
    let mut report = String::new();
    let mut skipped = Vec::new();
    for block in &blocks {
        let got = room.run(&block.command)?;
        if compare::agree(block, &got) {
            continue;
        }
        match known.get_key_value(&block.command) {
            Some(entry) => skipped.push(entry),
            None => report += &compare::difference(block, &got),
        }
    }
    Ok((report, skipped))
}
