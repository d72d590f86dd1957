//! Splits a command line into options as the popt library does, which
//! `ipvsadm` is built with.
//!
//! * A word that does not begin with `-`, and `-` alone, is no option and may
//!   stand anywhere; `--` makes all further words such.
//! * `--name`, `--name=value` and, where a value is required, `--name value`.
//!   Names cannot be shortened.
//! * `-abc` is `-a -b -c`, up to an option with a value, which takes the rest
//!   of the word (less one leading `=`) or else the next word.
//! * A required value is taken even if it begins with `-`, an optional one not.

/// Whether an option has a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// Never.
    None,
    /// Always.
    Required,
    /// If the next word does not look like an option.
    Optional,
}

/// An option of the table, standing for `T`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spec<T> {
    /// Name after `--`.
    pub(crate) long: &'static str,
    /// Letter after `-`.
    pub(crate) short: Option<u8>,
    /// Whether it has a value.
    pub(crate) value: Value,
    /// What it means.
    pub(crate) meaning: T,
}

/// What is wrong with a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    /// No such option.
    #[error("unknown option")]
    Unknown,
    /// The value is missing.
    #[error("missing argument")]
    NoValue,
    /// There is a value where none belongs.
    #[error("option does not take an argument")]
    UnwantedValue,
}

/// An option with its value, or what is wrong.
pub(crate) type Taken<'a, T> = Result<(T, Option<&'a [u8]>), Fault>;

/// Reads the options of a command line one by one.
#[derive(Debug)]
pub(crate) struct Parser<'a, T: 'static> {
    table: &'static [Spec<T>],
    words: &'a [Vec<u8>],
    /// How many words have been taken.
    taken: usize,
    /// What is left of a word of short options.
    bundle: Option<&'a [u8]>,
    options_ended: bool,
    leftover: Vec<&'a [u8]>,
}

impl<'a, T: Copy> Parser<'a, T> {
    /// A parser of `words`, which do not include the program's name.
    pub(crate) fn new(table: &'static [Spec<T>], words: &'a [Vec<u8>]) -> Self {
        Self { table, words, taken: 0, bundle: None, options_ended: false, leftover: Vec::new() }
    }

    /// The next option and its value.
    pub(crate) fn next(&mut self) -> Option<Taken<'a, T>> {
        loop {
            if let Some(bundle) = self.bundle.take() {
                return Some(self.short(bundle));
            }
            let word = self.take()?;
            match word {
                _ if self.options_ended => self.leftover.push(word),
                b"--" => self.options_ended = true,
                [b'-', b'-', long @ ..] => return Some(self.long(long)),
                [b'-', bundle @ ..] if !bundle.is_empty() => self.bundle = Some(bundle),
                _ => self.leftover.push(word),
            }
        }
    }

    /// The word that was taken last, as typed.
    pub(crate) fn word(&self) -> &'a [u8] {
        self.taken.checked_sub(1).and_then(|at| self.words.get(at)).map_or(&[], Vec::as_slice)
    }

    /// The words that are no options, once the options are read.
    pub(crate) fn into_leftover(self) -> Vec<&'a [u8]> {
        self.leftover
    }

    fn take(&mut self) -> Option<&'a [u8]> {
        let word = self.words.get(self.taken)?;
        self.taken += 1;
        Some(word)
    }

    /// An option by its long name, perhaps with a value after `=`.
    fn long(&mut self, text: &'a [u8]) -> Taken<'a, T> {
        let mut parts = text.splitn(2, |&octet| octet == b'=');
        let name = parts.next().unwrap_or(&[]);
        let spec = self.table.iter().find(|spec| spec.long.as_bytes() == name);
        let spec = spec.ok_or(Fault::Unknown)?;
        match (parts.next(), spec.value) {
            (Some(_), Value::None) => Err(Fault::UnwantedValue),
            (Some(value), _) => Ok((spec.meaning, Some(value))),
            (None, _) => Ok((spec.meaning, self.value_in_next_word(spec.value)?)),
        }
    }

    /// The first option of a word of short ones.
    fn short(&mut self, bundle: &'a [u8]) -> Taken<'a, T> {
        let (letter, rest) = bundle.split_first().ok_or(Fault::Unknown)?;
        let spec = self.table.iter().find(|spec| spec.short == Some(*letter));
        let spec = spec.ok_or(Fault::Unknown)?;
        match (rest, spec.value) {
            ([b'=', ..], Value::None) => Err(Fault::UnwantedValue),
            ([], _) => Ok((spec.meaning, self.value_in_next_word(spec.value)?)),
            (_, Value::None) => {
                self.bundle = Some(rest);
                Ok((spec.meaning, None))
            }
            (_, _) => Ok((spec.meaning, Some(rest.strip_prefix(b"=").unwrap_or(rest)))),
        }
    }

    /// The value of an option that fills its word.
    fn value_in_next_word(&mut self, value: Value) -> Result<Option<&'a [u8]>, Fault> {
        let next = self.words.get(self.taken);
        match value {
            Value::None => Ok(None),
            Value::Optional if next.is_none_or(|word| word.starts_with(b"-")) => Ok(None),
            Value::Required | Value::Optional => self.take().map(Some).ok_or(Fault::NoValue),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[Spec<char>] = &[
        Spec { long: "list", short: Some(b'L'), value: Value::None, meaning: 'L' },
        Spec { long: "numeric", short: Some(b'n'), value: Value::None, meaning: 'n' },
        Spec { long: "weight", short: Some(b'w'), value: Value::Required, meaning: 'w' },
        Spec { long: "persistent", short: Some(b'p'), value: Value::Optional, meaning: 'p' },
    ];

    /// Writes each option as letter and value, the fault, and what is left over.
    #[track_caller]
    fn check(line: &str, expect: &str) {
        let words: Vec<Vec<u8>> = line.split(' ').map(|word| word.as_bytes().to_vec()).collect();
        let mut parser = Parser::new(TABLE, &words);
        let mut seen = Vec::new();
        loop {
            match parser.next() {
                Some(Ok((letter, value))) => {
                    let value = value.map(|value| format!("={}", String::from_utf8_lossy(value)));
                    seen.push(format!("{letter}{}", value.unwrap_or_default()));
                }
                Some(Err(fault)) => {
                    let word = String::from_utf8_lossy(parser.word());
                    seen.push(format!("{word}: {fault}"));
                    break;
                }
                None => break,
            }
        }
        seen.extend(
            parser.into_leftover().iter().map(|word| format!("+{}", String::from_utf8_lossy(word))),
        );
        assert_eq!(seen.join(" "), expect);
    }

    #[test]
    fn short_options_may_be_joined() {
        check("-Lnw5", "L n w=5");
        check("-Lnw 5", "L n w=5");
        check("-w=5", "w=5");
        check("-w==5", "w==5");
    }

    #[test]
    fn a_required_value_may_look_like_an_option() {
        check("-w -L", "w=-L");
        check("--weight --list", "w=--list");
    }

    #[test]
    fn an_optional_value_may_not() {
        check("-p -L", "p L");
        check("-p 60 -L", "p=60 L");
        check("-ps 60", "p=s +60");
        check("--persistent", "p");
    }

    #[test]
    fn faults_name_the_whole_word() {
        check("-Lnq", "L n -Lnq: unknown option");
        check("-L -w", "L -w: missing argument");
        check("--list=1", "--list=1: option does not take an argument");
        check("--lis", "--lis: unknown option");
        check("-Ln=L", "L -Ln=L: option does not take an argument");
    }

    #[test]
    fn other_words_are_left_over() {
        check("a -L - b -- -n", "L +a +- +b +-n");
    }
}
