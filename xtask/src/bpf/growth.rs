//! How many instructions each program has: recorded beside the object, so that a review shows
//! what a change costs, and held against what was recorded before.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use super::stack;
use crate::run::say;

/// What a program may grow by, in percent, before it is named.
const UNREMARKABLE: usize = 5;

type Counts = BTreeMap<String, usize>;

/// Records the counts of an object in `file`.
pub(super) fn record(root: &Path, file: &str, object: &[u8]) -> Result<()> {
    let counts = stack::instructions(object)?;
    fs::write(root.join(file), written(&counts)).with_context(|| format!("cannot write {file}"))?;
    tell(root, file, &counts);
    Ok(())
}

/// Makes sure that `file` holds the counts of an object.
pub(super) fn check(root: &Path, file: &str, object: &[u8]) -> Result<()> {
    let counts = stack::instructions(object)?;
    let recorded = fs::read_to_string(root.join(file))
        .with_context(|| format!("cannot read {file}: run `cargo xtask bpf`"))?;
    if recorded != written(&counts) {
        bail!("{file} is not what the object has: run `cargo xtask bpf` and commit it");
    }
    tell(root, file, &counts);
    Ok(())
}

/// Names the programs that have grown since the branch left main, or since the commit before.
fn tell(root: &Path, file: &str, counts: &Counts) {
    let git = |arguments: &[&str]| {
        let mut command = Command::new("git");
        let output =
            command.args(arguments).current_dir(root).stderr(Stdio::null()).output().ok()?;
        output.status.success().then(|| String::from_utf8(output.stdout).ok())?
    };
    let before = || {
        let head = git(&["rev-parse", "HEAD"])?;
        let base = git(&["merge-base", "HEAD", "main"])?;
        let base = if base == head { "HEAD~1" } else { base.trim() };
        git(&["show", &format!("{base}:{file}")])
    };
    // Nothing to hold them against: no git, no main, or no such file yet.
    let Some(before) = before() else { return };
    for line in grown(&read(&before), counts) {
        say(&line);
    }
}

fn written(counts: &Counts) -> String {
    let lines: Vec<String> =
        counts.iter().map(|(program, count)| format!("{count:>7} {program}\n")).collect();
    lines.concat()
}

fn read(text: &str) -> Counts {
    let line = |line: &str| {
        let (count, program) = line.trim_start().split_once(' ')?;
        Some((program.to_owned(), count.parse().ok()?))
    };
    text.lines().filter_map(line).collect()
}

/// A line for each program that has grown by more than is unremarkable.
fn grown(before: &Counts, now: &Counts) -> Vec<String> {
    let line = |(program, now): (&String, &usize)| {
        let before = *before.get(program)?;
        let more = now.checked_sub(before)?;
        (more * 100 > before * UNREMARKABLE).then(|| {
            let percent = more * 100 / before.max(1);
            format!("grown: {program} by {percent} %, from {before} to {now} instructions")
        })
    };
    now.iter().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(all: &[(&str, usize)]) -> Counts {
        all.iter().map(|(program, count)| ((*program).to_owned(), *count)).collect()
    }

    #[test]
    fn a_program_that_grows_by_more_than_a_twentieth_is_named() {
        let before = counts(&[("ipvs_tc", 1000), ("ipvs_xdp", 1000), ("ipvs_xdp_icmp", 50)]);
        let now = counts(&[("ipvs_tc", 1050), ("ipvs_xdp", 1060), ("ipvs_new", 9)]);
        assert_eq!(
            grown(&before, &now),
            ["grown: ipvs_xdp by 6 %, from 1000 to 1060 instructions"]
        );
    }

    #[test]
    fn what_is_written_is_read_again() {
        let all = counts(&[("ipvs_tc", 12_345), ("ipvs_xdp", 7)]);
        assert_eq!(read(&written(&all)), all);
    }
}
