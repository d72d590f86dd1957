//! Our own programs by the names of those that the transcripts were made with.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io::{self, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};

use ipvs_cli::adm::Endpoint;
use ipvs_cli::{proc, program, sysctl};

/// The environment variable that makes this program one of ours; it says where other
/// programs are found.
pub(crate) const OTHERS: &str = "IPVS_TRANSCRIPTS_PATH";
/// Programs for settings and files: a director of ours is not in the kernel.
pub(crate) const FOR_FILES: [&str; 2] = ["sysctl", "cat"];
/// The tool and its scripts.
pub(crate) const TOOLS: [&str; 3] = ["ipvsadm", "ipvsadm-save", "ipvsadm-restore"];

/// Runs the program by whose name this one was called, if it is to be one of ours.
pub(crate) fn by_name() -> Option<ExitCode> {
    let others = env::var_os(OTHERS)?;
    let words: Vec<OsString> = env::args_os().collect();
    let name = Path::new(words.first()?).file_name()?.to_str()?.to_owned();
    let rest = words.get(1..).unwrap_or_default();
    match name.as_str() {
        "sysctl" if rest.iter().any(|word| mentions(word, "net.ipv4.vs")) => {
            let named: Vec<OsString> = [name.into()].into_iter().chain(rest.to_vec()).collect();
            let connect = || Endpoint::from_env().connect();
            let (mut stdout, mut stderr) = (io::stdout().lock(), io::stderr().lock());
            Some(ExitCode::from(sysctl::run(&named, &mut stdout, &mut stderr, connect)))
        }
        "sysctl" | "cat" => match views(rest).filter(|_| name == "cat") {
            Some(files) => {
                let words = ["ipvs", "proc"].map(OsString::from).into_iter().chain(files);
                Some(program::run(words.collect()))
            }
            None => Some(become_other(&name, rest, &others)),
        },
        // The tool and its scripts, and the daemon.
        _ => Some(program::run(words)),
    }
}

fn mentions(word: &OsStr, what: &str) -> bool {
    word.to_str().is_some_and(|word| word.contains(what))
}

/// The names of files, if all of them are a director's.
fn views(files: &[OsString]) -> Option<Vec<OsString>> {
    let name = |file: &OsString| {
        let name = file.to_str()?.strip_prefix("/proc/net/")?;
        proc::FILES.contains(&name).then(|| name.into())
    };
    files.iter().map(name).collect::<Option<Vec<_>>>().filter(|names| !names.is_empty())
}

/// Becomes the host's program of this name.
fn become_other(name: &str, words: &[OsString], path: &OsStr) -> ExitCode {
    let error = Command::new(name).args(words).env("PATH", path).exec();
    // As a shell says it.
    drop(writeln!(io::stderr().lock(), "{name}: {error}"));
    ExitCode::from(127)
}
