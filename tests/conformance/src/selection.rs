//! Which cases are replayed.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use crate::case::Case;

/// What the user asked for.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Only cases that have one of these as tag or name; all if there is none.
    pub only: Vec<String>,
    /// No case that has one of these as tag or name.
    pub skip: Vec<String>,
    /// Only cases of these names; all if there is none.
    pub names: Option<Vec<String>>,
}

impl Selection {
    /// Whether `case` is to be replayed.
    pub fn takes(&self, case: &Case) -> bool {
        let is = |word: &String| *word == case.name || case.tags.contains(word);
        (self.only.is_empty() || self.only.iter().any(is))
            && !self.skip.iter().any(is)
            && self.names.as_ref().is_none_or(|names| names.contains(&case.name))
    }
}

/// The cases that must pass, by plane, as `passing.txt` lists them: a line
/// holds the name of a case and the planes.
#[derive(Debug)]
pub struct MustPass(BTreeMap<String, Vec<String>>);

impl MustPass {
    /// Reads the list.
    pub fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text)
    }

    fn parse(text: &str) -> Result<Self> {
        let mut by_plane: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for line in text.lines() {
            let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
            let Some(name) = words.next() else { continue };
            for plane in words {
                if !["core", "user", "bpf", "xdp", "netfilter"].contains(&plane) {
                    bail!("{name}: there is no plane {plane}");
                }
                by_plane.entry(plane.to_owned()).or_default().push(name.to_owned());
            }
        }
        Ok(Self(by_plane))
    }

    /// The names of the cases that must pass on `plane`.
    pub fn on(&self, plane: &str) -> Vec<String> {
        self.0.get(plane).cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(name: &str, tags: &[&str]) -> Case {
        Case {
            name: name.into(),
            title: String::new(),
            tags: tags.iter().map(ToString::to_string).collect(),
            topology: String::new(),
            setup: vec![],
            steps: vec![],
            end: std::time::Duration::ZERO,
        }
    }

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn one_of_the_tags_or_the_name_is_enough() {
        let selection = Selection { only: words(&["udp", "ttl-nat"]), ..Selection::default() };
        assert!(selection.takes(&case("a", &["nat", "udp"])));
        assert!(selection.takes(&case("ttl-nat", &["tcp"])));
        assert!(!selection.takes(&case("a", &["tcp"])));
        assert!(Selection::default().takes(&case("a", &[])));
    }

    #[test]
    fn skip_goes_before_only() {
        let selection =
            Selection { only: words(&["udp"]), skip: words(&["v6"]), ..Selection::default() };
        assert!(!selection.takes(&case("a", &["udp", "v6"])));
    }

    #[test]
    fn the_list_says_the_planes_of_each_case() {
        let list = MustPass::parse("# first\n\na core bpf # why\nb core\n").unwrap();
        assert_eq!(list.on("core"), ["a", "b"]);
        assert_eq!(list.on("bpf"), ["a"]);
        assert!(list.on("user").is_empty());
        assert!(MustPass::parse("a kernel").is_err());
    }
}
