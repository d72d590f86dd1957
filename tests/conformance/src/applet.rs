//! Our own programs for IPVS by their names, run in this process.

use std::ffi::OsString;
use std::io::{BufRead, Write};
use std::path::Path;

use ipvs_cli::adm::names::NoNames;
use ipvs_cli::adm::{self, Io, Session, Unreachable};
use ipvs_cli::sysctl;
use ipvs_netlink::ClientError;
use ipvs_netlink::client::Transport;

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
        "sysctl" if is_ours(words) => Some(sysctl::run(words, stdout, stderr, connect)),
        _ => None,
    }
}

/// Whether `sysctl` is asked for settings of IPVS.
fn is_ours(words: &[OsString]) -> bool {
    words.iter().any(|word| word.to_string_lossy().starts_with("net.ipv4.vs."))
}
