//! The syntax of keepalived's configuration: lines of words, blocks of lines, other files.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use super::{Import, Place};

/// A line of words, and behind it perhaps a block of such.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) place: Place,
    pub(super) words: Vec<String>,
    pub(super) block: Option<Vec<Item>>,
}

impl Item {
    pub(super) fn name(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }

    /// The words behind the first.
    pub(super) fn rest(&self) -> Vec<&str> {
        self.words.iter().skip(1).map(String::as_str).collect()
    }
}

/// Files that include each other no deeper.
const DEEPEST: usize = 16;

/// Reads blocks, from one file and those that it includes.
pub(super) struct Reader<'a> {
    pub(super) import: &'a mut Import,
    definitions: HashMap<String, String>,
    /// Blocks that are open, the outermost first; the last takes the next item.
    open: Vec<(Vec<Item>, Place)>,
    /// The words of an item that is not complete.
    words: Vec<String>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(import: &'a mut Import) -> Self {
        let outermost = (Vec::new(), Place { file: String::new(), line: 0 });
        Self { import, definitions: HashMap::new(), open: vec![outermost], words: Vec::new() }
    }

    /// Reads the lines of a file.
    pub(super) fn file(&mut self, path: &Path, text: &str, depth: usize) {
        let file = path.display().to_string();
        let mut is_definition = false;
        for (line, words) in (1..).zip(text.lines()) {
            let place = Place { file: file.clone(), line };
            let (plain, continues) = match words.trim_end().strip_suffix('\\') {
                Some(plain) => (plain, true),
                None => (words, false),
            };
            // A definition of several lines holds whatever it likes.
            if continues || is_definition {
                if !is_definition {
                    self.import.leave_out(&place, "a definition of several lines");
                }
                is_definition = continues;
                continue;
            }
            let words = split(plain);
            match words.first().map(String::as_str) {
                None => {}
                Some(
                    "include" | "includer" | "includem" | "includew" | "includeb" | "includea",
                ) => {
                    self.include(path, &words, &place, depth);
                }
                Some(first) if first.starts_with('$') && first.contains('=') => {
                    self.define(plain.trim_start());
                }
                Some(_) => self.line(&words, &place),
            }
        }
    }

    /// All that was read.
    pub(super) fn finish(mut self) -> Vec<Item> {
        while self.open.len() > 1 {
            if let Some((_, place)) = self.open.last() {
                let place = place.clone();
                self.import.leave_out(&place, "this block has no end");
                self.close(&place);
            }
        }
        self.open.pop().map(|(items, _)| items).unwrap_or_default()
    }

    fn include(&mut self, from: &Path, words: &[String], place: &Place, depth: usize) {
        let pattern = words.get(1).map_or("", String::as_str);
        let folder = from.parent().unwrap_or_else(|| Path::new("."));
        let pattern = folder.join(pattern).display().to_string();
        if depth == DEEPEST {
            return self.import.leave_out(place, "files include each other too deeply");
        }
        let Ok(found) = glob::glob(&pattern) else {
            return self.import.leave_out(place, format!("`{pattern}` is no pattern of files"));
        };
        let mut any = false;
        for path in found.filter_map(Result::ok) {
            any = true;
            match fs::read_to_string(&path) {
                Ok(text) => self.file(&path, &text, depth + 1),
                Err(error) => {
                    self.import.leave_out(place, format!("{}: {error}", path.display()));
                }
            }
        }
        if !any {
            self.import.leave_out(place, format!("there is no file {pattern}"));
        }
    }

    fn define(&mut self, text: &str) {
        if let Some((name, value)) = text.trim_start_matches('$').split_once('=') {
            let value = split(value).join(" ");
            let value = self.filled(&value);
            self.definitions.insert(name.trim().to_owned(), value);
        }
    }

    /// A text with the values of what it names, as far as they are known.
    fn filled(&self, text: &str) -> String {
        let mut filled = String::new();
        let mut rest = text;
        while let Some((before, behind)) = rest.split_once('$') {
            filled.push_str(before);
            let is_braced = behind.starts_with('{');
            let word = behind.trim_start_matches('{');
            let len = word.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            let (name, after) = word.split_at(len.unwrap_or(word.len()));
            if let Some(value) = self.definitions.get(name) {
                filled.push_str(value);
                rest = if is_braced { after.strip_prefix('}').unwrap_or(after) } else { after };
            } else {
                filled.push('$');
                rest = behind;
            }
        }
        filled + rest
    }

    fn line(&mut self, words: &[String], place: &Place) {
        for word in words {
            let word = self.filled(word);
            // What a definition stands for may be several words.
            for word in word.split_whitespace() {
                match word {
                    "{" => {
                        self.item(place);
                        self.open.push((Vec::new(), place.clone()));
                    }
                    "}" => {
                        self.item(place);
                        if self.open.len() > 1 {
                            self.close(place);
                        } else {
                            self.import.leave_out(place, "this ends no block");
                        }
                    }
                    word => self.words.push(word.to_owned()),
                }
            }
        }
        self.item(place);
    }

    /// Ends an item, if it has words.
    fn item(&mut self, place: &Place) {
        let words = std::mem::take(&mut self.words);
        if let Some((items, _)) = self.open.last_mut().filter(|_| !words.is_empty()) {
            items.push(Item { place: place.clone(), words, block: None });
        }
    }

    /// Ends the innermost block, which is of the item before it.
    fn close(&mut self, place: &Place) {
        let Some((block, _)) = self.open.pop() else { return };
        match self.open.last_mut().and_then(|(items, _)| items.last_mut()) {
            Some(item) if item.block.is_none() => item.block = Some(block),
            _ => self.import.leave_out(place, "this block is of nothing"),
        }
    }
}

/// The words of a line; a comment is none, a brace is one by itself, quotes hold one together.
fn split(line: &str) -> Vec<String> {
    let (mut words, mut word) = (Vec::new(), String::new());
    let (mut quoted, mut any) = (false, false);
    for c in line.chars() {
        match c {
            '"' => (quoted, any) = (!quoted, true),
            '#' | '!' if !quoted && word.is_empty() && !any => break,
            c if !quoted
                && (c.is_whitespace()
                    || c == '{' && !word.ends_with('$')
                    || c == '}' && !word.contains("${")) =>
            {
                if any {
                    words.push(std::mem::take(&mut word));
                    any = false;
                }
                if !c.is_whitespace() {
                    words.push(c.to_string());
                }
            }
            c => {
                word.push(c);
                any = true;
            }
        }
    }
    if any {
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_as_keepalived_does() {
        let words = split("real_server 10.0.${NET}.1 80 { weight 3 } ! why");
        assert_eq!(words, ["real_server", "10.0.${NET}.1", "80", "{", "weight", "3", "}"]);
        assert_eq!(split("quorum_up \"/bin/a b\" # no"), ["quorum_up", "/bin/a b"]);
        assert!(split("  # nothing").is_empty());
    }
}
