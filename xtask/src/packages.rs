//! The Debian packages that tests drive.

use std::process::Command;

use crate::run::{exists, run, say};

/// A program that is started, or a file that one is made with, and the package that it is in.
type Driven = (&'static str, &'static str);

/// Those that tests start.
const DRIVEN: [Driven; 21] = [
    ("nginx", "nginx-light"),
    ("curl", "curl"),
    ("wrk", "wrk"),
    ("vsftpd", "vsftpd"),
    ("lftp", "lftp"),
    ("iperf3", "iperf3"),
    ("dnsmasq", "dnsmasq-base"),
    ("dig", "bind9-dnsutils"),
    ("gcc", "gcc"),
    ("/usr/include/usrsctp.h", "libusrsctp-dev"),
    ("ip", "iproute2"),
    ("ethtool", "ethtool"),
    ("nft", "nftables"),
    ("ipvsadm", "ipvsadm"),
    ("keepalived", "keepalived"),
    ("ldirectord", "ldirectord"),
    ("prometheus", "prometheus"),
    ("systemd-analyze", "systemd"),
    ("openssl", "openssl"),
    ("/usr/lib/python3/dist-packages/aiosmtpd/main.py", "python3-aiosmtpd"),
    ("/usr/lib/python3/dist-packages/grpc/__init__.py", "python3-grpcio"),
];

/// Installs what is missing, if this is Debian and we may; returns the
/// packages that are missing still. Tests that need one of them say so.
pub(crate) fn install() -> Vec<&'static str> {
    install_of(&DRIVEN)
}

/// The same for other programs than those of the tests.
pub(crate) fn install_of(programs: &[Driven]) -> Vec<&'static str> {
    let wanted = missing(programs);
    if wanted.is_empty() || !exists("apt-get") {
        return wanted;
    }
    say(&format!("installing {}", wanted.join(" ")));
    let install = || {
        run(Command::new("apt-get")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .args(["install", "--yes", "--quiet=2", "--no-install-recommends"])
            .args(&wanted))
    };
    // The lists may be old or absent.
    let installed = install().or_else(|_| {
        run(Command::new("apt-get").args(["update", "--quiet=2"]))?;
        install()
    });
    if let Err(error) = installed {
        say(&format!("could not install packages: {error:#}"));
    }
    missing(programs)
}

fn missing(programs: &[Driven]) -> Vec<&'static str> {
    let missing = programs.iter().filter(|(program, _)| !is_installed(program));
    missing.map(|(_, package)| *package).collect()
}

/// Looks where administrators' programs are, too: an unprivileged user's
/// `PATH` may leave those folders out.
fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/sbin", "/sbin"].map(std::path::PathBuf::from);
    std::env::split_paths(&path).chain(more).any(|folder| folder.join(program).is_file())
}
