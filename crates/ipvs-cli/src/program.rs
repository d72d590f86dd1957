//! The whole program: which subcommand, or which program by its name, is meant.

use std::ffi::OsString;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;

use crate::adm::{self, Io, names::SystemNames, split_endpoint};
use crate::{daemon, demo, exec, proc, sysctl};

const USAGE: &str =
    "Usage: ipvs demo [OPTIONS]      watch it balance in namespaces (see ipvs demo --help)
       ipvs daemon [OPTIONS]    run a director (see ipvs daemon --help)
       ipvs status              how packets get in, and what became of them
       ipvs mark COMMAND        firewall marks by rules of our own (see ipvs mark --help)
       ipvs drain, undrain      take a destination out of service, and back, or show how far
       ipvs check FILE          what is wrong with a configuration file
       ipvs plan FILE           what must change to be as a file says (2: something)
       ipvs apply FILE          make what runs what a file says, in one step
       ipvs confirm, rollback   keep or undo what was applied with --confirm
       ipvs export              what runs, as such a file
       ipvs import FORMAT FILE  what ipvsadm or keepalived is configured with, as such a file
       ipvs takeover            have the daemon hold what the kernel's ip_vs holds
       ipvs detach              remove the eBPF plane that a daemon left
       ipvs sysctl [ARGUMENTS]  read and change net.ipv4.vs (see ipvs sysctl -h)
       ipvs proc FILE...        what a kernel shows in /proc/net (see ipvs proc -h)
       ipvs exec PROGRAM...     an unmodified program with this director (see ipvs exec -h)
       ipvs completions SHELL   what completes these commands in a shell
       ipvs man DIR             their man pages
       ipvs adm ARGUMENTS...    what ipvsadm does (see ipvs adm -h)
By another name (ipvsadm, ipvsadm-save, ipvsadm-restore) it is that program.
";

/// Runs the command line `args`, the program's name first.
///
/// Call it before the first thread is started: the demo may have to change
/// namespaces.
pub fn run(mut args: Vec<OsString>) -> ExitCode {
    let program = args.first().map(Path::new).and_then(Path::file_name).unwrap_or_default();
    if program.as_encoded_bytes().starts_with(b"ipvsadm") {
        return ipvsadm(args);
    }
    match args.get(1).and_then(|arg| arg.to_str()) {
        Some("adm") => {
            args.drain(..2);
            args.insert(0, "ipvsadm".into());
            ipvsadm(args)
        }
        Some("sysctl") => {
            args.drain(..2);
            args.insert(0, "ipvs sysctl".into());
            settings(args)
        }
        Some("exec") => {
            args.drain(..2);
            args.insert(0, "ipvs exec".into());
            exec::run(args)
        }
        Some("proc") => {
            args.drain(..2);
            args.insert(0, "ipvs proc".into());
            files(args)
        }
        Some("demo") => demo::run(args),
        Some(
            "daemon" | "detach" | "status" | "mark" | "drain" | "undrain" | "check" | "plan"
            | "apply" | "confirm" | "rollback" | "export" | "import" | "takeover" | "completions"
            | "man",
        ) => daemon::run(args),
        Some("-h" | "--help" | "help") => usage(&mut io::stdout(), 0),
        _ => usage(&mut io::stderr(), 2),
    }
}

/// Says how the program is used; nobody may be listening.
fn usage(to: &mut dyn Write, status: u8) -> ExitCode {
    to.write_all(USAGE.as_bytes()).map_or(ExitCode::FAILURE, |()| ExitCode::from(status))
}

/// `ipvs sysctl`, on the streams of this process.
fn settings(args: Vec<OsString>) -> ExitCode {
    let (endpoint, args) = split_endpoint(args);
    let mut stdout = BufWriter::new(io::stdout().lock());
    let status = sysctl::run(&args, &mut stdout, &mut io::stderr().lock(), || endpoint.connect());
    // A reader that has gone away is no failure.
    drop(stdout.flush());
    ExitCode::from(status)
}

/// `ipvs proc`, on the streams of this process.
fn files(args: Vec<OsString>) -> ExitCode {
    let (endpoint, args) = split_endpoint(args);
    let mut stdout = BufWriter::new(io::stdout().lock());
    let status = proc::run(&args, &mut stdout, &mut io::stderr().lock(), || endpoint.connect());
    // A reader that has gone away is no failure.
    drop(stdout.flush());
    ExitCode::from(status)
}

/// `ipvsadm` and its scripts, on the streams of this process.
fn ipvsadm(args: Vec<OsString>) -> ExitCode {
    let (endpoint, args) = split_endpoint(args);
    let mut stdout = BufWriter::new(io::stdout().lock());
    let io = Io {
        stdin: &mut io::stdin().lock(),
        stdout: &mut stdout,
        stderr: &mut io::stderr().lock(),
        names: &SystemNames::default(),
    };
    let status = adm::run(&args, io, || endpoint.connect());
    // A reader that has gone away is no failure.
    drop(stdout.flush());
    ExitCode::from(status)
}
