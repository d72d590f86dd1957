//! What is wrong with a file, and where.

use std::ops::Range;

/// What is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}:{column}: {message}")]
pub struct ConfigError {
    /// Name of the file, as it was given.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column, in characters from 1.
    pub column: usize,
    /// What.
    pub message: String,
}

/// A mistake by its place in the text.
#[derive(Debug)]
pub(crate) struct Mistake {
    pub(crate) span: Range<usize>,
    pub(crate) message: String,
}

impl Mistake {
    pub(crate) fn new(span: Range<usize>, message: impl Into<String>) -> Self {
        Self { span, message: message.into() }
    }

    /// The same by line and column.
    pub(crate) fn within(self, file: &str, text: &str) -> ConfigError {
        let before = text.get(..self.span.start).unwrap_or(text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
        ConfigError { file: file.to_owned(), line, column, message: self.message }
    }
}

impl From<toml::de::Error> for Mistake {
    fn from(error: toml::de::Error) -> Self {
        Self::new(error.span().unwrap_or(0..0), with_nearest(error.message()))
    }
}

/// Adds the nearest known name to a complaint about an unknown one, whose
/// known names follow it in backquotes.
fn with_nearest(message: &str) -> String {
    let message = message.trim_end();
    let Some(rest) = message.strip_prefix("unknown field `") else { return message.to_owned() };
    let mut names = rest.split('`').step_by(2);
    let unknown = names.next().unwrap_or_default();
    format!("unknown key `{unknown}`{}", meant(unknown, names))
}

/// `, did you mean …?` with the name that is nearest, if one is near at all.
pub(crate) fn meant<'a>(word: &str, names: impl Iterator<Item = &'a str>) -> String {
    let near = |name: &&str| strsim::normalized_damerau_levenshtein(word, name);
    let best = names.max_by(|a, b| near(a).total_cmp(&near(b)));
    match best {
        Some(name) if near(&name) >= 0.4 => format!(", did you mean `{name}`?"),
        _ => String::new(),
    }
}
