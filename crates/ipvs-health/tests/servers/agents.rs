//! Agents and programs, which may ask for a weight.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use ipvs_config::health::Weight;
use ipvs_health::check::{Failure, Trust, check};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::faults::{ANY, Fault, in_front_of, refused};
use crate::programs::is_there;
use crate::{read, within};

async fn weight(keys: &str, at: std::net::SocketAddr) -> Result<Weight, Failure> {
    let mut one = read(keys);
    if !keys.contains("timeout") {
        one.timing.timeout = Duration::from_secs(20);
    }
    check(&one, at, &Trust::default()).await
}

/// An agent that answers so, once it has heard what is sent.
async fn agent(hears: &'static str, says: &'static str) -> std::net::SocketAddr {
    let listener = TcpListener::bind(ANY).await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut heard = vec![0; hears.len()];
            client.read_exact(&mut heard).await.unwrap();
            assert_eq!(heard, hears.as_bytes());
            client.write_all(says.as_bytes()).await.unwrap();
        }
    });
    at
}

#[test]
fn an_agent_asks_for_a_weight() {
    within(async {
        let keys = "type = \"agent\"\nport = 1\nsend = \"how are you\\n\"";
        let at = agent("how are you\n", "up 75%\n").await;
        assert_eq!(weight(keys, at).await, Ok(Weight::Percent(75)));
        let at = agent("how are you\n", "drain\n").await;
        assert_eq!(weight(keys, at).await, Ok(Weight::Percent(0)));
        let at = agent("how are you\n", "down # backup\n").await;
        let failure = Failure::Wrong("the agent says \"down # backup\"".into());
        assert_eq!(weight(keys, at).await, Err(failure));
    });
}

#[test]
fn agents_fail_in_all_ways() {
    within(async {
        let keys = "type = \"agent\"\nport = 1";
        let hasty = format!("{keys}\ntimeout = \"300ms\"");
        assert_eq!(weight(keys, refused().await).await.unwrap_err().label(), "refused");
        let real = agent("", "up 75%, all is well\n").await;
        for fault in [Fault::Silent, Fault::Slow] {
            let at = in_front_of(real, fault).await;
            assert_eq!(weight(&hasty, at).await, Err(Failure::Timeout(300)), "{fault:?}");
        }
        for octets in [0, 5] {
            let at = in_front_of(real, Fault::Cut(octets)).await;
            assert_eq!(weight(keys, at).await.unwrap_err().label(), "broken", "{octets}");
        }
        assert_eq!(weight(keys, real).await.unwrap_err().label(), "wrong", "what a word");
    });
}

/// A script in a folder that everybody may look into.
fn script(folder: &TempDir, text: &str) -> Option<String> {
    is_there("/usr/bin/setpriv")?;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let path = folder.path().join("check");
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    Some(format!("type = \"exec\"\ncommand = [\"{}\", \"one\", \"two words\"]", path.display()))
}

fn at() -> std::net::SocketAddr {
    "192.0.2.7:8080".parse().unwrap()
}

#[test]
fn the_exit_status_of_a_program_counts() {
    let folder = tempfile::tempdir().unwrap();
    for (text, dynamic, expect) in [
        (
            "test \"$2 $IPVS_ADDRESS $IPVS_PORT\" = 'two words 192.0.2.7 8080'",
            "",
            Ok(Weight::Configured),
        ),
        ("exit 7", "dynamic = true", Ok(Weight::Exactly(5))),
        ("exit 0", "dynamic = true", Ok(Weight::Configured)),
        ("exit 1", "dynamic = true", Err(Failure::Wrong("exit status 1".into()))),
        ("echo no room; exit 7", "", Err(Failure::Wrong("exit status 7: no room".into()))),
    ] {
        let Some(keys) = script(&folder, text) else { return };
        within(async {
            assert_eq!(weight(&format!("{keys}\n{dynamic}"), at()).await, expect, "{text}");
        });
    }
}

#[test]
fn a_program_may_not_do_much() {
    let folder = tempfile::tempdir().unwrap();
    // Its rights, its groups, and what it cannot come by.
    let text = "grep -q '^NoNewPrivs:.1$' /proc/self/status || exit 2
        grep -q '^CapEff:.0*$' /proc/self/status || exit 3
        test \"$(id -un)\" = nobody || exit 4
        test \"$(id -G)\" = \"$(id -g)\" || exit 5
        test -z \"$HOME$CARGO\" || exit 6";
    let Some(keys) = script(&folder, text) else { return };
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    within(async { assert_eq!(weight(&keys, at()).await, Ok(Weight::Configured)) });
}

/// Whether a process lives whose number a file says.
fn lives(file: &Path) -> bool {
    let id = fs::read_to_string(file).unwrap();
    let state = fs::read_to_string(format!("/proc/{}/stat", id.trim()));
    // One that has ended may still be on the list.
    state.is_ok_and(|text| !text.contains(") Z "))
}

#[test]
fn programs_fail_in_all_ways() {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let open = folder.path().join("open");
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
    let child = open.join("child");
    let text = format!("sleep 1000 & echo $! > {}; sleep 1000", child.display());
    let Some(keys) = script(&folder, &text) else { return };
    within(async {
        // Silent, and killed with what it has started.
        let hasty = format!("{keys}\ntimeout = \"2s\"");
        assert_eq!(weight(&hasty, at()).await, Err(Failure::Timeout(2000)));
        let deadline = Instant::now() + Duration::from_secs(20);
        while lives(&child) {
            assert!(Instant::now() < deadline, "it is left");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // Half done.
        let keys = script(&folder, "kill -9 $$").unwrap();
        assert_eq!(weight(&keys, at()).await.unwrap_err().label(), "broken");
        // Very talkative.
        let keys = script(&folder, "yes | head -c 1000000; exit 9").unwrap();
        assert_eq!(weight(&keys, at()).await, Err(Failure::Wrong("exit status 9: y".into())));
        // Done, with somebody left who holds its output open.
        let keys = script(&folder, "sleep 1000 & exit 0").unwrap();
        assert_eq!(weight(&keys, at()).await, Ok(Weight::Configured));
        let keys = "type = \"exec\"\ncommand = [\"/nosuch\"]";
        assert_eq!(weight(keys, at()).await.unwrap_err().label(), "unmade");
    });
}
