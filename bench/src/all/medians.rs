//! What the suites have written, by one name each.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::report::Spread;

/// Figures by suite and name.
#[derive(Debug, Default)]
pub(super) struct Medians {
    suites: BTreeMap<String, Vec<(String, Spread)>>,
}

/// A suite's file, either kind.
#[derive(Deserialize)]
#[serde(untagged)]
enum File {
    Sheet { figures: Vec<Figure> },
    Forward { results: Vec<Forwarded> },
}

#[derive(Deserialize)]
struct Figure {
    name: String,
    spread: Option<Spread>,
}

#[derive(Deserialize)]
struct Forwarded {
    mode: String,
    flows: u32,
    added_ns: Option<Spread>,
}

impl Medians {
    /// Takes over what a suite has written.
    pub(super) fn take(&mut self, suite: &str, path: &Path) -> Result<()> {
        let text =
            fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        self.read(suite, &text).with_context(|| format!("cannot read {}", path.display()))
    }

    fn read(&mut self, suite: &str, text: &str) -> Result<()> {
        let figures = match serde_json::from_str(text)? {
            File::Sheet { figures } => {
                figures.into_iter().filter_map(|it| Some((it.name, it.spread?))).collect()
            }
            File::Forward { results } => {
                let named =
                    |it: Forwarded| Some((format!("{}/{}", it.mode, it.flows), it.added_ns?));
                results.into_iter().filter_map(named).collect()
            }
        };
        self.suites.insert(suite.to_owned(), figures);
        Ok(())
    }

    /// All figures of a suite.
    pub(super) fn of(&self, suite: &str) -> &[(String, Spread)] {
        self.suites.get(suite).map_or(&[], Vec::as_slice)
    }

    /// The median of `SUITE:NAME`.
    pub(super) fn get(&self, name: &str) -> Option<f64> {
        let (suite, name) = name.split_once(':')?;
        Some(self.of(suite).iter().find(|(it, _)| it == name)?.1.median)
    }

    /// One as a multiple of another.
    pub(super) fn ratio(&self, one: &str, other: &str) -> Option<f64> {
        Some(self.get(one)? / self.get(other)?)
    }
}

#[cfg(test)]
impl Medians {
    /// With these figures.
    pub(super) fn with(figures: &[(&str, f64)]) -> Self {
        let mut medians = Self::default();
        for (name, median) in figures {
            let (suite, name) = name.split_once(':').unwrap();
            let spread = Spread { median: *median, min: *median, max: *median };
            medians.suites.entry(suite.to_owned()).or_default().push((name.to_owned(), spread));
        }
        medians
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_both_kinds_are_read_and_what_has_no_figure_is_left_out() {
        let mut medians = Medians::default();
        let sheet = r#"{"suite": "connect", "figures": [
            {"name": "xdp-nat/empty", "unit": "x", "spread": {"median": 6, "min": 5, "max": 7}, "samples": []},
            {"name": "nft-dnat/empty", "unit": "x", "spread": null, "flaw": "lost", "samples": []}]}"#;
        medians.read("connect", sheet).unwrap();
        let forward = r#"{"results": [{"mode": "xdp-nat", "flows": 1, "ns": null,
            "added_ns": {"median": 3, "min": 2, "max": 4}}]}"#;
        medians.read("forward-ipv4", forward).unwrap();
        assert_eq!(medians.ratio("connect:xdp-nat/empty", "forward-ipv4:xdp-nat/1"), Some(2.0));
        assert_eq!(medians.get("connect:nft-dnat/empty"), None);
        assert_eq!(medians.get("scale:xdp-nat/apart"), None);
    }
}
