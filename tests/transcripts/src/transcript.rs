//! Transcripts: what was typed, and what was printed.

use anyhow::{Context as _, Result, bail};

/// A command with what it printed and its exit status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) command: String,
    pub(crate) stdout: Vec<String>,
    pub(crate) stderr: Vec<String>,
    pub(crate) status: i32,
}

impl Block {
    /// What was printed, as in a transcript.
    pub(crate) fn printed(&self) -> String {
        let stdout = self.stdout.iter().map(|line| format!("1 {line}\n"));
        let stderr = self.stderr.iter().map(|line| format!("2 {line}\n"));
        stdout.chain(stderr).collect::<String>() + &format!("= {}\n", self.status)
    }
}

/// Reads a transcript.
pub(crate) fn parse(text: &str) -> Result<Vec<Block>> {
    let mut blocks: Vec<Block> = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let wrong = || format!("line {number} is none of a transcript: {line}");
        let (kind, rest) = line.split_at_checked(2).with_context(wrong)?;
        if kind == "$ " {
            blocks.push(Block { command: rest.to_owned(), ..Block::default() });
            continue;
        }
        let block = blocks.last_mut().with_context(wrong)?;
        match kind {
            "1 " => block.stdout.push(rest.to_owned()),
            "2 " => block.stderr.push(rest.to_owned()),
            "= " => block.status = rest.parse().with_context(wrong)?,
            _ => bail!(wrong()),
        }
    }
    Ok(blocks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blanks_at_the_ends_of_lines_and_empty_lines_are_kept() {
        let text = "$ a b \n1 x \n1 \n2 y\n= 255\n$ c\n= 0\n";
        let blocks = parse(text).unwrap();
        assert_eq!(blocks.len(), 2);
        assert_eq!(blocks[0].command, "a b ");
        assert_eq!(blocks[0].stdout, ["x ", ""]);
        assert_eq!(blocks[0].printed(), "1 x \n1 \n2 y\n= 255\n");
    }

    #[test]
    fn what_is_no_transcript_is_refused_with_its_line() {
        for (text, line) in [("1 x\n", 1), ("$ a\nx\n", 2), ("$ a\n= no\n", 2)] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.starts_with(&format!("line {line} ")), "{error}");
        }
    }
}
