//! Booting the guest, and hearing how it ended.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use ipvs_guest::Machine;

/// With what the guest says its exit status, before it powers off.
pub(super) const ENDED: &str = "guest ended with status ";

/// Runs the guest to its end, which must come within `minutes`; calls `each` with every line it
/// writes. Returns the status it ended with, if it came that far.
pub(super) fn run_to_end(
    machine: &Machine<'_>,
    minutes: u64,
    each: impl Fn(&str),
) -> Result<Option<i32>> {
    let mut child = machine
        .command()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", machine.program()))?;
    let stdout = child.stdout.take().context("no standard output")?;
    let (done, watched) = std::sync::mpsc::channel::<()>();
    let patience = Duration::from_secs(minutes * 60);
    let watch = thread::spawn(move || {
        // Told, or hung up on: the guest has ended by itself.
        let late =
            watched.recv_timeout(patience) == Err(std::sync::mpsc::RecvTimeoutError::Timeout);
        if late {
            // It may have ended just now.
            drop(child.kill());
        }
        (late, child.wait())
    });
    let mut status = None;
    for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line);
        let line = line.trim_end_matches('\r');
        match ended(line) {
            Some(said) => status = Some(said),
            None => each(line),
        }
    }
    drop(done);
    match watch.join() {
        Ok((true, _)) => bail!("did not end within {minutes} minutes"),
        Ok((false, waited)) => waited.map(|_| status).context("cannot wait for qemu"),
        Err(_) => bail!("the watch over it failed"),
    }
}

/// The status in the guest's last words.
fn ended(line: &str) -> Option<i32> {
    line.split_once(ENDED)?.1.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_words_are_understood_behind_noise_of_the_console() {
        assert_eq!(ended("\u{1b}[0mguest ended with status 1"), Some(1));
        assert_eq!(ended("3 passed, 0 failed, 0 skipped"), None);
    }
}
