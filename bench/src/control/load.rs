//! What is configured, and one round of it, with whichever ipvsadm.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};

/// Edits of a round: each is one start of ipvsadm.
const EDITS: u32 = 15;
/// Lines of a listing in front of the first service.
const HEAD: u64 = 3;
/// Services have addresses from here on,
const VIRTUAL: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
/// and destinations from here on, none the same.
const REAL: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
/// As many as fit into their networks.
const MOST: u32 = 100_000;

/// Services with their destinations.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Load {
    services: u32,
    dests: u32,
}

/// How long everything took, in seconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Round {
    /// `ipvsadm -R` of everything.
    pub(crate) restore: f64,
    /// `ipvsadm -Ln` of everything.
    pub(crate) listing: f64,
    /// `ipvsadm -e` of one destination among them, several times.
    pub(crate) edits: Vec<f64>,
    /// `ipvsadm -C`.
    pub(crate) clear: f64,
}

impl Load {
    /// So many services, each with so many destinations.
    pub(crate) fn new(services: u32, dests: u32) -> Result<Self> {
        ensure!(services > 0 && dests > 0, "nothing to be configured");
        let all = services.checked_mul(dests).filter(|all| *all <= MOST);
        ensure!(all.is_some(), "at most {MOST} destinations altogether");
        Ok(Self { services, dests })
    }

    fn service(service: u32) -> String {
        format!("{}:80", Ipv4Addr::from_bits(VIRTUAL.to_bits() + service))
    }

    fn dest(self, service: u32, dest: u32) -> String {
        format!("{}:80", Ipv4Addr::from_bits(REAL.to_bits() + service * self.dests + dest))
    }

    /// What `ipvsadm -S` would have written.
    fn rules(self) -> Result<String> {
        let mut rules = String::new();
        for service in 0..self.services {
            let key = Self::service(service);
            writeln!(rules, "-A -t {key} -s wlc")?;
            for dest in 0..self.dests {
                writeln!(rules, "-a -t {key} -r {} -m -w 1", self.dest(service, dest))?;
            }
        }
        Ok(rules)
    }

    /// Loads, lists, edits and clears, with the ipvsadm that `tool` makes; files are put
    /// into `folder`.
    pub(crate) fn measure(self, folder: &Path, tool: &dyn Fn() -> Command) -> Result<Round> {
        let [rules, listed, said] = ["rules", "listed", "said"].map(|name| folder.join(name));
        fs::write(&rules, self.rules()?)?;
        let list = |arguments: &[&str]| -> Result<f64> {
            let mut command = tool();
            command.args(arguments).stdin(Stdio::null()).stdout(File::create(&listed)?);
            time(command, &said)
        };
        let mut command = tool();
        command.arg("-R").stdin(File::open(&rules)?);
        let restore = time(command, &said).context("ipvsadm -R")?;
        let listing = list(&["-Ln"]).context("ipvsadm -Ln")?;
        let lines = fs::read_to_string(&listed)?.lines().count() as u64;
        let expect = HEAD + u64::from(self.services) * u64::from(self.dests + 1);
        ensure!(lines == expect, "{lines} lines are listed, not {expect}");

        // One in the middle.
        let service = self.services / 2;
        let (key, dest) = (Self::service(service), self.dest(service, self.dests / 2));
        let mut edits = Vec::new();
        for weight in 2..2 + EDITS {
            let weight = weight.to_string();
            let mut command = tool();
            command.args(["-e", "-t", &key, "-r", &dest, "-m", "-w", &weight]);
            command.stdin(Stdio::null());
            edits.push(time(command, &said).context("ipvsadm -e")?);
        }
        list(&["-Ln", "-t", &key])?;
        let text = fs::read_to_string(&listed)?;
        let line = text.lines().find(|line| line.contains(&format!("{dest} ")));
        let weight = line.and_then(|line| line.split_whitespace().nth(3));
        let expect = (1 + EDITS).to_string();
        ensure!(weight == Some(&expect), "the edits are not listed: {text}");
        let mut command = tool();
        command.arg("-C").stdin(Stdio::null());
        let clear = time(command, &said).context("ipvsadm -C")?;
        Ok(Round { restore, listing, edits, clear })
    }
}

/// How long a program runs that must succeed; what it complains of goes to a file.
fn time(mut command: Command, said: &Path) -> Result<f64> {
    command.stderr(File::create(said)?);
    let start = Instant::now();
    let status = command.status()?;
    let seconds = start.elapsed().as_secs_f64();
    ensure!(status.success(), "{status}: {}", fs::read_to_string(said)?);
    Ok(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_service_and_destination_has_an_address_of_its_own() {
        let load = Load::new(300, 3).unwrap();
        let rules = load.rules().unwrap();
        let unique: std::collections::HashSet<&str> = rules.lines().collect();
        assert_eq!(unique.len(), 300 * 4);
        assert!(rules.starts_with(
            "-A -t 198.18.0.1:80 -s wlc\n-a -t 198.18.0.1:80 -r 10.1.0.1:80 -m -w 1\n"
        ));
        assert!(Load::new(10_000, 11).is_err());
    }
}
