//! user-mode-linux: a whole kernel as an ordinary process, with the host's
//! files as its own. It starts within seconds; its time is real time.

use std::env;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::{Guest, folder};
use crate::job::FOLDER;

/// Debian's name of the program.
const PROGRAM: &str = "/usr/bin/linux.uml";

/// Why there is none here, if so.
pub(crate) fn is_missing() -> Option<String> {
    let there = Path::new(PROGRAM).exists() && Path::new("/usr/lib/uml/modules").exists();
    (!there).then(|| format!("{PROGRAM} or its modules are missing (package user-mode-linux)"))
}

/// Starts one.
pub(crate) fn start() -> Result<Guest> {
    let agent = env::current_exe().context("what program is this?")?;
    let folder = folder()?;
    let mut args = ["mem=512M", "rootfstype=hostfs", "rootflags=/", "rw", "quiet"].to_vec();
    args.extend(["con=null", "con0=fd:0,fd:1"]);
    let mut args: Vec<String> = args.into_iter().map(str::to_owned).collect();
    args.push(format!("init={}", agent.display()));
    args.push(format!("{FOLDER}={}", folder.display()));
    Guest::start(PROGRAM, &args, folder.clone(), folder, false)
}
