//! `cargo xtask test`: everything that proves ipvs-rs, in one command.

use std::io::{BufRead as _, BufReader, Read};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use crate::packages;
use crate::run::{cargo, say};

/// Seconds of fuzzing: it finds nothing new in so few, but what a change has broken.
const FUZZING: &str = "30";

/// Topics of the oracle that are played in one list of scenarios: a topic more would make it
/// another list.
const TOPICS: &str = "tcp,schedulers,udp,sctp,reuse,persistence,thresholds,edits,ops,sloppy,\
                      hashes,rate-of-drops,secure";

/// What to leave out.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Install no package, whatever tests miss
    #[arg(long)]
    no_install: bool,
    /// Only what needs no rights: unit, property, documentation and core tests, and fuzzing
    #[arg(long)]
    unprivileged: bool,
}

/// Runs every step, whatever fails on the way, and tells the outcome.
pub(crate) fn run_task(options: &Options) -> Result<()> {
    let mut outcome = Outcome::default();
    if !options.no_install && !options.unprivileged {
        for package in packages::install() {
            outcome.skipped.push(format!("what needs package {package}"));
        }
        // The oracle says itself that it is skipped.
        let _ = packages::install_of(&[("linux.uml", "user-mode-linux")]);
        // As does fuzzing.
        let _ = packages::install_of(&[("c++", "g++")]);
    }
    outcome.step("unit, property and documentation tests", cargo().arg("test"));
    let this = std::env::current_exe().context("this program has no name")?;
    outcome.step("fuzzing", Command::new(this).args(["fuzz", "--seconds", FUZZING]));
    if !options.unprivileged {
        for plane in ["core", "user", "bpf", "xdp", "netfilter"] {
            outcome.step(
                &format!("conformance on plane {plane}"),
                cargo().args(["run", "--quiet", "--package", "ipvs-conformance", "--"]).args([
                    "--must-pass",
                    "--plane",
                    plane,
                ]),
            );
        }
        for option in [&[][..], &["--real-binary"]] {
            outcome.step(
                "transcripts of ipvsadm",
                cargo()
                    .args(["run", "--quiet", "--package", "ipvs-transcripts", "--"])
                    .args(option),
            );
        }
        // Scenarios that agree today, and no more on a faster machine, so that a failure is of
        // the change at hand; the hunt for new ones is `cargo xtask oracle`, with seeds of its own.
        for (topics, scenarios) in [(TOPICS, "640"), ("tunnels,ttl", "64")] {
            outcome.step(
                "live oracle",
                cargo()
                    .args(["run", "--quiet", "--release", "--package", "ipvs-oracle", "--"])
                    .args(["--seed", "70000000", "--scenarios", scenarios, "--minutes", "3"])
                    .args(["--plane", "core", "--only", topics]),
            );
        }
        // In the profile that users run, by the command that they type.
        outcome.step("demo", cargo().args(["run", "--release", "--", "demo", "--seconds", "5"]));
        // Not for its figures: it ends with an error if a packet went another way than it says.
        outcome.step("bench", cargo().args(["xtask", "bench", "--smoke"]));
    }
    outcome.tell()
}

#[derive(Debug, Default)]
struct Outcome {
    failed: Vec<String>,
    skipped: Vec<String>,
}

impl Outcome {
    fn step(&mut self, name: &str, command: &mut Command) {
        say(&format!("== {name}"));
        let start = Instant::now();
        let verdict = match follow(command, |line| {
            self.skipped.extend(skip_of(line).map(str::to_owned));
            say(line);
        }) {
            Ok(()) => "passed".to_owned(),
            Err(error) => {
                self.failed.push(name.to_owned());
                format!("FAILED: {error:#}")
            }
        };
        say(&format!("== {name}: {verdict} ({} s)", start.elapsed().as_secs()));
    }

    fn tell(self) -> Result<()> {
        for skipped in &self.skipped {
            say(&format!("skipped: {skipped}"));
        }
        if !self.failed.is_empty() {
            bail!("failed: {}", self.failed.join(", "));
        }
        say("everything passed");
        Ok(())
    }
}

/// Runs `command` and calls `each` with every line of its output as it comes.
fn follow(command: &mut Command, mut each: impl FnMut(&str)) -> Result<()> {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let (sender, lines) = mpsc::channel();
    let stdout = child.stdout.take().context("no standard output")?;
    let stderr = child.stderr.take().context("no standard error")?;
    let readers = [send_lines(stdout, sender.clone()), send_lines(stderr, sender)];
    for line in lines {
        each(&line);
    }
    for reader in readers {
        // A reader ends with its pipe, and has nothing to report.
        drop(reader.join());
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("{status}");
    }
    Ok(())
}

fn send_lines(
    from: impl Read + Send + 'static,
    to: mpsc::Sender<String>,
) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
            if to.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                break;
            }
        }
    })
}

/// What a line of output says was skipped, and why.
fn skip_of(line: &str) -> Option<&str> {
    let rest = ["skip  ", "skipped: ", "SKIPPED: "].iter().find_map(|word| line.strip_prefix(word));
    rest.map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_test_skips_is_told_at_the_end() {
        assert_eq!(skip_of("skip  tun-gre-46: no gre"), Some("tun-gre-46: no gre"));
        assert_eq!(skip_of("skipped: lab::nat: no rights"), Some("lab::nat: no rights"));
        assert_eq!(skip_of("1 passed, 0 failed, 2 skipped"), None);
    }

    #[test]
    fn a_step_that_fails_is_an_error_and_its_output_is_read() {
        let mut lines = Vec::new();
        let script = "echo one; echo two >&2; exit 3";
        let result = follow(Command::new("sh").args(["-c", script]), |line| {
            lines.push(line.to_owned());
        });
        assert_eq!(result.unwrap_err().to_string(), "exit status: 3");
        lines.sort();
        assert_eq!(lines, ["one", "two"]);
    }
}
