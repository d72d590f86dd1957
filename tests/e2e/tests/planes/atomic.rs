//! Edits that take effect all at once, or not at all.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ipvs_e2e::{Bed, Method, Plane, vip};
use ipvs_lab::HttpClient;
use ipvs_netlink::message::{Messages, flags};
use ipvs_netlink::transaction::{BEGIN, COMMIT};
use ipvs_netlink::{Errno, conn};
use nix::sys::socket::{MsgFlags, recv, send};

use crate::api::{connected, message_of, request_to_add};

/// Services with so many destinations each.
pub(crate) fn lines(services: u32, dests: u32) -> String {
    let mut lines = String::new();
    for service in 0..services {
        let at = format!("-t 10.{}.{}.1:80", 100 + service / 250, service % 250);
        // What a string takes is no failure.
        let _ = writeln!(lines, "-A {at} -s wlc");
        for server in 1..=dests {
            let _ = writeln!(lines, "-a {at} -r 10.1.{}.{server}:80 -g -w 1", service % 250);
        }
    }
    lines
}

pub(crate) fn restore(plane: Plane) -> Result<()> {
    let bed = Bed::new(plane, 1)?;
    bed.ipvsadm("-A -t 192.0.2.100:80 -s rr")?;
    let before = bed.ipvsadm("-Sn")?;
    let many = lines(300, 10);
    let wrong = format!("{many}-d -t 192.0.2.100:80 -r 10.1.0.11\n");
    let refused = bed.ipvsadm_reading("-R --atomic", &wrong)?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(said == "line 3301: No such destination (nothing was changed)\n", "{said}");
    ensure!(refused.status.code() == Some(255), "{:?}", refused.status);
    ensure!(bed.ipvsadm("-Sn")? == before, "a refused restore has changed something");
    // Twice, the second time over what the first has left.
    let anew = format!("-C\n{many}");
    for _ in 0..2 {
        let made = bed.ipvsadm_reading("-R --atomic", &anew)?;
        ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let mut saved: Vec<String> = bed.ipvsadm("-Sn")?.lines().map(str::to_owned).collect();
        let mut expect: Vec<&str> = many.lines().collect();
        saved.sort();
        expect.sort_unstable();
        ensure!(saved == expect, "what was restored is not what is there");
    }
    Ok(())
}

/// A second daemon stands in for the kernel: it speaks the same family.
pub(crate) fn takeover(plane: Plane) -> Result<()> {
    let (old, new) = (Bed::new(Plane::User, 1)?, Bed::new(plane, 1)?);
    old.make_services("-t", 80, "wrr", |_| 80)?;
    old.ipvsadm("--set 100 20 30")?;
    let from = old.socket().display().to_string();
    let shown = new.ipvs(&["takeover", "--dry-run", "--from", &from])?;
    ensure!(String::from_utf8_lossy(&shown.stdout).starts_with("--set 100 20 30\n-A "));
    ensure!(new.ipvsadm("-Sn")?.is_empty(), "it is to be shown only");
    for option in [&[][..], &["--replace"]] {
        let taken = new.ipvs(&[&["takeover", "--from", &from][..], option].concat())?;
        let said = String::from_utf8_lossy(&taken.stdout).into_owned();
        ensure!(said.starts_with("taken over: 6 services with 6 destinations, "), "{taken:?}");
        for listing in ["-Sn", "-L --timeout"] {
            ensure!(new.ipvsadm(listing)? == old.ipvsadm(listing)?, "{listing} differs");
        }
        ensure!(!new.ipvs(&["takeover", "--from", &from])?.status.success(), "it has services");
    }
    let _servers = new.serve(80)?;
    let service = SocketAddr::new(vip(Method::Nat, true), 80);
    let get = || HttpClient::new().get(service, Duration::from_secs(5));
    let page = new.lab.client().run(get)??;
    ensure!(page.server == new.lab.servers()[0].name(), "a page from {}", page.server);
    Ok(())
}

/// Sends a request, and returns what it ends with.
fn outcome(socket: &OwnedFd, request: &[u8]) -> Result<Result<(), Errno>> {
    send(socket.as_raw_fd(), request, MsgFlags::empty())?;
    let mut answer = [0; 4096];
    // In front of an error there may be what it is about.
    loop {
        let len = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
        let last = Messages(answer.get(..len).unwrap_or(&[])).last().context("no answer")?;
        if let Some(end) = last.error() {
            return Ok(end.map_or(Ok(()), Err));
        }
    }
}

pub(crate) fn half(plane: Plane) -> Result<()> {
    let bed = Bed::new(plane, 1)?;
    let own = |command| message_of(conn::FAMILY_ID, command, flags::REQUEST | flags::ACK, &[]);
    let begin = |client: &OwnedFd| outcome(client, &own(BEGIN));
    let clients: Vec<OwnedFd> = (0..5).map(|_| connected(&bed)).collect::<Result<_>>()?;
    for client in clients.iter().take(4) {
        ensure!(begin(client)? == Ok(()), "four may be in a transaction");
        ensure!(outcome(client, &request_to_add(80))? == Ok(()), "and say what they want");
    }
    ensure!(begin(&clients[4])? == Err(Errno::BUSY), "not five");
    let [first, second, rest @ ..] = clients.as_slice() else { anyhow::bail!("five") };
    ensure!(outcome(first, &own(COMMIT))? == Ok(()), "the first is first");
    ensure!(outcome(second, &own(COMMIT))? == Err(Errno::EXIST), "the second is late");
    ensure!(bed.ipvsadm("-Sn")?.lines().count() == 1, "made once");
    bed.ipvsadm("-C")?;
    // The others die half way.
    let last = rest.last().context("a client")?;
    ensure!(begin(last)? == Ok(()), "there is room again");
    drop(clients);
    let late = connected(&bed)?;
    for _ in 0..2 {
        ensure!(begin(&late)? == Ok(()), "what they held is free");
        ensure!(outcome(&late, &own(COMMIT))? == Ok(()), "and nothing of it is made");
    }
    ensure!(bed.ipvsadm("-Sn")?.is_empty(), "they have left something");
    Ok(())
}
