//! Destinations that are checked by the director itself.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use ipvs_e2e::programs::{HTTP_PORTS, curl, nginx};
use ipvs_e2e::{Bed, Method, Plane, vip};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

pub(crate) const NEEDS_SETPRIV: &[&str] = &["setpriv"];
pub(crate) const NEEDS: &[&str] = &["nginx", "curl"];

/// How long it may take until something is noticed.
const PATIENCE: Duration = Duration::from_secs(30);
/// Often, so that the test is soon over.
const OFTEN: &str =
    "interval = \"200ms\"\nretry_interval = \"100ms\"\ntimeout = \"2s\"\nrise = 2\nfall = 2\n";
const PORT: u16 = HTTP_PORTS[1];

/// A service, and what is the same for all tests.
fn service(more: &str) -> String {
    format!(
        "[[service]]\naddress = \"192.0.2.100\"\nprotocol = \"tcp\"\nport = 80\nscheduler = \"rr\"\n{more}"
    )
}

fn dest(host: u8, more: &str) -> String {
    format!(
        "[[service.destination]]\naddress = \"10.1.0.{host}\"\nport = {PORT}\n\
         method = \"masquerade\"\nweight = 3\n{more}"
    )
}

/// A bed whose daemon reads a file.
struct World {
    bed: Bed,
    path: PathBuf,
}

impl World {
    fn new(plane: Plane, servers: usize, file: &str) -> Result<Self> {
        let mut bed = Bed::new(plane, servers)?;
        bed.end_daemon()?;
        let path = bed.folder.path().join("ipvs.toml");
        bed.daemon_options = vec!["--config".to_owned(), path.display().to_string()];
        fs::write(&path, file)?;
        bed.start_daemon()?;
        Ok(Self { bed, path })
    }

    /// Runs a subcommand with the file; its exit status and what it printed.
    fn ipvs(&self, words: &[&str], with_file: bool) -> Result<(i32, String)> {
        let path = self.path.display().to_string();
        let mut words = words.to_vec();
        words.extend(with_file.then_some(path.as_str()));
        let output = self.bed.ipvs(&words)?;
        let text = [&output.stdout[..], &output.stderr].concat();
        let status = output.status.code().context("killed")?;
        Ok((status, String::from_utf8_lossy(&text).into_owned()))
    }

    /// Destinations by the last part of their address, with their weights.
    fn listed(&self) -> Result<Vec<(u8, i32)>> {
        let mut client = self.bed.client()?;
        let mut all = Vec::new();
        for service in client.services()? {
            let dests = client.dests(&service.key)?;
            all.extend(dests.iter().map(|it| (it.key.addr.octets()[3], it.spec.weight)));
        }
        all.sort_unstable();
        Ok(all)
    }

    fn await_listed(&self, expect: &[(u8, i32)]) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while self.listed()? != expect {
            let status = self.ipvs(&["status"], false)?.1;
            ensure!(Instant::now() < deadline, "{:?}, not {expect:?}\n{status}", self.listed()?);
            // The daemon tells nobody.
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// What follows from health is no drift.
    fn ensure_no_drift(&self) -> Result<()> {
        let plan = self.ipvs(&["plan"], true)?;
        ensure!(plan == (0, String::new()), "{plan:?}");
        Ok(())
    }

    fn ensure_status_says(&self, words: &str) -> Result<()> {
        let (_, said) = self.ipvs(&["status"], false)?;
        ensure!(said.contains(words), "{words:?} is not in\n{said}");
        Ok(())
    }

    /// How many checks have been made so far.
    fn checked(&self) -> Result<u64> {
        let health = self.bed.client()?.health()?;
        Ok(health.checks.iter().map(|it| it.passes + it.failures).sum())
    }

    fn await_checks(&self, more: u64) -> Result<()> {
        let (wanted, deadline) = (self.checked()? + more, Instant::now() + PATIENCE);
        while self.checked()? < wanted {
            ensure!(Instant::now() < deadline, "nothing is checked");
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn reload(&mut self, file: &str) -> Result<()> {
        fs::write(&self.path, file)?;
        let daemon = i32::try_from(self.bed.daemon_mut()?.id())?;
        kill(Pid::from_raw(daemon), Signal::SIGHUP)?;
        let deadline = Instant::now() + PATIENCE;
        while self.ipvs(&["plan"], true)?.0 != 0 {
            ensure!(Instant::now() < deadline, "it is not read again");
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

fn at() -> SocketAddr {
    SocketAddr::new(vip(Method::Nat, true), 80)
}

pub(crate) fn out_and_in(plane: Plane) -> Result<()> {
    let check = format!(
        "[[service.check]]\ntype = \"http\"\npath = \"/name\"\nbody = \"^rs[123]$\"\n{OFTEN}"
    );
    let file = service(&check) + &dest(11, "") + &dest(12, "") + &dest(13, "");
    let world = World::new(plane, 3, &file)?;
    ensure!(world.listed()?.is_empty(), "nobody has passed");
    let hosts = world.bed.lab.servers();
    let first = nginx(&world.bed, &hosts[0])?;
    let _second = nginx(&world.bed, &hosts[1])?;
    world.await_listed(&[(11, 3), (12, 3)])?;
    world.ensure_no_drift()?;
    world
        .ensure_status_says("10.1.0.13:8080 of tcp 192.0.2.100:80 is down: http /name: refused")?;
    for _ in 0..4 {
        curl(world.bed.lab.client(), at(), "name", &[])?;
    }
    drop(first);
    world.await_listed(&[(12, 3)])?;
    world.ensure_no_drift()?;
    for _ in 0..4 {
        ensure!(curl(world.bed.lab.client(), at(), "name", &[])? == "rs2");
    }
    let revived = nginx(&world.bed, &hosts[0])?;
    world.await_listed(&[(11, 3), (12, 3)])?;
    fs::write(revived.root.join("name"), "maintenance")?;
    world.await_listed(&[(12, 3)])?;
    world.ensure_status_says("wrong answer: `^rs[123]$` is not in the body of 11 octets")?;
    world.ensure_no_drift()
}

/// Who comes up has a part of its weight first, and more and more of it.
pub(crate) fn slowly(plane: Plane) -> Result<()> {
    let more = format!(
        "[service.health]\nslow_start = \"9s\"\n[[service.check]]\ntype = \"tcp\"\n{OFTEN}"
    );
    let file = service(&more) + &dest(11, "");
    let world = World::new(plane, 1, &file)?;
    let server = nginx(&world.bed, &world.bed.lab.servers()[0])?;
    world.await_listed(&[(11, 1)])?;
    world.ensure_no_drift()?;
    world.ensure_status_says("% of its weight")?;
    world.await_listed(&[(11, 2)])?;
    world.ensure_no_drift()?;
    world.await_listed(&[(11, 3)])?;
    let (_, exported) = world.ipvs(&["export"], false)?;
    ensure!(exported.contains("slow_start = \"9s\""), "{exported}");
    drop(server);
    world.await_listed(&[])?;
    let _again = nginx(&world.bed, &world.bed.lab.servers()[0])?;
    world.await_listed(&[(11, 1)])
}

pub(crate) fn quorum(plane: Plane) -> Result<()> {
    let more = format!(
        "[service.health]\non_failure = \"inhibit\"\nquorum = 6\n[[service.check]]\ntype = \"tcp\"\n{OFTEN}\
         [service.sorry_server]\naddress = \"10.1.0.13\"\nport = {PORT}\nmethod = \"masquerade\"\n"
    );
    let file = service(&more) + &dest(11, "") + &dest(12, "");
    let world = World::new(plane, 3, &file)?;
    let sorry = [(11, 0), (12, 0), (13, 1)];
    ensure!(world.listed()? == sorry, "the sorry server from the first moment on");
    let hosts = world.bed.lab.servers();
    let _third = nginx(&world.bed, &hosts[2])?;
    let first = nginx(&world.bed, &hosts[0])?;
    ensure!(curl(world.bed.lab.client(), at(), "name", &[])? == "rs3");
    let second = nginx(&world.bed, &hosts[1])?;
    world.await_listed(&[(11, 3), (12, 3)])?;
    drop(second);
    // One is left, which is less than the quorum.
    world.await_listed(&sorry)?;
    world.ensure_status_says(
        "tcp 192.0.2.100:80 has no quorum; the sorry server 10.1.0.13:8080 has its connections",
    )?;
    world.ensure_no_drift()?;
    let (_, exported) = world.ipvs(&["export"], false)?;
    ensure!(exported.contains("quorum = 6") && exported.contains("[service.sorry_server]"));
    ensure!(exported.matches("weight = 3").count() == 2, "as it is configured:\n{exported}");
    drop(first);
    let _both = (nginx(&world.bed, &hosts[0])?, nginx(&world.bed, &hosts[1])?);
    world.await_listed(&[(11, 3), (12, 3)])
}

pub(crate) fn restart(plane: Plane) -> Result<()> {
    let file = |delay: &str| {
        let policy = "[service.health]\non_failure = \"inhibit\"\n";
        let check = format!("[[service.check]]\ntype = \"tcp\"\ndelay = \"{delay}\"\n{OFTEN}");
        service(&(policy.to_owned() + &check)) + &dest(11, "") + &dest(12, "")
    };
    let mut world = World::new(plane, 2, &file("1h"))?;
    ensure!(world.listed()? == [(11, 0), (12, 0)], "no connections before the first pass");
    let hosts = world.bed.lab.servers().to_vec();
    let _first = nginx(&world.bed, &hosts[0])?;
    world.reload(&file("0ms"))?;
    world.await_listed(&[(11, 3), (12, 0)])?;
    world.await_checks(4)?;
    world.bed.kill_daemon()?;
    // Whoever was down stays so until it is checked, and whoever was up goes on.
    let _second = nginx(&world.bed, &hosts[1])?;
    fs::write(&world.path, file("1h"))?;
    world.bed.start_daemon()?;
    let first = if plane.is_bpf() { 3 } else { 0 };
    ensure!(world.listed()? == [(11, first), (12, 0)], "{:?}", world.listed()?);
    ensure!(world.checked()? == 0, "nothing was checked");
    world.ensure_no_drift()?;
    world.reload(&file("0ms"))?;
    world.await_listed(&[(11, 3), (12, 3)])
}

pub(crate) fn reload(plane: Plane) -> Result<()> {
    let check = format!("[[service.check]]\ntype = \"http\"\npath = \"/name\"\n{OFTEN}");
    let file = service(&check) + &dest(11, "");
    let mut world = World::new(plane, 2, &file)?;
    let hosts = world.bed.lab.servers().to_vec();
    let _servers = (nginx(&world.bed, &hosts[0])?, nginx(&world.bed, &hosts[1])?);
    world.await_listed(&[(11, 3)])?;
    world.await_checks(3)?;
    let checked = world.checked()?;
    world.reload(&(file.clone() + &dest(12, "")))?;
    world.await_listed(&[(11, 3), (12, 3)])?;
    ensure!(world.checked()? > checked, "what has not changed is not forgotten");
    // A check that a server fails which has connections takes them once it has failed.
    let other = file.replace("/name", "/nosuch");
    world.reload(&other)?;
    world.await_listed(&[])?;
    world.ensure_status_says("http /nosuch: wrong answer: status 404")?;
    world.reload(&service(&dest(11, "")))?;
    ensure!(world.listed()? == [(11, 3)], "nothing is checked, so it is as it is configured");
    Ok(())
}

pub(crate) fn applied(plane: Plane) -> Result<()> {
    let world = World::new(plane, 2, "")?;
    let hosts = world.bed.lab.servers();
    let _first = nginx(&world.bed, &hosts[0])?;
    let check = format!("[[service.check]]\ntype = \"tcp\"\n{OFTEN}");
    fs::write(&world.path, service(&check) + &dest(11, "") + &dest(12, ""))?;
    let planned = world.ipvs(&["plan"], true)?;
    let lines = "+ service tcp 192.0.2.100:80, scheduler rr\n+ checks of tcp 192.0.2.100:80\n";
    ensure!(planned == (2, lines.to_owned()), "{planned:?}");
    ensure!(world.ipvs(&["apply"], true)? == (0, lines.to_owned()));
    world.await_listed(&[(11, 3)])?;
    world.ensure_no_drift()?;
    // What is on trial takes its checks with it, and those before come back.
    let checked = fs::read_to_string(&world.path)?;
    fs::write(&world.path, service("") + &dest(12, ""))?;
    let tried = world.ipvs(&["apply", "--confirm", "1h"], true)?;
    ensure!(tried.0 == 0 && tried.1.contains("- checks of tcp 192.0.2.100:80\n"), "{tried:?}");
    ensure!(world.listed()? == [(12, 3)]);
    ensure!(world.ipvs(&["rollback"], false)?.0 == 0);
    world.await_listed(&[(11, 3)])?;
    fs::write(&world.path, &checked)?;
    world.ensure_no_drift()?;
    // What somebody has edited by hand is drift.
    world.bed.ipvsadm("-e -t 192.0.2.100:80 -r 10.1.0.11:8080 -m -w 7")?;
    let drift = "~ destination 10.1.0.11:8080, weight 3, of tcp 192.0.2.100:80\n";
    let planned = world.ipvs(&["plan"], true)?;
    ensure!(planned == (2, drift.to_owned()), "{planned:?}");
    ensure!(world.ipvs(&["apply"], true)? == (0, drift.to_owned()));
    Ok(())
}

pub(crate) fn weights(plane: Plane) -> Result<()> {
    let world = World::new(plane, 1, "")?;
    let folder = world.bed.folder.path();
    // Whoever the program runs as.
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
    let (wish, script) = (folder.join("wish"), folder.join("check"));
    let ask = |status: u8| fs::write(&wish, status.to_string());
    ask(9)?;
    fs::write(&script, format!("#!/bin/sh\nexit $(cat {})\n", wish.display()))?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    let check = format!(
        "[[service.check]]\ntype = \"exec\"\ncommand = [\"{}\"]\ndynamic = true\n{OFTEN}",
        script.display()
    );
    fs::write(&world.path, service(&check) + &dest(11, ""))?;
    ensure!(world.ipvs(&["apply"], true)?.0 == 0);
    for (status, listed) in
        [(9, vec![(11, 7)]), (22, vec![(11, 20)]), (0, vec![(11, 3)]), (1, vec![])]
    {
        ask(status)?;
        world.await_listed(&listed)?;
        world.ensure_no_drift()?;
    }
    world.ensure_status_says("wrong answer: exit status 1")
}
