//! `ipvs demo`: a client, a director and three real servers in network
//! namespaces, and real requests between them, by every forwarding method.

mod balance;
mod director;
mod drain;
mod kill;
mod layout;
mod load;
mod report;
mod screen;
mod start;

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{CommandFactory as _, Parser};

use self::report::Report;
use self::screen::Screen;
use crate::daemon::Plane;

/// Balance real requests in namespaces of this machine, and show it
#[derive(Debug, Parser)]
#[command(name = "ipvs demo", bin_name = "ipvs demo")]
struct Options {
    /// Data plane; without root's rights it is the one in user space
    #[arg(long, value_enum, default_value_t = Plane::Auto)]
    plane: Plane,
    /// How long each kind of load lasts, in seconds; there are eleven such stretches
    #[arg(long, value_name = "N", default_value_t = 1.5, value_parser = seconds)]
    seconds: f64,
    /// Write the result to this file, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(number) if (0.5..=3600.0).contains(&number) => Ok(number),
        _ => Err("it is to be a number from 0.5 to 3600".to_owned()),
    }
}

/// The command line.
pub(crate) fn command() -> clap::Command {
    Options::command()
}

/// Runs the command line `ipvs demo …`, the program's name first.
///
/// Call it before the first thread is started: without root's rights the
/// process moves into a user namespace.
pub fn run(mut args: Vec<OsString>) -> ExitCode {
    if args.len() > 1 {
        args.remove(1);
    }
    let options = match Options::try_parse_from(args) {
        Ok(options) => options,
        Err(error) => {
            // Help goes to stdout, mistakes to stderr; nobody may be listening.
            drop(error.print());
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match demo(&options) {
        Ok(report) if report.passed() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            // If nobody listens, the status says it too.
            let _unheard = writeln!(io::stderr().lock(), "ipvs demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn demo(options: &Options) -> anyhow::Result<Report> {
    let mut screen = Screen::stdout();
    let (site, mut director) = start::start(options.plane, &mut screen)?;
    let length = Duration::from_secs_f64(options.seconds);
    director.configure(&site, &mut screen)?;
    let mut report = Report::new(&director);
    report.balance = balance::run(&site, length, &mut screen)?;
    report.drain = Some(drain::run(&site, &director, length, &mut screen)?);
    report.kill = Some(kill::run(&site, &mut director, length, &mut screen)?);
    report.show_verdict(&mut screen);
    if let Some(path) = &options.json {
        let text = serde_json::to_string_pretty(&report.json())?;
        std::fs::write(path, text + "\n")
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stretch_of_load_has_a_sensible_length() {
        assert_eq!(seconds("2.5"), Ok(2.5));
        for wrong in ["0", "-1", "NaN", "1e9", "long"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
