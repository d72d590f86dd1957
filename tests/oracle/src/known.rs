//! Differences that are known, each with where PARITY.md gives the reason.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use ipvs_conformance::compare::Difference;

/// The list: a line each, the shape of a difference and the line of PARITY.md.
#[derive(Debug, Default)]
pub(crate) struct Known(Vec<(String, String)>);

impl Known {
    /// Reads the list, and sees to it that PARITY.md has the lines it names.
    pub(crate) fn load(list: &Path, parity: &Path) -> Result<Self> {
        let read = |path: &Path| {
            fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
        };
        let (list, parity) = (read(list)?, read(parity)?);
        let mut known = Vec::new();
        for line in list.lines().filter(|it| !it.is_empty() && !it.starts_with('#')) {
            let (shape, reason) = line.split_once(" => ").context("a line without ` => `")?;
            ensure!(parity.contains(reason.trim()), "PARITY.md does not say: {reason}");
            known.push((shape.trim().to_owned(), reason.trim().to_owned()));
        }
        Ok(Self(known))
    }

    /// The reason, if every one of these differences of a scenario about
    /// `topic` is known.
    pub(crate) fn reason(&self, topic: &str, differences: &[Difference]) -> Option<&str> {
        let mut reason = None;
        for difference in differences {
            for shape in shapes(topic, difference) {
                let (_, found) = self.0.iter().find(|(known, _)| fits(known, &shape))?;
                reason = Some(found.as_str());
            }
        }
        reason
    }
}

/// The shapes of a difference: topic, place, and what differs, without numbers.
pub(crate) fn shapes(topic: &str, difference: &Difference) -> Vec<String> {
    let place = place(difference);
    let mut shapes: Vec<String> =
        difference.lines.iter().map(|line| format!("{topic}: {place}: {}", what(line))).collect();
    shapes.dedup();
    shapes
}

/// Where a difference is, without numbers: `setup`, `frame`, `command`, or the table.
pub(crate) fn place(difference: &Difference) -> String {
    let words = difference.place.as_str();
    if words.contains(": frame on ") {
        "frame".to_owned()
    } else if words.starts_with("at the end: ") {
        words.to_owned()
    } else if words.starts_with("step ") {
        words.split_once('`').map_or("step", |_| "command").to_owned()
    } else {
        words.split(' ').next().unwrap_or_default().to_owned()
    }
}

fn what(line: &str) -> String {
    let short = match line.strip_prefix("frame ") {
        Some(rest) => {
            let rest = rest.split_once(": ").map_or(rest, |(_, rest)| rest);
            rest.split_once(": got ").map_or(rest, |(field, _)| field)
        }
        None => line,
    };
    let mut told = String::new();
    for letter in short.chars() {
        let letter = if letter.is_ascii_digit() { '#' } else { letter };
        if !(letter == '#' && told.ends_with('#')) {
            told.push(letter);
        }
    }
    told
}

/// Whether `shape` is `pattern`, in which `*` stands for anything.
fn fits(pattern: &str, shape: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| shape.strip_prefix(first)) else {
        return false;
    };
    let mut last = None;
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = rest.get(at + part.len()..).unwrap_or_default(),
            None => return false,
        }
        last = Some(part);
    }
    // What the pattern ends with, the shape has to end with.
    rest.is_empty() || last.is_some_and(|part| part.is_empty() || shape.ends_with(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn difference(place: &str, line: &str) -> Difference {
        Difference { place: place.into(), lines: vec![line.into()] }
    }

    #[test]
    fn a_shape_has_no_numbers() {
        let one =
            difference("step 3 at 0 s: frame on c0, 74", "frame 0: ipv4.ttl: got 1 expected 2");
        assert_eq!(shapes("tcp", &one), ["tcp: frame: ipv#.ttl"]);
        let table = difference("at the end: `ipvsadm -Ln`", "- TCP 10.1.0.11:80");
        assert_eq!(shapes("x", &table), ["x: at the end: `ipvsadm -Ln`: - TCP #.#.#.#:#"]);
    }

    #[test]
    fn a_star_stands_for_anything() {
        assert!(fits("a*c", "abc") && fits("a*", "abc") && fits("abc", "abc") && fits("*c", "abc"));
        assert!(!fits("a*d", "abc") && !fits("ab", "abc") && !fits("b*", "abc"));
    }

    #[test]
    fn a_scenario_is_known_only_if_all_that_differs_is() {
        let known = Known(vec![("*: frame: ipv#.ttl".into(), "why".into())]);
        let ttl =
            difference("step 3 at 0 s: frame on c0, 74", "frame 0: ipv4.ttl: got 1 expected 2");
        let other = difference("step 3 at 0 s: `ipvsadm -Ln`", "- a");
        assert_eq!(known.reason("tcp", std::slice::from_ref(&ttl)), Some("why"));
        assert_eq!(known.reason("tcp", &[ttl, other]), None);
    }
}
