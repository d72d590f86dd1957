//! Command lines of the cases, as far as they can be read without a shell.

use std::ffi::OsString;

use ipvs_core::snapshot::Control;
use ipvs_netlink::client::LocalTransport;

use crate::applet::{self, Streams};
use crate::case::Output;

/// The words of a line that is one plain command; `None` if it needs a shell.
pub fn words(line: &str) -> Option<Vec<String>> {
    const SHELL: &[char] = &['|', '<', '>', ';', '&', '$', '*', '?', '`', '#', '~'];
    // What stands between single quotes means itself.
    let plain = line.split('\'').step_by(2).all(|part| !part.contains(SHELL));
    if plain { shlex::split(line) } else { None }
}

/// Whether a line has to do with IPVS, so that a host alone cannot run it.
pub fn is_ours(line: &str) -> bool {
    ["ipvsadm", "ip_vs", "net.ipv4.vs", "net/ipv4/vs"].iter().any(|word| line.contains(word))
}

/// Whether every program of a line is one of ours, or reads and writes text and
/// nothing else: such a line needs no host.
pub fn needs_no_host(line: &str) -> bool {
    const TEXT_TOOLS: [&str; 17] = [
        "awk", "cut", "diff", "echo", "egrep", "false", "grep", "head", "printf", "sed", "sort",
        "tail", "tee", "tr", "true", "uniq", "wc",
    ];
    line.split(['|', ';', '&']).map(str::trim_start).filter(|part| !part.is_empty()).all(|part| {
        let program = part.split_whitespace().next().unwrap_or_default();
        TEXT_TOOLS.contains(&program) || applet::NAMES.contains(&program)
    })
}

/// Runs a line that is one plain command of ours, in the bytes that our programs
/// and a director exchange over a socket; `None` if it is no such line.
pub fn plain(line: &str, control: &mut dyn Control) -> Option<Output> {
    let words: Vec<OsString> = words(line)?.into_iter().map(OsString::from).collect();
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let streams =
        Streams { stdin: &mut std::io::empty(), stdout: &mut stdout, stderr: &mut stderr };
    let rc = applet::run(&words, streams, || Ok(LocalTransport::new(control)))?;
    let text = |octets: Vec<u8>| String::from_utf8_lossy(&octets).into_owned();
    Some(Output { rc: rc.into(), stdout: text(stdout), stderr: text(stderr) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core_subject::CoreSubject;

    #[test]
    fn plain_commands_are_split_as_a_shell_would() {
        let split = words("nft 'add chain ip m pre { }' \"a b\"").unwrap();
        assert_eq!(split, ["nft", "add chain ip m pre { }", "a b"]);
        assert_eq!(words("ipvsadm -Sn > /tmp/s1"), None);
        assert_eq!(words("nft 'add chain { a; }'").unwrap(), ["nft", "add chain { a; }"]);
        assert_eq!(words("nft 'list' > /tmp/s1"), None);
    }

    #[test]
    fn settings_are_changed_and_read_as_by_the_tool() {
        let mut subject = CoreSubject::new().unwrap();
        let mut run = |line: &str| plain(line, subject.control()).unwrap();
        let set = run("sysctl -w net.ipv4.vs.sync_threshold=\"0 0\"");
        assert_eq!((set.rc, set.stdout.as_str()), (0, "net.ipv4.vs.sync_threshold = 0 0\n"));
        let got = run("sysctl -n net.ipv4.vs.sync_threshold net.ipv4.vs.sloppy_tcp");
        assert_eq!(got.stdout, "0\t0\n0\n");
        let refused = run("sysctl -w net.ipv4.vs.drop_entry=4");
        let text = "sysctl: setting key \"net.ipv4.vs.drop_entry\": Invalid argument\n";
        assert_eq!((refused.rc, refused.stderr.as_str()), (1, text));
        assert_eq!(plain("sysctl -w net.ipv4.ip_forward=1", subject.control()), None);
    }
}
