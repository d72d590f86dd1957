//! The figures of the control bench, for people and as JSON.

use std::io::{self, Write};

use serde::Serialize;

use super::load::Round;
use crate::machine::Machine;
use crate::report::Spread;

/// What the issue of the control side asks of ours, with the load that it names.
const RESTORE_S: f64 = 2.0;
const LISTING_S: f64 = 1.0;
const EDIT_MS: f64 = 5.0;

/// All figures of a run, and under which circumstances they were taken.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Where.
    pub(crate) machine: Machine,
    /// How many services.
    pub(crate) services: u32,
    /// How many destinations each has.
    pub(crate) dests: u32,
    /// How many rounds.
    pub(crate) rounds: u32,
    /// The figures are held against what is asked.
    pub(crate) is_asked: bool,
    /// The figures.
    pub(crate) results: Vec<Figures>,
}

/// The figures of one plane, or of the kernel's IPVS.
#[derive(Debug, Serialize)]
pub(crate) struct Figures {
    name: &'static str,
    /// Why there are none, or how far they can be relied on.
    caveat: Option<String>,
    restore_s: Option<Spread>,
    listing_s: Option<Spread>,
    edit_ms: Option<Spread>,
    clear_s: Option<Spread>,
    samples: Vec<Round>,
}

impl Figures {
    /// No figures.
    pub(crate) fn without(name: &'static str, caveat: String) -> Self {
        Self::new(name, Some(caveat), Vec::new())
    }

    /// Those of `rounds`.
    pub(crate) fn new(name: &'static str, caveat: Option<String>, rounds: Vec<Round>) -> Self {
        let spread = |of: fn(&Round) -> f64| Spread::of(rounds.iter().map(of));
        let edits = rounds.iter().flat_map(|round| &round.edits);
        Self {
            name,
            caveat,
            restore_s: spread(|round| round.restore),
            listing_s: spread(|round| round.listing),
            edit_ms: Spread::of(edits.map(|seconds| seconds * 1e3)),
            clear_s: spread(|round| round.clear),
            samples: rounds,
        }
    }

    /// What is asked of it and not so.
    fn misses(&self) -> Vec<&'static str> {
        let over = |found: Option<Spread>, most: f64| found.is_some_and(|it| it.median > most);
        let mut misses = Vec::new();
        if over(self.restore_s, RESTORE_S) {
            misses.push("restore");
        }
        if over(self.listing_s, LISTING_S) {
            misses.push("listing");
        }
        if over(self.edit_ms, EDIT_MS) {
            misses.push("edit");
        }
        misses
    }

    fn is_ours(&self) -> bool {
        self.name != super::KERNEL && !self.samples.is_empty()
    }
}

impl Report {
    /// Writes the table.
    pub(crate) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "{}", self.machine)?;
        writeln!(
            out,
            "{} services with {} destinations each; median (least to greatest) of {} rounds, \
             by the clock on the wall; an edit is one run of ipvsadm",
            self.services, self.dests, self.rounds
        )?;
        writeln!(
            out,
            "\n{:<8}{:>24}{:>24}{:>24}{:>24}",
            "", "restore, s", "listing, s", "edit, ms", "clear, s"
        )?;
        for figures in &self.results {
            let columns = [figures.restore_s, figures.listing_s, figures.edit_ms, figures.clear_s];
            write!(out, "{:<8}", figures.name)?;
            for column in columns {
                write!(out, "{:>24}", column.map_or_else(|| "-".to_owned(), in_words))?;
            }
            writeln!(out)?;
        }
        writeln!(out)?;
        for figures in &self.results {
            if let Some(caveat) = &figures.caveat {
                writeln!(out, "{}: {caveat}", figures.name)?;
            }
        }
        let ours = self.results.iter().filter(|it| self.is_asked && it.is_ours());
        for figures in ours {
            let misses = figures.misses();
            let verdict = if misses.is_empty() {
                "met".to_owned()
            } else {
                format!("NOT met: {}", misses.join(", "))
            };
            writeln!(
                out,
                "{}: asked are at most {RESTORE_S} s, {LISTING_S} s and {EDIT_MS} ms; {verdict}",
                figures.name
            )?;
        }
        Ok(())
    }
}

fn in_words(Spread { median, min, max }: Spread) -> String {
    format!("{median:.2} ({min:.2} to {max:.2})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_longer_than_asked_is_named() {
        let round = |restore| Round { restore, listing: 0.5, edits: vec![0.004], clear: 0.1 };
        let figures = Figures::new("user", None, vec![round(1.0), round(9.0), round(1.5)]);
        assert!(figures.misses().is_empty(), "medians count");
        let figures = Figures::new("user", None, vec![round(1.0), round(9.0), round(2.5)]);
        assert_eq!(figures.misses(), ["restore"]);
        assert_eq!(figures.edit_ms.map(|it| it.median), Some(4.0));
    }
}
