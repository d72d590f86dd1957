//! What connection tracking makes of packets that are led past the host's firewall.
//!
//! A kernel director takes its packets before connection tracking confirms what it
//! thinks of them: no entry is made, and every one is `new`. Here they go on to the
//! door, and would be confirmed. But the answers that connection tracking expects never
//! come by it, for DR and tunnels not at all, and it finds the client's second packet
//! `invalid`, which firewalls drop. So where a ruleset tracks connections at all, a small
//! table of ours has such entries last no time, which is as good as none.
//!
//! It is the host's, like the rules that lead packets: it stays when the daemon ends,
//! and goes with `ipvs detach`. Whoever loads a new ruleset mostly flushes the old, and
//! our table with it; it is there again as soon as the daemon has heard of that.

use std::io::{self, Write as _};
use std::process::{Command, Stdio};

use super::door;
use crate::firewall::{OWN_TABLE, nft};

/// Our table. Connection tracking knows a state of its own for each of these, and each
/// lasts no time.
fn table() -> String {
    let none = |states: &[&str]| {
        let states: Vec<String> = states.iter().map(|state| format!("{state}: 0")).collect();
        states.join(", ")
    };
    let tcp = none(&[
        "syn_sent",
        "syn_recv",
        "established",
        "fin_wait",
        "close_wait",
        "last_ack",
        "time_wait",
        "close",
        "retrans",
        "unack",
    ]);
    let udp = none(&["unreplied", "replied"]);
    let (mut timeouts, mut rules) = (Vec::new(), Vec::new());
    for (family, of) in [("ip", "ipv4"), ("ip6", "ipv6")] {
        for (protocol, policy) in [("tcp", &tcp), ("udp", &udp)] {
            let name = format!("none-{family}-{protocol}");
            timeouts.push(format!(
                "ct timeout {name} {{ protocol {protocol}; l3proto {family}; \
                 policy = {{ {policy} }}\n }}"
            ));
            rules.push(format!(
                "meta nfproto {of} meta l4proto {protocol} ct timeout set \"{name}\""
            ));
        }
    }
    let (timeouts, rules) = (timeouts.join("\n"), rules.join("\n"));
    let (table, door) = (OWN_TABLE, door::HOST);
    format!(
        "add table {table}\ndelete table {table}\n\
         table {table} {{\n{timeouts}\n\
         chain led {{\n type filter hook forward priority 2147483647; policy accept;\n\
         oifname != \"{door}\" return\n{rules}\n}}\n}}\n"
    )
}

/// Makes our table.
pub(super) fn make() -> io::Result<()> {
    run(&table())
}

/// Removes our table; that there is none is as good.
pub(super) fn remove() -> io::Result<()> {
    run(&format!("add table {OWN_TABLE}\ndelete table {OWN_TABLE}\n"))
}

/// Has nft do what the script says, all of it or nothing.
fn run(script: &str) -> io::Result<()> {
    let mut command = Command::new(nft());
    command.args(["-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(script.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(io::Error::other(words.lines().next().unwrap_or("nft failed").to_owned()))
}
