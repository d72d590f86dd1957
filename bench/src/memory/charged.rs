//! What a plane holds, by several accounts.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context as _, Result, ensure};
use aya::maps::MapInfo;
use aya::programs::SchedClassifier;

use crate::daemon::Daemon;

/// Octets, by account.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Accounts {
    /// Of the maps that the programs use, each by the kernel's own account.
    pub(crate) maps: Option<f64>,
    /// Of the daemon's memory that is there and belongs to no file.
    pub(crate) resident: Option<f64>,
    /// Charged to the daemon's cgroup.
    pub(crate) charged: Option<f64>,
}

impl Accounts {
    /// Those of a daemon.
    pub(crate) fn of(daemon: &Daemon, charge: Option<&Charge>) -> Result<Self> {
        let maps = daemon.pins().map(of_maps).transpose()?;
        let status = fs::read_to_string(format!("/proc/{}/status", daemon.id()))?;
        let resident = field(&status, "RssAnon:").map(|kib: f64| kib * 1024.0);
        let charged = charge.map(Charge::octets).transpose()?;
        Ok(Self { maps, resident, charged })
    }
}

/// The number behind a word at the beginning of a line.
fn field<T: FromStr>(text: &str, word: &str) -> Option<T> {
    let rest = text.lines().find_map(|line| line.strip_prefix(word))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// The octets of all maps that are pinned, or used by a program that is.
fn of_maps(pins: &Path) -> Result<f64> {
    let mut maps = BTreeSet::new();
    for entry in fs::read_dir(pins).with_context(|| format!("cannot read {}", pins.display()))? {
        // Opens a pin of whatever: only the descriptor says what it is of.
        let pinned = SchedClassifier::from_pin(entry?.path())?;
        let what = fdinfo(pinned.fd()?.as_fd())?;
        if let Some(map) = field(&what, "map_id:") {
            maps.insert(map);
        } else if what.contains("prog_jited:") {
            // A link names its program, too.
            maps.extend(pinned.info()?.map_ids()?.unwrap_or_default());
        }
    }
    ensure!(!maps.is_empty(), "{} has neither maps nor programs", pins.display());
    let mut sum = 0.0;
    for id in maps {
        let text = fdinfo(MapInfo::from_id(id)?.fd()?.as_fd())?;
        let octets: Option<f64> = field(&text, "memlock:");
        sum += octets.context("the kernel tells no memlock of a map")?;
    }
    Ok(sum)
}

fn fdinfo(descriptor: BorrowedFd<'_>) -> Result<String> {
    Ok(fs::read_to_string(format!("/proc/self/fdinfo/{}", descriptor.as_raw_fd()))?)
}

/// A memory cgroup for one daemon.
#[derive(Debug)]
pub(crate) struct Charge {
    folder: PathBuf,
    usage: &'static str,
}

impl Charge {
    /// One that is called `name`, if one can be made.
    pub(crate) fn new(name: &str) -> Option<Self> {
        let version1 = ("/sys/fs/cgroup/memory", "memory.usage_in_bytes");
        let version2 = ("/sys/fs/cgroup", "memory.current");
        [version1, version2].into_iter().find_map(|(root, usage)| {
            let folder = Path::new(root).join(name);
            fs::create_dir(&folder).ok()?;
            let charge = Self { folder, usage };
            charge.folder.join(usage).exists().then_some(charge)
        })
    }

    /// Where it is, for who is to move there.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// What is charged, pages of files left out.
    fn octets(&self) -> Result<f64> {
        let usage: f64 = fs::read_to_string(self.folder.join(self.usage))?.trim().parse()?;
        let stat = fs::read_to_string(self.folder.join("memory.stat"))?;
        let files: Option<f64> = field(&stat, "cache ").or_else(|| field(&stat, "file "));
        Ok(usage - files.unwrap_or(0.0))
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        // Refused while somebody is in it: then it is empty when the machine starts again.
        drop(fs::remove_dir(&self.folder));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_behind_a_word_is_found() {
        let text = "pos:\t0\nmemlock:\t4096\nVmRSS:\t  12 kB\n";
        assert_eq!(field(text, "memlock:"), Some(4096.0));
        assert_eq!(field(text, "VmRSS:"), Some(12.0));
        assert_eq!(field::<f64>(text, "cache "), None);
    }
}
