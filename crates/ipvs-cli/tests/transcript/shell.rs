//! As much of a shell as the transcripts need: quotes, `;`, `&&`, pipes,
//! redirections to files that exist in memory only, and a few programs.

use std::collections::HashMap;
use std::ffi::OsString;

use ipvs_cli::adm::{self, Io, Session, Unreachable};
use ipvs_cli::{proc, sysctl};
use ipvs_core::snapshot::Control;
use ipvs_netlink::client::LocalTransport;

use super::names::FileNames;

const HOSTS: &str = include_str!("../../../../tests/transcripts/etc-hosts");
const SERVICES: &str = include_str!("../../../../tests/transcripts/etc-services");

/// What a command line printed, and its status.
#[derive(Clone, Debug, Default)]
pub(crate) struct Output {
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    pub(crate) status: i32,
}

/// A shell whose `ipvsadm` is ours.
pub(crate) struct Shell<'a> {
    control: &'a mut dyn Control,
    names: FileNames,
    files: HashMap<String, Vec<u8>>,
}

/// A piece of a command line.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Operator(&'static str),
}

const OPERATORS: [&str; 5] = ["&&", ";", "|", "<", ">"];

/// A program with its words and files.
#[derive(Debug, Default)]
struct Simple {
    words: Vec<String>,
    from: Option<String>,
    to: Option<String>,
}

impl<'a> Shell<'a> {
    pub(crate) fn new(control: &'a mut dyn Control) -> Self {
        let files = [("/dev/null", ""), ("/etc/hosts", HOSTS)];
        let files = files.map(|(path, text)| (path.to_owned(), text.as_bytes().to_vec()));
        let names = FileNames::parse(HOSTS, SERVICES);
        Self { control, names, files: files.into_iter().collect() }
    }

    /// Runs a line; `None` if it needs a program that is not known here.
    pub(crate) fn run(&mut self, line: &str) -> Option<Output> {
        let mut all = Output::default();
        let mut tokens = tokens(line).into_iter().peekable();
        while tokens.peek().is_some() {
            let mut input = Vec::new();
            // Each round is one program of a pipeline.
            loop {
                let mut simple = Simple::default();
                let end = loop {
                    match tokens.next() {
                        Some(Token::Word(word)) => {
                            let status = all.status.to_string();
                            simple.words.push(word.replace("$?", &status));
                        }
                        Some(Token::Operator(file @ ("<" | ">"))) => {
                            let Some(Token::Word(path)) = tokens.next() else { return None };
                            let place = if file == "<" { &mut simple.from } else { &mut simple.to };
                            *place = Some(path);
                        }
                        Some(Token::Operator(end)) => break end,
                        None => break ";",
                    }
                };
                let mut output = self.simple(&simple, &input)?;
                all.stderr.append(&mut output.stderr);
                all.status = output.status;
                if let Some(path) = simple.to {
                    self.files.insert(path, std::mem::take(&mut output.stdout));
                }
                if end == "|" {
                    input = output.stdout;
                    continue;
                }
                all.stdout.append(&mut output.stdout);
                if end == "&&" && all.status != 0 {
                    return Some(all);
                }
                break;
            }
        }
        Some(all)
    }

    fn simple(&mut self, simple: &Simple, piped: &[u8]) -> Option<Output> {
        let input = match &simple.from {
            Some(path) => self.files.get(path)?.clone(),
            None => piped.to_vec(),
        };
        let words: Vec<&str> = simple.words.iter().map(String::as_str).collect();
        let text = |text: String| Output { stdout: text.into_bytes(), ..Output::default() };
        match words.as_slice() {
            ["ipvsadm" | "ipvsadm-save" | "ipvsadm-restore", ..] => {
                Some(self.ipvsadm(&simple.words, &input))
            }
            ["sysctl", ..] => Some(self.sysctl(&simple.words)),
            ["cat", path] if path.starts_with("/proc/net/") => self.kernel_file(path),
            ["printf", "--", format] => Some(text(unescape(format))),
            ["echo", words @ ..] => Some(text(words.join(" ") + "\n")),
            ["cat", path] => {
                let stdout = self.files.get(*path)?.clone();
                Some(Output { stdout, ..Output::default() })
            }
            ["wc", "-l"] => {
                let lines = input.split_inclusive(|octet| *octet == b'\n').count();
                Some(text(format!("{lines}\n")))
            }
            ["head", count] => {
                let count = count.strip_prefix('-')?.parse().ok()?;
                let stdout = input
                    .split_inclusive(|octet| *octet == b'\n')
                    .take(count)
                    .collect::<Vec<_>>()
                    .concat();
                Some(Output { stdout, ..Output::default() })
            }
            ["diff", path, "-"] | ["diff", "-", path] => {
                let is_same = *self.files.get(*path)? == input;
                Some(Output { status: i32::from(!is_same), ..Output::default() })
            }
            _ => None,
        }
    }

    fn sysctl(&mut self, words: &[String]) -> Output {
        let args: Vec<OsString> = words.iter().map(OsString::from).collect();
        let mut output = Output::default();
        let status = sysctl::run(&args, &mut output.stdout, &mut output.stderr, || {
            Session::open(LocalTransport::new(&mut *self.control))
                .map_err(|cause| Unreachable { cause, advice: String::new() })
        });
        output.status = status.into();
        output
    }

    fn kernel_file(&mut self, path: &str) -> Option<Output> {
        let name = path.strip_prefix("/proc/net/").filter(|name| proc::FILES.contains(name))?;
        let mut output = Output::default();
        let args = ["cat".into(), name.into()];
        let status = proc::run(&args, &mut output.stdout, &mut output.stderr, || {
            Session::open(LocalTransport::new(&mut *self.control))
                .map_err(|cause| Unreachable { cause, advice: String::new() })
        });
        output.status = status.into();
        Some(output)
    }

    fn ipvsadm(&mut self, words: &[String], mut input: &[u8]) -> Output {
        let args: Vec<OsString> = words.iter().map(OsString::from).collect();
        let mut output = Output::default();
        let io = Io {
            stdin: &mut input,
            stdout: &mut output.stdout,
            stderr: &mut output.stderr,
            names: &self.names,
        };
        let control = &mut *self.control;
        let status = adm::run(&args, io, || {
            Session::open(LocalTransport::new(control))
                .map_err(|cause| Unreachable { cause, advice: String::new() })
        });
        output.status = status.into();
        output
    }
}

/// The escapes of printf that occur.
fn unescape(format: &str) -> String {
    format.replace("\\n", "\n").replace("\\t", "\t").replace("\\r", "\r")
}

/// Splits a line into words and operators.
fn tokens(line: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = line;
    while let Some(first) = rest.chars().next() {
        if first == ' ' {
            rest = &rest[1..];
            continue;
        }
        if let Some(operator) = OPERATORS.iter().find(|operator| rest.starts_with(**operator)) {
            tokens.push(Token::Operator(operator));
            rest = &rest[operator.len()..];
            continue;
        }
        let mut word = String::new();
        while let Some(letter) = rest.chars().next() {
            if letter == ' ' || OPERATORS.iter().any(|operator| rest.starts_with(operator)) {
                break;
            }
            rest = &rest[letter.len_utf8()..];
            if letter != '\'' && letter != '"' {
                word.push(letter);
                continue;
            }
            let (quoted, after) = rest.split_once(letter).expect("a quote ends");
            word.push_str(quoted);
            rest = after;
        }
        tokens.push(Token::Word(word));
    }
    tokens
}
