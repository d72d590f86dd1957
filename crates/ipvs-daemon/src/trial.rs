//! What was applied on trial, and the way back from it.
//!
//! The way back is kept by the daemon, so that it needs nobody else. Where the plane outlives
//! the daemon it is a file, too, a configuration as any other, which the next daemon takes up.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ipvs_config::Wanted;
use rustix::time::{ClockId, clock_gettime};

/// What was applied, until it is confirmed or undone.
#[derive(Debug)]
pub(crate) struct Trial {
    /// When it is undone.
    pub(crate) until: Instant,
    /// What there was before.
    pub(crate) before: Wanted,
}

impl Trial {
    /// Whole seconds that are left, the present one among them.
    pub(crate) fn left(&self, now: Instant) -> u64 {
        let left = self.until.saturating_duration_since(now);
        left.as_secs() + u64::from(left.subsec_nanos() != 0)
    }
}

/// In front of the deadline, in the file's second line.
const DEADLINE: &str = "# until ";

/// The file with the way back, beside the socket.
#[derive(Clone, Debug)]
pub(crate) struct WayBack(PathBuf);

impl WayBack {
    /// The one of the daemon that listens at `socket`.
    pub(crate) fn beside(socket: &Path) -> Self {
        let mut path = socket.as_os_str().to_owned();
        path.push(".rollback");
        Self(path.into())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Keeps the trial for a daemon that comes after this one.
    pub(crate) fn keep(&self, trial: &Trial, now: Instant) -> io::Result<()> {
        let until = since_boot() + trial.until.saturating_duration_since(now);
        let text = format!(
            "# What ran before something was applied on trial; `ipvs daemon` restores it.\n\
             {DEADLINE}{} ms of boot {}\n{}",
            until.as_millis(),
            boot()?,
            ipvs_config::export(&trial.before)
        );
        let mut unfinished = self.0.clone().into_os_string();
        unfinished.push(".new");
        let mut file = OpenOptions::new();
        file.write(true).create(true).truncate(true).mode(0o600);
        file.open(&unfinished)?.write_all(text.as_bytes())?;
        fs::rename(&unfinished, &self.0)
    }

    /// Forgets it.
    pub(crate) fn forget(&self) {
        match fs::remove_file(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::error!(%error, "cannot remove {}", self.0.display());
            }
            _ => {}
        }
    }

    /// The trial that an earlier daemon has left; `None` if there is none, or none of this
    /// boot, whose plane is gone.
    pub(crate) fn left_behind(&self, now: Instant) -> Result<Option<Trial>, String> {
        let name = self.0.display().to_string();
        let text = match fs::read_to_string(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            outcome => outcome.map_err(|error| format!("{name}: {error}"))?,
        };
        let line = text.lines().nth(1).and_then(|line| line.strip_prefix(DEADLINE));
        let Some((until, of)) = line.and_then(|line| line.split_once(" ms of boot ")) else {
            return Err(format!("{name}:2:1: this says no deadline"));
        };
        if of != boot().map_err(|error| format!("the number of this boot: {error}"))? {
            return Ok(None);
        }
        let until = until.parse().map_err(|error| format!("{name}:2: {error}"))?;
        let left = Duration::from_millis(until).saturating_sub(since_boot());
        let before = ipvs_config::read(&name, &text).map_err(|error| error.to_string())?;
        Ok(Some(Trial { until: now + left, before }))
    }
}

/// Time since the host was started, suspended or not.
fn since_boot() -> Duration {
    Duration::try_from(clock_gettime(ClockId::Boottime)).unwrap_or_default()
}

/// What this boot is known by.
fn boot() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trial_is_taken_up_with_what_is_left_of_its_time() {
        let folder = tempfile::tempdir().unwrap();
        let way_back = WayBack::beside(&folder.path().join("sock"));
        let now = Instant::now();
        assert!(way_back.left_behind(now).unwrap().is_none());
        let text = "timeouts.udp = 7\n[[service]]\nfwmark = 1\nscheduler = \"rr\"\n";
        let before = ipvs_config::read("f", text).unwrap();
        let trial = Trial { until: now + Duration::from_mins(10), before };
        way_back.keep(&trial, now).unwrap();
        let found = way_back.left_behind(now).unwrap().unwrap();
        assert_eq!(found.before, trial.before);
        assert!(found.until <= trial.until && found.until > now);
        way_back.forget();
        assert!(way_back.left_behind(now).unwrap().is_none());
    }

    #[test]
    fn a_trial_of_another_boot_is_none_and_nonsense_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let way_back = WayBack::beside(&folder.path().join("sock"));
        let write = |text: &str| fs::write(way_back.path(), text).unwrap();
        write("#\n# until 5 ms of boot 0-0\n");
        assert!(way_back.left_behind(Instant::now()).unwrap().is_none());
        write("nonsense");
        let said = way_back.left_behind(Instant::now()).unwrap_err();
        assert!(said.ends_with(".rollback:2:1: this says no deadline"), "{said}");
        write(&format!("#\n# until 5 ms of boot {}\ntimeout = 1\n", boot().unwrap()));
        let said = way_back.left_behind(Instant::now()).unwrap_err();
        assert!(said.contains(".rollback:3:1: unknown key"), "{said}");
    }
}
