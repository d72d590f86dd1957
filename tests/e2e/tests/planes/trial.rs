//! Configurations that are applied, on trial and for good.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use ipvs_e2e::{Bed, Plane};

/// How long a rollback may take beyond its time.
const PATIENCE: Duration = Duration::from_secs(30);
const BEFORE: &str = "-A -t 192.0.2.100:80 -s rr\n-a -t 192.0.2.100:80 -r 10.1.0.11:80 -m -w 1\n";
const AFTER: &str = "-A -t 192.0.2.100:81 -s wlc\n";
const FILE: &str = "timeouts.udp = 77\nsysctl.sloppy_tcp = 1\n[[mark]]\nmark = 7\n\
    [[service]]\naddress = \"192.0.2.100\"\nprotocol = \"tcp\"\nport = 81\n";

/// A director that has something, and a file that asks for something else.
struct World {
    bed: Bed,
    file: String,
}

impl World {
    fn new(plane: Plane) -> Result<Self> {
        let bed = Bed::new(plane, 1)?;
        let path = bed.folder.path().join("ipvs.toml");
        fs::write(&path, FILE)?;
        let made = bed.ipvsadm_reading("-R --atomic", BEFORE)?;
        ensure!(made.status.success(), "{made:?}");
        Ok(Self { bed, file: path.to_str().context("a strange path")?.to_owned() })
    }

    /// Runs a subcommand; what it said on stderr, if it failed.
    fn ipvs(&self, words: &[&str]) -> Result<Result<(), String>> {
        let output = self.bed.ipvs(words)?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        Ok(if output.status.success() { Ok(()) } else { Err(said) })
    }

    fn apply(&self, time: &str) -> Result<()> {
        let applied = self.ipvs(&["apply", "--confirm", time, &self.file])?;
        ensure!(applied == Ok(()), "{applied:?}");
        Ok(())
    }

    fn runs(&self) -> Result<String> {
        self.bed.ipvsadm("-Sn")
    }

    fn is_on_trial(&self) -> Result<bool> {
        Ok(self.bed.status()?.lines.iter().any(|line| line.starts_with("on trial: ")))
    }

    /// Everything is as it was before.
    fn ensure_before(&self) -> Result<()> {
        ensure!(self.runs()? == BEFORE, "{}", self.runs()?);
        ensure!(self.bed.ipvsadm("-L --timeout")?.ends_with(" 900 120 300\n"), "timeouts");
        let mut client = self.bed.client()?;
        ensure!(client.setting("sloppy_tcp")? == "0" && client.mark_rules()?.is_empty());
        ensure!(!self.is_on_trial()?, "it is over");
        Ok(())
    }

    fn await_rollback(&self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while self.runs()? != BEFORE {
            ensure!(Instant::now() < deadline, "it is not rolled back");
            // The daemon tells nobody.
            thread::sleep(Duration::from_millis(20));
        }
        self.ensure_before()
    }
}

pub(crate) fn rolled_back(plane: Plane) -> Result<()> {
    let world = World::new(plane)?;
    world.apply("1s")?;
    world.await_rollback()?;
    world.apply("1h")?;
    ensure!(world.runs()? == AFTER && world.is_on_trial()?, "it is applied, and shown as on trial");
    for again in [&["apply", &world.file][..], &["apply", "--confirm", "1h", &world.file]] {
        let said = world.ipvs(again)?.err().context("a second apply")?;
        ensure!(said.contains("what was applied before is on trial: `ipvs confirm`"), "{said}");
    }
    ensure!(world.ipvs(&["rollback"])? == Ok(()), "at once");
    world.ensure_before()
}

pub(crate) fn confirmed(plane: Plane) -> Result<()> {
    let world = World::new(plane)?;
    world.apply("1h")?;
    ensure!(world.ipvs(&["confirm"])? == Ok(()));
    ensure!(world.runs()? == AFTER && !world.is_on_trial()?, "it is kept");
    let left: Vec<_> = fs::read_dir(world.bed.folder.path())?.collect::<Result<_, _>>()?;
    let left = left.iter().any(|it| it.file_name().to_string_lossy().contains("rollback"));
    ensure!(!left, "the way back is left");
    for late in ["confirm", "rollback"] {
        let said = world.ipvs(&[late])?.err().context("nothing is on trial")?;
        ensure!(said == format!("ipvs {late}: nothing is on trial\n"), "{said}");
    }
    // What changes nothing is no trial.
    world.apply("1h")?;
    ensure!(!world.is_on_trial()?, "nothing was changed");
    Ok(())
}

pub(crate) fn survives_the_daemon(plane: Plane) -> Result<()> {
    let mut world = World::new(plane)?;
    world.apply("1h")?;
    world.bed.kill_daemon()?;
    world.bed.start_daemon()?;
    ensure!(world.runs()? == AFTER && world.is_on_trial()?, "the next daemon goes on with it");
    ensure!(world.ipvs(&["rollback"])? == Ok(()), "and knows the way back");
    world.ensure_before()?;
    world.apply("1s")?;
    world.bed.end_daemon()?;
    world.bed.start_daemon()?;
    world.await_rollback()
}
