//! `ipvs exec`: runs an unmodified program whose IPVS is the director's daemon.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use crate::adm::{Endpoint, split_endpoint};

pub(crate) const HELP: &str = "Usage: ipvs exec [--socket PATH] [--] PROGRAM [ARGUMENTS]
Runs PROGRAM with libipvs_preload.so before its libraries: what it asks the kernel's
IPVS, the daemon answers. Its other sockets are not touched. A program that is linked
statically, or makes system calls by itself (as those in Go), does not notice.
The library is looked for beside this program and in ../lib/ipvs; IPVS_PRELOAD names
another file.
";
const LIBRARY: &str = "libipvs_preload.so";
/// What shells exit with when a program cannot be run, or is not there.
const CANNOT_RUN: u8 = 126;
const NOT_FOUND: u8 = 127;

/// Becomes the program that `args` name, their first being ours; returns only if
/// that fails.
pub fn run(args: Vec<OsString>) -> ExitCode {
    let (endpoint, mut words) = split_endpoint(args);
    words.remove(0);
    if words.first().is_some_and(|word| word == "--") {
        words.remove(0);
    } else if words.first().is_some_and(|word| word == "-h" || word == "--help") {
        return say(&mut io::stdout(), HELP, 0);
    }
    let Some((program, words)) = words.split_first() else {
        return say(&mut io::stderr(), HELP, 2);
    };
    let Some(library) = library() else {
        let text = format!("ipvs exec: cannot find {LIBRARY}; IPVS_PRELOAD may name it\n");
        return say(&mut io::stderr(), &text, CANNOT_RUN);
    };
    let mut command = Command::new(program);
    command.args(words).env("LD_PRELOAD", before(&library, env::var_os("LD_PRELOAD")));
    match endpoint {
        // The program may go to another folder.
        Endpoint::Daemon(path) => {
            command.env("IPVS_SOCKET", std::path::absolute(&path).unwrap_or(path))
        }
        Endpoint::Kernel => command.env("IPVS_SOCKET", "kernel"),
    };
    let error = command.exec();
    let status = if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { CANNOT_RUN };
    say(&mut io::stderr(), &format!("ipvs exec: {}: {error}\n", program.display()), status)
}

fn say(to: &mut dyn Write, text: &str, status: u8) -> ExitCode {
    // If nobody listens, the status says it too.
    let _unheard = to.write_all(text.as_bytes());
    ExitCode::from(status)
}

/// Where the library is.
fn library() -> Option<PathBuf> {
    if let Some(named) = env::var_os("IPVS_PRELOAD").filter(|name| !name.is_empty()) {
        return std::path::absolute(named).ok();
    }
    let program = env::current_exe().ok()?;
    candidates(program.parent()?).into_iter().find(|path| path.is_file())
}

/// Where it may be, as seen from the folder of this program: where both were built or
/// unpacked, and where they were installed.
fn candidates(folder: &Path) -> [PathBuf; 2] {
    ["", "../lib/ipvs"].map(|way| folder.join(way).join(LIBRARY))
}

/// The value of `LD_PRELOAD` with the library before what is there.
fn before(library: &Path, there: Option<OsString>) -> OsString {
    let mut all = library.as_os_str().to_owned();
    if let Some(there) = there.filter(|there| !there.is_empty()) {
        all.push(OsStr::new(":"));
        all.push(there);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_preloaded_already_stays() {
        let path = Path::new("/l/libipvs_preload.so");
        assert_eq!(before(path, None), "/l/libipvs_preload.so");
        assert_eq!(before(path, Some("".into())), "/l/libipvs_preload.so");
        assert_eq!(before(path, Some("/a.so:/b.so".into())), "/l/libipvs_preload.so:/a.so:/b.so");
    }

    #[test]
    fn the_library_lies_beside_the_program_or_where_packages_put_it() {
        let found = candidates(Path::new("/usr/bin"));
        assert_eq!(found[0], Path::new("/usr/bin/libipvs_preload.so"));
        assert_eq!(found[1], Path::new("/usr/bin/../lib/ipvs/libipvs_preload.so"));
    }
}
