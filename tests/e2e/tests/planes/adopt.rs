//! The plane without its daemon, and the next daemon.

use std::net::SocketAddr;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ipvs_e2e::programs::{curl, find, sha256};
use ipvs_e2e::{Bed, Method, Plane, Server, vip};
use ipvs_lab::{HttpClient, udp_exchange};

use crate::web::{make_body, vips};

const TIMEOUT: Duration = Duration::from_secs(3);

/// Large enough to last a while at [`RATE`].
const BODY: u64 = 8_000_000;
const RATE: &str = "4M";

/// Transfers that are under way when the daemon is killed end well, and new
/// ones begin meanwhile.
pub(crate) fn transfer_survives(plane: Plane) -> Result<()> {
    let (mut bed, nginx) = crate::web::bed(plane, 1)?;
    let root = &nginx.first().context("no server")?.root;
    let hash = make_body(&root.join("body"), BODY)?;
    let mut transfers = Vec::new();
    for (number, (method, at)) in vips().enumerate() {
        let file = bed.folder.path().join(format!("came{number}"));
        let mut command = bed.lab.client().command(find("curl").context("no curl")?)?;
        command.args(["--silent", "--fail", "--globoff", "--max-time", "60", "--noproxy", "*"]);
        command.args(["--limit-rate", RATE, "-o"]).arg(&file).arg(format!("http://{at}/body"));
        command.stdin(Stdio::null());
        let child = bed.lab.client().spawn_child(command)?;
        transfers.push((method, at, file, child));
    }
    let is_under_way = |file: &std::path::Path| file.metadata().is_ok_and(|file| file.len() > 0);
    for (method, at, file, child) in &mut transfers {
        while !is_under_way(file) {
            ensure!(child.child().try_wait()?.is_none(), "{method:?} {at} ended at once");
            thread::sleep(Duration::from_millis(5));
        }
    }
    bed.kill_daemon()?;
    for (method, at) in vips() {
        let page = curl(bed.lab.client(), at, "name", &[]);
        ensure!(page.is_ok_and(|page| page == "rs1"), "{method:?} {at} without a daemon");
    }
    bed.start_daemon()?;
    for (method, at, file, mut child) in transfers {
        let status = child.child().wait()?;
        ensure!(status.success(), "{method:?} {at}: {status}");
        ensure!(sha256(&file)? == hash, "{method:?} {at}: another body came");
    }
    Ok(())
}

/// A bed with the lab's servers behind all virtual addresses, port 80.
pub(crate) fn bed(plane: Plane) -> Result<(Bed, Vec<Server>)> {
    let bed = Bed::new(plane, 2)?;
    let servers = bed.serve(80)?;
    for transport in ["-t", "-u"] {
        bed.make_services(transport, 80, "wrr", |_| 80)?;
    }
    Ok((bed, servers))
}

/// Asks every virtual address by TCP and UDP.
fn ask_all(bed: &Bed) -> Result<()> {
    for (method, at) in vips() {
        let at = SocketAddr::new(at.ip(), 80);
        bed.lab
            .client()
            .run(|| {
                HttpClient::new().get(at, TIMEOUT)?;
                udp_exchange(at, b"ping", TIMEOUT)
            })?
            .with_context(|| format!("{method:?} {at}"))?;
    }
    Ok(())
}

/// Listings, rules, counters, connections: the same before and after.
pub(crate) fn everything_is_found(plane: Plane) -> Result<()> {
    let (mut bed, _servers) = bed(plane)?;
    bed.ipvsadm("--set 100 50 30")?;
    bed.ipvsadm("-A -f 7 -s lc")?;
    ask_all(&bed)?;
    let held = bed.lab.client().run(|| {
        let mut client = HttpClient::new().keep_alive();
        client.get(SocketAddr::new(vip(Method::Nat, true), 80), TIMEOUT).map(|_| client)
    })?;
    let mut held = held?;
    bed.await_statistics()?;
    let before = Shown::of(&bed)?;
    bed.kill_daemon()?;
    bed.start_daemon()?;
    let after = Shown::of(&bed)?;
    ensure!(before == after, "before:\n{before:#?}\nafter:\n{after:#?}");
    let counted = "TCP  192.0.2.100:80                      2 ";
    ensure!(before.stats.contains(counted), "{}", before.stats);
    let lines = bed.status()?.lines;
    ensure!(lines.iter().any(|line| line.contains("adopted")), "{lines:?}");
    let at = SocketAddr::new(vip(Method::Nat, true), 80);
    bed.lab.client().run(|| held.get(at, TIMEOUT))??;
    // The next daemon's edits work on what it found.
    bed.ipvsadm("-E -t 192.0.2.100:80 -s rr")?;
    bed.ipvsadm("-d -t 192.0.2.100:80 -r 10.1.0.11")?;
    bed.ipvsadm("-D -f 7")?;
    ask_all(&bed)
}

/// What ipvsadm shows.
#[derive(Debug, PartialEq, Eq)]
struct Shown {
    rules: String,
    listing: String,
    stats: String,
    timeouts: String,
    /// Without the time that is left to each.
    connections: Vec<String>,
}

impl Shown {
    fn of(bed: &Bed) -> Result<Self> {
        let connections = bed.ipvsadm("-Lnc")?;
        let without_time = |line: &str| {
            line.split_whitespace().filter(|word| !is_time(word)).collect::<Vec<_>>().join(" ")
        };
        let mut connections: Vec<String> = connections.lines().map(without_time).collect();
        connections.sort();
        Ok(Self {
            rules: bed.ipvsadm("-Sn")?,
            listing: bed.ipvsadm("-Ln")?,
            stats: bed.ipvsadm("-Ln --stats --exact")?,
            timeouts: bed.ipvsadm("-L --timeout")?,
            connections,
        })
    }
}

/// Minutes and seconds: `14:59`.
fn is_time(word: &str) -> bool {
    let is_number =
        |text: &str| text.len() == 2 && text.bytes().all(|octet| octet.is_ascii_digit());
    word.split_once(':').is_some_and(|(minutes, seconds)| is_number(minutes) && is_number(seconds))
}

pub(crate) fn sigterm(plane: Plane) -> Result<()> {
    let (mut bed, _servers) = bed(plane)?;
    ask_all(&bed)?;
    bed.end_daemon()?;
    ensure!(!bed.socket().exists(), "the socket is left");
    ask_all(&bed)
}

pub(crate) fn detach(plane: Plane) -> Result<()> {
    let (mut bed, _servers) = bed(plane)?;
    ask_all(&bed)?;
    let pins = bed.pins();
    let pins = pins.to_str().context("a strange path")?;
    let refused = bed.ipvs(&["detach", "--pins", pins])?;
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(!refused.status.success() && words.contains("another daemon"), "{words}");
    ask_all(&bed)?;
    bed.kill_daemon()?;
    let detached = bed.ipvs(&["detach", "--pins", pins])?;
    ensure!(detached.status.success(), "{}", String::from_utf8_lossy(&detached.stderr));
    ensure!(!bed.pins().exists(), "pins are left");
    // The director's own host answers now, for the address is its own: it refuses.
    let at = SocketAddr::new(vip(Method::Nat, true), 80);
    let answer = bed.lab.client().run(|| HttpClient::new().get(at, TIMEOUT))?;
    ensure!(answer.is_err(), "somebody still balances");
    bed.start_daemon()?;
    let lines = bed.status()?.lines;
    ensure!(lines.iter().any(|line| line.contains("fresh")), "{lines:?}");
    Ok(())
}
