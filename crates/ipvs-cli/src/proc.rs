//! `ipvs proc`: what a kernel shows of IPVS in `/proc/net`, in its formats, from
//! any director.

use std::ffi::OsString;
use std::io::{self, Write};

use ipvs_netlink::client::Transport;
pub use ipvs_netlink::views::FILES;
use ipvs_netlink::views::text;

use crate::adm::{Session, Unreachable, system_text};

const HELP: &str = "Usage: ipvs proc FILE...
Shows what a kernel shows in /proc/net/FILE, one of:
";

/// How it is used.
pub(crate) fn help() -> String {
    format!("{HELP}  {}\n", FILES.join("\n  "))
}

/// Runs `ipvs proc` with these arguments, the first of which is the name that
/// it gives itself in messages; returns the exit status.
pub fn run<T: Transport>(
    args: &[OsString],
    stdout: &mut dyn Write,
    stderr: &mut dyn Write,
    connect: impl FnOnce() -> Result<Session<T>, Unreachable>,
) -> u8 {
    // If nobody reads what was to be said, the status says it too.
    execute(args, stdout, stderr, connect).unwrap_or(1)
}

fn execute<T: Transport>(
    args: &[OsString],
    stdout: &mut dyn Write,
    stderr: &mut dyn Write,
    connect: impl FnOnce() -> Result<Session<T>, Unreachable>,
) -> io::Result<u8> {
    let mut words = args.iter().map(|arg| arg.to_string_lossy());
    let program = words.next().unwrap_or_default().into_owned();
    let files: Vec<String> = words.map(std::borrow::Cow::into_owned).collect();
    if files.iter().any(|file| file == "-h" || file == "--help") {
        stdout.write_all(help().as_bytes())?;
        return Ok(0);
    }
    if let Some(unknown) = files.iter().find(|file| !FILES.contains(&file.as_str())) {
        write!(stderr, "{program}: no file `{unknown}'\n{}", help())?;
        return Ok(2);
    }
    if files.is_empty() {
        stderr.write_all(help().as_bytes())?;
        return Ok(2);
    }
    let mut session = match connect() {
        Ok(session) => session,
        Err(Unreachable { cause, advice }) => {
            writeln!(stderr, "{program}: {}\n{advice}", system_text(&cause))?;
            return Ok(1);
        }
    };
    for file in &files {
        match text(session.client(), file) {
            Ok(text) => stdout.write_all(text.as_bytes())?,
            Err(error) => {
                writeln!(stderr, "{program}: {file}: {}", system_text(&error))?;
                return Ok(1);
            }
        }
    }
    Ok(0)
}
