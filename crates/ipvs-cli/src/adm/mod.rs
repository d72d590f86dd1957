//! `ipvsadm`: the kernel's tool over the director's socket, with its options,
//! listings, messages and exit statuses (version 1.31).
//!
//! [`run`] is the whole program as a function: it gets its arguments, streams
//! and names, and a way to reach a director, and returns the exit status.

use std::ffi::OsString;
use std::fmt;
use std::io::{self, BufRead, Write};
use std::os::unix::ffi::OsStrExt;

use ipvs_core::command::Command;
use ipvs_netlink::client::Transport;
use ipvs_netlink::{Client, ClientError, Info};

use self::list::ListError;
use self::names::Names;
use self::options::{Given, Verb};
use self::parse::{Invocation, Stop};

mod atomic;
mod change;
mod endpoint;
mod errors;
mod list;
pub mod names;
mod options;
mod parse;
mod popt;
mod rules;
mod values;

pub use endpoint::{Endpoint, split_endpoint};
pub(crate) use errors::system_text;
pub(crate) use list::save_lines;

pub(crate) const HELP: &str = include_str!("help.txt");
/// What programs that ask for the version expect: the tool that this one equals.
const VERSION: &str = "ipvsadm v1.31 2019/12/24 (compiled with popt and IPVS v1.2.1)";
const SAVE_HELP: &str = "ipvsadm-save: Script to save the IPVS table to stdout.
   With the -n option, prints out the table in numeric format.";

/// Edits of a restore that are sent before the first one's answer is read.
const EDITS_AT_ONCE: usize = 1024;
/// Exit status of a listing that failed.
const FAILED_LISTING: u8 = 1;
/// Exit status of a usage error, and without a director.
const USAGE: u8 = 2;
/// Exit status of a refused change.
const REFUSED: u8 = 255;

/// The surroundings of the program.
#[expect(missing_debug_implementations, reason = "streams have nothing to show")]
pub struct Io<'a> {
    /// Standard input.
    pub stdin: &'a mut dyn BufRead,
    /// Standard output.
    pub stdout: &'a mut dyn Write,
    /// Standard error.
    pub stderr: &'a mut dyn Write,
    /// Names of hosts and services.
    pub names: &'a dyn Names,
}

/// A director that has answered.
#[derive(Debug)]
pub struct Session<T> {
    client: Client<T>,
    info: Info,
}

impl<T: Transport> Session<T> {
    /// Asks the director at the other end for its version.
    pub fn open(transport: T) -> Result<Self, ClientError> {
        let mut client = Client::new(transport)?;
        let info = client.info()?;
        Ok(Self { client, info })
    }

    /// What asks the director.
    pub(crate) fn client(&mut self) -> &mut Client<T> {
        &mut self.client
    }
}

/// No director could be reached.
#[derive(Debug)]
pub struct Unreachable {
    /// Why.
    pub cause: ClientError,
    /// What the user may look at.
    pub advice: String,
}

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cause = system_text(&self.cause);
        write!(f, "Can't initialize ipvs: {cause}\n{}", self.advice)
    }
}

impl Unreachable {
    /// Says so, and returns the exit status. Where nobody listens, help is
    /// given all the same; a director that refuses is treated as a kernel that
    /// does.
    fn report(&self, io: &mut Io<'_>, words: &[Vec<u8>]) -> io::Result<u8> {
        match (&self.cause, parse::parse(words, io.names)) {
            (ClientError::Io(_), Err(Stop::Help)) => io.stdout.write_all(HELP.as_bytes())?,
            (ClientError::Io(_), Err(Stop::Version)) => writeln!(io.stdout, "{VERSION}")?,
            _ => {
                writeln!(io.stderr, "{self}")?;
                return Ok(USAGE);
            }
        }
        Ok(0)
    }
}

/// Runs `ipvsadm`, `ipvsadm-save` or `ipvsadm-restore`, whichever the last part
/// of the first argument says, and returns the exit status.
pub fn run<T: Transport>(
    args: &[OsString],
    io: Io<'_>,
    connect: impl FnOnce() -> Result<Session<T>, Unreachable>,
) -> u8 {
    let mut words: Vec<Vec<u8>> = args.iter().map(|arg| arg.as_bytes().to_vec()).collect();
    let program = if words.is_empty() { b"ipvsadm".to_vec() } else { words.remove(0) };
    let name = program.rsplit(|&octet| octet == b'/').next().unwrap_or(&[]).to_vec();
    let result = match name.as_slice() {
        b"ipvsadm-save" => save(io, &words, connect),
        b"ipvsadm-restore" => restore_anew(io, &words, connect),
        _ => tool(io, program, &words, connect),
    };
    match result {
        Ok(status) => status,
        // Whoever read the output has had enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => 0,
        Err(_) => FAILED_LISTING,
    }
}

/// `ipvsadm`.
fn tool<T: Transport>(
    mut io: Io<'_>,
    program: Vec<u8>,
    words: &[Vec<u8>],
    connect: impl FnOnce() -> Result<Session<T>, Unreachable>,
) -> io::Result<u8> {
    match connect() {
        Ok(session) => Ok(Tool { io, program, session }.line(words, false)?.status()),
        Err(unreachable) => unreachable.report(&mut io, words),
    }
}

/// `ipvsadm-save`: `ipvsadm -S` with at most `-n`.
fn save<T: Transport>(
    io: Io<'_>,
    words: &[Vec<u8>],
    connect: impl FnOnce() -> Result<Session<T>, Unreachable>,
) -> io::Result<u8> {
    let mut line = vec![b"-S".to_vec()];
    for option in words.iter().filter(|word| word.starts_with(b"-")) {
        if option != b"-n" {
            writeln!(io.stderr, "{SAVE_HELP}")?;
            return Ok(FAILED_LISTING);
        }
        line.truncate(1);
        line.push(b"-n".to_vec());
    }
    tool(io, b"ipvsadm".to_vec(), &line, connect)
}

/// `ipvsadm-restore`: empties the table and reads the input but for comments.
/// It looks at no arguments but our own.
fn restore_anew<T: Transport>(
    mut io: Io<'_>,
    words: &[Vec<u8>],
    connect: impl FnOnce() -> Result<Session<T>, Unreachable>,
) -> io::Result<u8> {
    match connect() {
        Ok(session) => {
            let mut tool = Tool { io, program: b"ipvsadm".to_vec(), session };
            if words.iter().any(|word| word == b"--atomic") {
                return tool.restore_at_once(true).map(Outcome::status);
            }
            tool.line(&[b"-C".to_vec()], false)?;
            tool.restore(true).map(Outcome::status)
        }
        Err(unreachable) => {
            // There, each of the two programs of the script says so.
            writeln!(io.stderr, "{unreachable}")?;
            unreachable.report(&mut io, &[])
        }
    }
}

/// The words of a line of a restore.
fn words_of(line: &[u8]) -> Vec<Vec<u8>> {
    line.split(|octet| matches!(octet, b' ' | b'\t' | b'\r' | b'\n'))
        .filter(|word| !word.is_empty() && *word != b"ipvsadm")
        .map(<[u8]>::to_vec)
        .collect()
}

/// The edit that a line of a saved configuration asks for; none for a comment.
pub(crate) fn edit_of(line: &[u8], names: &dyn Names) -> Result<Option<Command>, String> {
    let words = words_of(line);
    if words.is_empty() || line.starts_with(b"#") {
        return Ok(None);
    }
    match parse::parse(&words, names) {
        Ok(line) => {
            let edit = change::edit(&line);
            edit.map(Some).ok_or_else(|| "this command changes nothing".to_owned())
        }
        Err(Stop::Usage(text) | Stop::Unreadable(text)) => {
            Err(String::from_utf8_lossy(text.trim_ascii_end()).into_owned())
        }
        Err(Stop::Help | Stop::Version | Stop::TryHelp) => {
            Err("this is no command that changes something".to_owned())
        }
    }
}

/// What a command line came to.
#[derive(Clone, Copy, Debug)]
enum Outcome {
    /// Done or refused; a restore goes on.
    Done(u8),
    /// A restore ends here.
    End(u8),
}

impl Outcome {
    const fn status(self) -> u8 {
        match self {
            Self::Done(status) | Self::End(status) => status,
        }
    }
}

/// The program while it runs.
struct Tool<'a, T> {
    io: Io<'a>,
    program: Vec<u8>,
    session: Session<T>,
}

impl<T: Transport> Tool<'_, T> {
    /// Carries out one command line; within a restore there is no other.
    fn line(&mut self, words: &[Vec<u8>], restoring: bool) -> io::Result<Outcome> {
        let line = match parse::parse(words, self.io.names) {
            Ok(line) if restoring && line.verb == Verb::Restore => return self.try_help(),
            Ok(line) => line,
            Err(stop) => return self.stop(&stop),
        };
        match line.verb {
            Verb::List | Verb::Save => self.show(&line),
            Verb::Restore if line.given.has(Given::Atomic) => self.restore_at_once(false),
            Verb::Restore => self.restore(false),
            _ => match change::change(&mut self.session.client, &line) {
                Ok(()) => Ok(Outcome::Done(0)),
                Err(error) => {
                    writeln!(self.io.stderr, "{}", errors::text_of(line.verb, &error))?;
                    Ok(Outcome::Done(REFUSED))
                }
            },
        }
    }

    /// Shows a listing.
    fn show(&mut self, line: &Invocation) -> io::Result<Outcome> {
        let Session { client, info } = &mut self.session;
        let shown = list::show(client, *info, line, self.io.names, self.io.stdout);
        match shown.and_then(|()| Ok(self.io.stdout.flush()?)) {
            Ok(()) => Ok(Outcome::Done(0)),
            Err(ListError::Output(error)) => Err(error),
            Err(ListError::Director(error)) => {
                writeln!(self.io.stderr, "{}", errors::text_of(line.verb, &error))?;
                Ok(Outcome::End(FAILED_LISTING))
            }
        }
    }

    /// Carries out the lines of standard input. Not atomic: what came before a
    /// line that ends it stays.
    ///
    /// Edits are sent many at a time; what is said of each line is said in its turn.
    fn restore(&mut self, skip_comments: bool) -> io::Result<Outcome> {
        let mut last = Outcome::Done(0);
        let mut line = Vec::new();
        let mut edits = Vec::new();
        while self.io.stdin.read_until(b'\n', &mut line)? != 0 {
            let is_comment = skip_comments && line.starts_with(b"#");
            let words = words_of(&line);
            line.clear();
            if words.is_empty() || is_comment {
                continue;
            }
            let edit = parse::parse(&words, self.io.names)
                .ok()
                .and_then(|line| Some((line.verb, change::edit(&line)?)));
            if let Some(edit) = edit {
                edits.push(edit);
                if edits.len() >= EDITS_AT_ONCE {
                    last = self.make(&mut edits)?;
                }
                continue;
            }
            self.make(&mut edits)?;
            last = self.line(&words, true)?;
            if matches!(last, Outcome::End(_)) {
                return Ok(last);
            }
        }
        if edits.is_empty() { Ok(last) } else { self.make(&mut edits) }
    }

    /// Makes the edits of a restore, and tells which were refused.
    fn make(&mut self, edits: &mut Vec<(Verb, Command)>) -> io::Result<Outcome> {
        let (verbs, edits): (Vec<Verb>, Vec<Command>) = edits.drain(..).unzip();
        let outcomes = match self.session.client.apply_each(&edits) {
            Ok(outcomes) => outcomes,
            // The director is gone: one line says so, as those before it did.
            Err(error) => vec![Err(error)],
        };
        let mut last = Outcome::Done(0);
        for (verb, outcome) in verbs.into_iter().zip(outcomes) {
            last = Outcome::Done(0);
            if let Err(error) = outcome {
                writeln!(self.io.stderr, "{}", errors::text_of(verb, &error))?;
                last = Outcome::Done(REFUSED);
            }
        }
        Ok(last)
    }

    /// Says why a command line came to nothing.
    fn stop(&mut self, stop: &Stop) -> io::Result<Outcome> {
        match stop {
            Stop::Help => {
                self.io.stdout.write_all(HELP.as_bytes())?;
                Ok(Outcome::End(0))
            }
            Stop::Version => {
                writeln!(self.io.stdout, "{VERSION}")?;
                Ok(Outcome::End(0))
            }
            Stop::TryHelp => self.try_help(),
            Stop::Usage(text) => {
                self.io.stderr.write_all(&[text, &b"\n"[..]].concat())?;
                Ok(Outcome::End(USAGE))
            }
            Stop::Unreadable(text) => {
                self.io.stderr.write_all(&[text, &b"\n"[..]].concat())?;
                Ok(Outcome::Done(REFUSED))
            }
        }
    }

    fn try_help(&mut self) -> io::Result<Outcome> {
        let program = String::from_utf8_lossy(&self.program);
        writeln!(self.io.stderr, "Try `{program} -h' or '{program} --help' for more information.")?;
        Ok(Outcome::End(REFUSED))
    }
}
