//! Commands of a scenario, carried out in the guest without starting a
//! program: that costs a guest a quarter of a second.

use std::ffi::OsString;
use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};
use ipvs_conformance::applet::{self, Streams};
use ipvs_conformance::case::Output;
use ipvs_conformance::shell;
use ipvs_lab::Namespace;
use ipvs_netlink::client::KernelTransport;

/// Runs a line in the director's namespace, where this thread is.
pub(crate) fn run(line: &str, director: &Namespace) -> Result<Output> {
    let words = shell::words(line).unwrap_or_default();
    let parts: Vec<&str> = words.iter().map(String::as_str).collect();
    match parts.as_slice() {
        ["ipvsadm", ..] => Ok(ipvsadm(&words)),
        ["ip", "link", "set", name, "mtu", mtu] => {
            director.link(name)?.set_mtu(mtu.parse()?)?;
            Ok(Output::default())
        }
        ["cat", path] => Ok(Output { stdout: fs::read_to_string(path)?, ..Output::default() }),
        ["sysctl", "-w", assignment] => {
            match assignment.strip_prefix("net.ipv4.vs.").and_then(|it| it.split_once('=')) {
                Some((name, value)) => Ok(setting(name, value)),
                None => in_shell(line),
            }
        }
        _ => in_shell(line),
    }
}

/// Our own `ipvsadm`, speaking to the kernel.
fn ipvsadm(words: &[String]) -> Output {
    let words: Vec<OsString> = words.iter().map(OsString::from).collect();
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let streams =
        Streams { stdin: &mut std::io::empty(), stdout: &mut stdout, stderr: &mut stderr };
    let rc = applet::run(&words, streams, || Ok(KernelTransport::open()?));
    let text = |octets: Vec<u8>| String::from_utf8_lossy(&octets).into_owned();
    Output { rc: rc.map_or(127, i32::from), stdout: text(stdout), stderr: text(stderr) }
}

/// What `sysctl -w` does and says.
fn setting(name: &str, value: &str) -> Output {
    let key = format!("net.ipv4.vs.{name}");
    match fs::write(format!("/proc/sys/net/ipv4/vs/{name}"), value) {
        Ok(()) => Output { stdout: format!("{key} = {value}\n"), ..Output::default() },
        Err(error) => {
            let text = error.to_string();
            let text = text.split(" (os error").next().unwrap_or_default();
            let stderr = format!("sysctl: setting key \"{key}\": {text}\n");
            Output { rc: 1, stderr, ..Output::default() }
        }
    }
}

fn in_shell(line: &str) -> Result<Output> {
    let output = Command::new("/bin/sh")
        .args(["-c", line])
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(Stdio::null())
        .output()
        .context("cannot start sh")?;
    let text = |octets: Vec<u8>| String::from_utf8_lossy(&octets).into_owned();
    Ok(Output {
        rc: output.status.code().unwrap_or(-1),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    })
}
