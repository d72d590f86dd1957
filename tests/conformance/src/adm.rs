//! Our own `ipvsadm`, run in this process against a plane in this process, in
//! the bytes that the two exchange over a socket.

use std::ffi::OsString;

use ipvs_cli::adm::names::NoNames;
use ipvs_cli::adm::{Io, Session, Unreachable};
use ipvs_core::snapshot::Control;
use ipvs_netlink::client::LocalTransport;

use crate::case::Output;

/// Runs `ipvsadm` with these words, the first of which is its name.
///
/// The machine of the recordings had no names for hosts and services.
pub fn run(words: &[String], control: &mut dyn Control) -> Output {
    let arguments: Vec<OsString> = words.iter().map(OsString::from).collect();
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let io = Io {
        stdin: &mut std::io::empty(),
        stdout: &mut stdout,
        stderr: &mut stderr,
        names: &NoNames,
    };
    let rc = ipvs_cli::adm::run(&arguments, io, move || {
        Session::open(LocalTransport::new(control))
            .map_err(|cause| Unreachable { cause, advice: String::new() })
    });
    let text = |octets: Vec<u8>| String::from_utf8_lossy(&octets).into_owned();
    Output { rc: rc.into(), stdout: text(stdout), stderr: text(stderr) }
}
