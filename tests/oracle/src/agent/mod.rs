//! What runs in the guest, as its first process: takes jobs, plays them into
//! the guest's kernel and hands back what that did.

use std::fs::{self, File};
use std::io::{self, BufRead as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use ipvs_lab::Namespace;
use nix::sys::reboot::{RebootMode, reboot};

use crate::job::{Job, MARK, Pace, QUIT, Transcript};

mod boot;
mod commands;
mod layout;
mod network;
mod tap;

pub(crate) use boot::WANTED;
use network::Played;

/// The kernel sums statistics up every two seconds.
const SUMMED: Duration = Duration::from_millis(2300);

/// Serves jobs from `folder` until the console is closed; then the guest is
/// switched off.
pub(crate) fn run(folder: &Path) {
    let served =
        boot::prepare(folder).and_then(|()| layout::prepare()).and_then(|()| serve(folder));
    if let Err(error) = served {
        tell(&format!("failed {}", format!("{error:#}").replace('\n', " ")));
    }
    // On success it does not return; without it the kernel would panic, which
    // ends the guest as well.
    let _ = reboot(RebootMode::RB_POWER_OFF);
}

fn serve(folder: &Path) -> Result<()> {
    tell("ready");
    for line in io::stdin().lock().lines() {
        let line = line?;
        if line.trim() == QUIT {
            break;
        }
        let Some(number) = line.trim().strip_prefix("job ") else { continue };
        let file = |kind: &str| -> PathBuf { folder.join(format!("{number}.{kind}")) };
        match play(&file("job")).and_then(|done| write(&file("done"), &done)) {
            Ok(()) => tell(&format!("done {number}")),
            Err(error) => tell(&format!("failed {}", format!("{error:#}").replace('\n', " "))),
        }
    }
    Ok(())
}

fn play(path: &Path) -> Result<Vec<Transcript>> {
    let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let job: Job = serde_json::from_slice(&text)?;
    let (mut played, mut done) = (Vec::new(), Vec::new());
    let mut last = Instant::now();
    let home = Namespace::current("home")?;
    for case in &job.cases {
        let one = Played::play(case, job.pace, &home)
            .with_context(|| format!("cannot play {}", case.name))?;
        if job.pace == Pace::Timed {
            // The time of the next scenario is not this one's.
            done.push(one.unsummed());
            continue;
        }
        last = Instant::now();
        played.push(one);
    }
    if !job.sums || played.is_empty() {
        done.extend(played.into_iter().map(Played::unsummed));
        return Ok(done);
    }
    std::thread::sleep(SUMMED.saturating_sub(last.elapsed()));
    played.into_iter().map(|it| it.finish(&home)).collect()
}

fn write(path: &Path, done: &[Transcript]) -> Result<()> {
    let mut file = File::create(path)?;
    file.write_all(&serde_json::to_vec(done)?)?;
    file.sync_all()?;
    Ok(())
}

/// Says a line to the host.
fn tell(line: &str) {
    let mut out = io::stdout().lock();
    // If the console is gone, the host is, too.
    let _ = writeln!(out, "{MARK}{line}");
    let _ = out.flush();
}
