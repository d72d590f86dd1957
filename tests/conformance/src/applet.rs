//! Our own programs for IPVS by their names: run in this process, or being it.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead, Write};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};

use ipvs_cli::adm::names::NoNames;
use ipvs_cli::adm::{self, Io, Session, Unreachable};
use ipvs_cli::{proc, sysctl};
use ipvs_netlink::ClientError;
use ipvs_netlink::client::{SeqpacketTransport, Transport};

/// The programs.
pub const NAMES: [&str; 5] = ["ipvsadm", "ipvsadm-save", "ipvsadm-restore", "sysctl", "cat"];
/// The environment variable that says where the director listens.
pub const SOCKET: &str = "IPVS_CONFORMANCE_SOCKET";
/// The environment variable that says where other programs are found.
pub const OTHERS: &str = "IPVS_CONFORMANCE_PATH";

/// The streams of a program.
#[expect(missing_debug_implementations, reason = "streams have nothing to show")]
pub struct Streams<'a> {
    /// Standard input.
    pub stdin: &'a mut dyn BufRead,
    /// Standard output.
    pub stdout: &'a mut dyn Write,
    /// Standard error.
    pub stderr: &'a mut dyn Write,
}

/// Runs the program by whose name this one was called, if it is one of ours; what
/// has nothing to do with IPVS is left to the host's program of that name.
pub fn by_name() -> Option<ExitCode> {
    let words: Vec<OsString> = env::args_os().collect();
    let name = Path::new(words.first()?).file_name()?.to_owned();
    let socket = env::var_os(SOCKET)?;
    if !NAMES.iter().any(|known| name == *known) {
        return None;
    }
    let (mut stdin, mut stdout, mut stderr) =
        (io::stdin().lock(), io::stdout().lock(), io::stderr().lock());
    let streams = Streams { stdin: &mut stdin, stdout: &mut stdout, stderr: &mut stderr };
    let reach = || Ok(SeqpacketTransport::connect(Path::new(&socket))?);
    let status = run(&words, streams, reach).map(ExitCode::from);
    Some(status.unwrap_or_else(|| become_other(&name, words.get(1..).unwrap_or_default())))
}

/// Becomes the host's program of this name.
fn become_other(name: &OsStr, words: &[OsString]) -> ExitCode {
    let path = env::var_os(OTHERS).unwrap_or_default();
    let error = Command::new(name).args(words).env("PATH", path).exec();
    // As a shell says it.
    drop(writeln!(io::stderr().lock(), "{}: {error}", name.display()));
    ExitCode::from(127)
}

/// Runs the program that the first of `words` names; returns its exit status,
/// or `None` if it is none of ours.
///
/// The machine of the recordings had no names for hosts and services.
pub fn run<T: Transport>(
    words: &[OsString],
    streams: Streams<'_>,
    reach: impl FnOnce() -> Result<T, ClientError>,
) -> Option<u8> {
    let name = Path::new(words.first()?).file_name()?.to_str()?;
    let connect = || {
        let opened = reach().and_then(Session::open);
        opened.map_err(|cause| Unreachable { cause, advice: String::new() })
    };
    let Streams { stdin, stdout, stderr } = streams;
    match name {
        "ipvsadm" | "ipvsadm-save" | "ipvsadm-restore" => {
            let io = Io { stdin, stdout, stderr, names: &NoNames };
            Some(adm::run(words, io, connect))
        }
        "cat" => cat(words, stdout, stderr, connect),
        "sysctl" if is_ours(words) => Some(sysctl::run(words, stdout, stderr, connect)),
        _ => None,
    }
}

/// `cat` of files that are a director's: all in `/proc/net`, or all settings.
fn cat<T: Transport>(
    words: &[OsString],
    stdout: &mut dyn Write,
    stderr: &mut dyn Write,
    connect: impl FnOnce() -> Result<Session<T>, Unreachable>,
) -> Option<u8> {
    let files = words.get(1..).filter(|files| !files.is_empty())?;
    let behind = |start: &str| -> Option<Vec<OsString>> {
        files.iter().map(|file| Some(file.to_str()?.strip_prefix(start)?.into())).collect()
    };
    if let Some(mut names) = behind("/proc/net/") {
        names.insert(0, "cat".into());
        let are_known = names.iter().skip(1).all(|name| proc::FILES.iter().any(|it| name == it));
        return are_known.then(|| proc::run(&names, stdout, stderr, connect));
    }
    let mut names = behind("/proc/sys/net/ipv4/vs/")?;
    names.splice(..0, ["sysctl".into(), "-n".into()]);
    Some(sysctl::run(&names, stdout, stderr, connect))
}

/// Whether `sysctl` is asked for settings of IPVS, or for all there are.
fn is_ours(words: &[OsString]) -> bool {
    words.iter().any(|word| {
        let word = word.to_string_lossy();
        word == "-a" || word.starts_with("net.ipv4.vs.")
    })
}
