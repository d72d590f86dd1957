//! `ipvs daemon`, `ipvs detach`, `ipvs status`, `ipvs mark`, `ipvs drain`, `ipvs check`, `ipvs plan`,
//! `ipvs apply`, `ipvs export`, `ipvs import` and `ipvs takeover`: the director's process, and its configuration.

mod config;
mod drain;
mod import;
mod mark;
mod options;
mod status;
mod takeover;

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{self, IsTerminal as _, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};
use ipvs_daemon::Daemon;
use ipvs_netlink::client::SeqpacketTransport;
use ipvs_netlink::{Client, ClientError};
use tracing::Level;

pub(crate) use self::options::Plane;
use self::options::{Cli, LogFormat, Task};
use crate::manual;

/// The command lines of all these.
pub(crate) fn command() -> clap::Command {
    Cli::command()
}

/// Runs the command line `ipvs SUBCOMMAND …`, the program's name first.
pub fn run(args: Vec<OsString>) -> ExitCode {
    // The status of a mistake on the command line, 2, means changes here.
    let says_by_status = ["plan", "apply", "export", "import"];
    let is_plan = args.get(1).is_some_and(|arg| says_by_status.iter().any(|name| arg == name));
    let task = match Cli::try_parse_from(args) {
        Ok(cli) => cli.task,
        Err(error) => {
            // Help goes to stdout, mistakes to stderr; nobody may be listening.
            drop(error.print());
            if is_plan && error.use_stderr() {
                return ExitCode::FAILURE;
            }
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match task {
        Task::Daemon(options) => {
            let format = options.log_format;
            log_to_stderr(if options.verbose { Level::DEBUG } else { Level::INFO }, format);
            match (format, daemon(options)) {
                // Whoever reads the log as JSON reads this, too.
                (LogFormat::Json, Err(error)) => {
                    tracing::error!("{error}");
                    ExitCode::FAILURE
                }
                (_, outcome) => said("ipvs daemon", outcome),
            }
        }
        Task::Detach(options) => said("ipvs detach", ipvs_daemon::detach(&options.pins)),
        Task::Status(options) => said("ipvs status", status::show(&options)),
        Task::Mark(options) => said("ipvs mark", mark::run(&options)),
        Task::Drain(options) => said("ipvs drain", drain::run(&options)),
        Task::Undrain(options) => said("ipvs undrain", drain::end(&options)),
        Task::Check(options) => said("ipvs check", config::check(&options)),
        Task::Apply(options) => said("ipvs apply", config::apply(&options)),
        Task::Confirm(options) => said("ipvs confirm", config::end_trial(&options.socket, true)),
        Task::Rollback(options) => said("ipvs rollback", config::end_trial(&options.socket, false)),
        Task::Export(options) => match config::export(&options.socket) {
            Ok(left_out) if !left_out.is_empty() => {
                for change in left_out {
                    let said = format_args!("ipvs export: not as it runs: {change}");
                    let _unheard = writeln!(io::stderr().lock(), "{said}");
                }
                ExitCode::from(2)
            }
            outcome => said("ipvs export", outcome.map(drop)),
        },
        Task::Import(options) => match import::run(&options) {
            Ok(true) => ExitCode::from(2),
            outcome => said("ipvs import", outcome.map(drop)),
        },
        Task::Completions { shell } => {
            said("ipvs completions", manual::complete(shell, &mut io::stdout().lock()))
        }
        Task::Man { folder } => {
            let written = manual::write_pages(&folder);
            said("ipvs man", written.map_err(|error| format!("{}: {error}", folder.display())))
        }
        Task::Takeover(options) => said("ipvs takeover", takeover::run(&options)),
        Task::Plan(options) => match config::plan(&options) {
            Ok(true) => ExitCode::from(2),
            outcome => said("ipvs plan", outcome.map(drop)),
        },
    }
}

/// Starts a daemon, says so, and runs it to its end.
fn daemon(options: options::Daemon) -> Result<(), Box<dyn std::error::Error>> {
    let ready = options.ready_fd;
    let daemon = Daemon::start(&options.into())?;
    if let Some(number) = ready {
        // By its path the descriptor need not be taken over from nowhere.
        let path = format!("/proc/self/fd/{number}");
        let told = OpenOptions::new().write(true).open(&path);
        told.and_then(|mut file| file.write_all(b"ready\n"))
            .map_err(|error| format!("cannot write to descriptor {number} (a pipe?): {error}"))?;
    }
    Ok(daemon.run()?)
}

/// Connects to the daemon that listens at `socket`.
fn connect(socket: &Path) -> Result<Client<SeqpacketTransport>, String> {
    let connected = SeqpacketTransport::connect(socket).map_err(ClientError::from);
    connected.and_then(Client::new).map_err(|error| unreachable(socket, &error))
}

/// What to say of a daemon that does not answer.
fn unreachable(socket: &Path, error: &ClientError) -> String {
    format!("{}: {error}; is `ipvs daemon` running, with its socket there?", socket.display())
}

/// The exit status of a task, whose failure is said on stderr.
fn said<E: std::fmt::Display>(task: &str, result: Result<(), E>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    // If nobody listens, the status says it too.
    let _unheard = writeln!(io::stderr().lock(), "{task}: {error}");
    ExitCode::FAILURE
}

fn log_to_stderr(level: Level, format: LogFormat) {
    let log =
        tracing_subscriber::fmt().with_writer(io::stderr).with_max_level(level).with_target(false);
    match format {
        LogFormat::Text => log.with_ansi(io::stderr().is_terminal()).init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
}
