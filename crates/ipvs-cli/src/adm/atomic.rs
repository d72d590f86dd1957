//! A restore that is all or nothing (`--atomic`): every line is read first, and then all
//! edits are handed over as one.

use std::io::{self, Write as _};

use ipvs_core::command::Command;
use ipvs_netlink::client::Transport;
use ipvs_netlink::{ClientError, Errno, NotMade};

use super::options::Verb;
use super::parse::{self, Stop};
use super::{Outcome, REFUSED, Tool, USAGE, change, errors, words_of};

/// What is said behind the reason.
const NOTHING: &str = "(nothing was changed)";

/// A line that asks for an edit.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// Counted from 1.
    number: usize,
    verb: Verb,
}

impl<T: Transport> Tool<'_, T> {
    /// Carries out the lines of standard input, all at once or none; `anew` empties the
    /// table before, as part of the same.
    pub(super) fn restore_at_once(&mut self, anew: bool) -> io::Result<Outcome> {
        let (mut edits, mut places) = (Vec::new(), Vec::new());
        if anew {
            edits.push(Command::Flush);
            places.push(Place { number: 0, verb: Verb::Flush });
        }
        let mut line = Vec::new();
        let mut number = 0;
        while self.io.stdin.read_until(b'\n', &mut line)? != 0 {
            number += 1;
            let words = words_of(&line);
            let is_comment = line.starts_with(b"#");
            line.clear();
            if words.is_empty() || is_comment {
                continue;
            }
            let parsed = parse::parse(&words, self.io.names);
            match parsed.map(|line| (line.verb, change::edit(&line))) {
                Ok((verb, Some(edit))) => {
                    edits.push(edit);
                    places.push(Place { number, verb });
                }
                Ok((verb, None)) => {
                    let text = format!("the '{}' command changes nothing", verb.name());
                    return self.give_up(number, text.as_bytes(), USAGE);
                }
                Err(Stop::Usage(text)) => return self.give_up(number, &text, USAGE),
                Err(Stop::Unreadable(text)) => return self.give_up(number, &text, REFUSED),
                Err(Stop::Help | Stop::Version | Stop::TryHelp) => {
                    return self.give_up(
                        number,
                        b"this is no command that changes something",
                        USAGE,
                    );
                }
            }
        }
        match self.session.client.apply_all(&edits) {
            Ok(()) => Ok(Outcome::Done(0)),
            Err(error) => self.not_made(&error, &places),
        }
    }

    /// Says which line is at fault, and why.
    fn give_up(&mut self, number: usize, text: &[u8], status: u8) -> io::Result<Outcome> {
        let stderr = &mut self.io.stderr;
        write!(stderr, "line {number}: ")?;
        stderr.write_all(text.trim_ascii_end())?;
        writeln!(stderr, " {NOTHING}")?;
        Ok(Outcome::Done(status))
    }

    /// Says why the director did not make the edits.
    fn not_made(&mut self, error: &NotMade, places: &[Place]) -> io::Result<Outcome> {
        let text = match error {
            NotMade::Edit { position, errno, reason } => {
                let place = places.get(*position);
                let verb = place.map_or(Verb::Restore, |place| place.verb);
                // The errno does not say what is full or out of order.
                let own = matches!(*errno, Errno::NOMEM | Errno::IO);
                let text = reason
                    .clone()
                    .filter(|_| own)
                    .unwrap_or_else(|| errors::text_of(verb, &ClientError::Refused(*errno)));
                match place.filter(|place| place.number != 0) {
                    Some(place) => return self.give_up(place.number, text.as_bytes(), REFUSED),
                    None => format!("{text} {NOTHING}"),
                }
            }
            NotMade::Unsupported => format!("--atomic needs `ipvs daemon', not a kernel {NOTHING}"),
            NotMade::Failed(ClientError::Refused(Errno::BUSY)) => {
                format!("Others restore at the moment: try again {NOTHING}")
            }
            NotMade::Failed(ClientError::Refused(Errno::TOOBIG)) => {
                format!("There are too many lines to be carried out at once {NOTHING}")
            }
            NotMade::Failed(error @ ClientError::Refused(_)) => {
                format!("{} {NOTHING}", errors::system_text(error))
            }
            // Whether the director made them before it fell silent, is not known.
            NotMade::Failed(error) => errors::system_text(error),
            other => other.to_string(),
        };
        writeln!(self.io.stderr, "{text}")?;
        Ok(Outcome::Done(REFUSED))
    }
}
