//! Transcripts: reading them, replaying them in process, and showing where we
//! differ.

use ipvs_core::snapshot::Control;
use similar::TextDiff;

use self::shell::Shell;

mod names;
mod shell;

/// A command with what it printed and its exit status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) command: String,
    pub(crate) stdout: Vec<String>,
    pub(crate) stderr: Vec<String>,
    pub(crate) status: i32,
}

/// Reads a transcript.
pub(crate) fn parse(text: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    for line in text.lines() {
        let (kind, rest) = line.split_at(2);
        if kind == "$ " {
            blocks.push(Block { command: rest.to_owned(), ..Block::default() });
            continue;
        }
        let block = blocks.last_mut().expect("a transcript begins with a command");
        match kind {
            "1 " => block.stdout.push(rest.to_owned()),
            "2 " => block.stderr.push(rest.to_owned()),
            "= " => block.status = rest.parse().expect("a status is a number"),
            _ => panic!("no line of a transcript: {line}"),
        }
    }
    blocks
}

/// How a replay went.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    /// Commands that are not ours to run, or known to differ, with the reason.
    pub(crate) skipped: Vec<String>,
    /// What differed, readably.
    pub(crate) report: String,
}

/// How a transcript is compared.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules<'a> {
    /// Commands that differ, each with the reason.
    pub(crate) differs: &'a [(&'a str, &'a str)],
    /// Whether lines may stand in another order.
    pub(crate) any_order: bool,
}

/// Replays a transcript on `control`.
pub(crate) fn replay(blocks: &[Block], control: &mut dyn Control, rules: Rules<'_>) -> Tally {
    let mut shell = Shell::new(control);
    let mut tally = Tally::default();
    for block in blocks {
        let Some(output) = shell.run(&block.command) else {
            tally.skipped.push(format!("not ours to run: {}", block.command));
            continue;
        };
        if let Some((_, reason)) = rules.differs.iter().find(|(line, _)| *line == block.command) {
            tally.skipped.push(format!("{reason}: {}", block.command));
            continue;
        }
        let got = Block {
            command: block.command.clone(),
            stdout: lines(&output.stdout),
            stderr: lines(&output.stderr),
            status: output.status,
        };
        let same = if rules.any_order { sorted(&got) == sorted(block) } else { got == *block };
        if same {
            tally.passed += 1;
        } else {
            tally.failed += 1;
            tally.report += &difference(block, &got);
        }
    }
    tally
}

fn lines(output: &[u8]) -> Vec<String> {
    String::from_utf8_lossy(output).lines().map(str::to_owned).collect()
}

fn sorted(block: &Block) -> Block {
    let mut block = block.clone();
    block.stdout.sort();
    block
}

/// The lines of a block, `-` where recorded only and `+` where ours only.
fn difference(expect: &Block, got: &Block) -> String {
    let text = |block: &Block| {
        let stdout = block.stdout.iter().map(|line| format!("1 {line}\n"));
        let stderr = block.stderr.iter().map(|line| format!("2 {line}\n"));
        stdout.chain(stderr).collect::<String>() + &format!("= {}\n", block.status)
    };
    let (expect_text, got_text) = (text(expect), text(got));
    let changes = TextDiff::from_lines(&expect_text, &got_text);
    let lines = changes.iter_all_changes().map(|change| format!("{} {change}", change.tag()));
    format!("$ {}\n{}", expect.command, lines.collect::<String>())
}
