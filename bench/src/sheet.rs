//! The figures of a suite: what each round gave by name, as a table for people and as JSON.

use std::fmt;
use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::machine::Machine;
use crate::report::Spread;
use crate::say;

/// One figure: what was measured in each round, and what comes of it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figure {
    /// What it is of, from the general to the particular, with slashes between.
    pub(crate) name: String,
    /// Its unit.
    pub(crate) unit: &'static str,
    /// Median and spread, unless there is a flaw.
    pub(crate) spread: Option<Spread>,
    /// Why there is no figure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) flaw: Option<String>,
    /// Of each round.
    pub(crate) samples: Vec<f64>,
}

/// All figures of a suite, and under which circumstances they were taken.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Sheet {
    /// The suite's name.
    pub(crate) suite: &'static str,
    /// Where.
    pub(crate) machine: Machine,
    /// How many rounds.
    pub(crate) rounds: u32,
    /// What has to be known to read them.
    pub(crate) notes: Vec<String>,
    /// The figures, in the order of their first samples.
    pub(crate) figures: Vec<Figure>,
}

impl Sheet {
    /// An empty one.
    pub(crate) fn new(suite: &'static str, rounds: u32) -> Self {
        let (notes, figures) = (Vec::new(), Vec::new());
        Self { suite, machine: Machine::this(), rounds, notes, figures }
    }

    /// Adds what has to be known.
    pub(crate) fn note(&mut self, note: impl Into<String>) {
        let note = note.into();
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// Adds the sample of a round.
    pub(crate) fn add(&mut self, name: &str, unit: &'static str, sample: f64) {
        let figure = self.entry(name, unit);
        figure.samples.push(sample);
        figure.spread =
            Spread::of(figure.samples.iter().copied()).filter(|_| figure.flaw.is_none());
    }

    /// Leaves no figure, for that reason: one round that cannot be believed is enough.
    pub(crate) fn refuse(&mut self, name: &str, unit: &'static str, flaw: impl Into<String>) {
        let flaw = flaw.into();
        say(&format!("{name}: {flaw}"));
        let figure = self.entry(name, unit);
        figure.flaw.get_or_insert(flaw);
        figure.spread = None;
    }

    #[expect(clippy::indexing_slicing, reason = "the place was found, or made, a line before")]
    fn entry(&mut self, name: &str, unit: &'static str) -> &mut Figure {
        let found = self.figures.iter().position(|it| it.name == name);
        let place = found.unwrap_or(self.figures.len());
        if found.is_none() {
            let name = name.to_owned();
            self.figures.push(Figure { name, unit, spread: None, flaw: None, samples: vec![] });
        }
        &mut self.figures[place]
    }

    /// The names of what has no figure.
    pub(crate) fn refused(&self) -> Vec<&str> {
        let refused = self.figures.iter().filter(|it| it.flaw.is_some());
        refused.map(|it| it.name.as_str()).collect()
    }

    /// Writes the table to `out`, and all figures to `json` if there is such a file.
    pub(crate) fn publish(&self, out: &mut impl Write, json: Option<&Path>) -> Result<()> {
        self.write(out)?;
        if let Some(path) = json {
            let text = serde_json::to_string_pretty(self)? + "\n";
            std::fs::write(path, text)
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        let refused = self.refused();
        anyhow::ensure!(refused.is_empty(), "no figure of {}", refused.join(", "));
        Ok(())
    }

    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "{}", self.machine)?;
        writeln!(out, "{}: median (least to greatest) of {} rounds", self.suite, self.rounds)?;
        for note in &self.notes {
            writeln!(out, "{note}")?;
        }
        writeln!(out)?;
        let names = self.figures.iter().map(|it| it.name.len()).max().unwrap_or(0);
        for figure in &self.figures {
            write!(out, "{:names$}  ", figure.name)?;
            match (&figure.flaw, figure.spread) {
                (Some(flaw), _) => writeln!(out, "no figure: {flaw}")?,
                (None, None) => writeln!(out, "no figure")?,
                (None, Some(Spread { median, min, max })) => {
                    let spread = format!("({} to {})", Short(min), Short(max));
                    writeln!(
                        out,
                        "{:>9}  {spread:<22} {}",
                        Short(median).to_string(),
                        figure.unit
                    )?;
                }
            }
        }
        writeln!(out)
    }
}

/// A number with as many places as it deserves.
struct Short(f64);

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let places = match self.0.abs() {
            100.0.. => 0,
            10.0.. => 1,
            1.0.. => 2,
            _ => 3,
        };
        write!(f, "{:.places$}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_round_that_cannot_be_believed_leaves_no_figure() {
        let mut sheet = Sheet::new("test", 2);
        sheet.add("nat/v4", "ns", 1.0);
        sheet.add("dr/v4", "ns", 3.0);
        sheet.refuse("nat/v4", "ns", "half was lost");
        sheet.add("nat/v4", "ns", 2.0);
        sheet.add("dr/v4", "ns", 5.0);
        assert_eq!(sheet.figures[0].spread, None);
        assert_eq!(sheet.figures[1].spread.map(|it| it.median), Some(4.0));
        let mut out = Vec::new();
        let error = sheet.publish(&mut out, None).unwrap_err();
        assert_eq!(error.to_string(), "no figure of nat/v4");
        let table = String::from_utf8(out).unwrap();
        assert!(table.contains("nat/v4  no figure: half was lost\n"), "{table}");
        assert!(table.contains("dr/v4        4.00  (3.00 to 5.00)"), "{table}");
    }
}
