//! qemu with Debian's Linux 6.1, whose time is virtual: it goes on by what the guest does, and
//! jumps to the next timer where it does nothing. Hours pass within seconds.

use std::env;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use ipvs_guest::{Clock, Image, Kernel, Machine, NEEDED};

use super::{Guest, folder};
use crate::agent::WANTED;
use crate::job::{FOLDER, SHARED, TAG};

/// Where the kernel is kept, with the one of `cargo xtask kernel`.
const HOME: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/kernel/6.1");
/// Where the guest finds its jobs.
const JOBS: &str = "/jobs";

/// Why there is none here, if so.
pub(crate) fn is_missing() -> Option<String> {
    let path = env::var_os("PATH").unwrap_or_default();
    let is_here = |program: &str| {
        let more = ["/usr/sbin", "/sbin"].map(Into::into);
        env::split_paths(&path).chain(more).any(|folder| folder.join(program).is_file())
    };
    let missing: Vec<&str> =
        NEEDED.iter().filter(|it| !is_here(it.0)).map(|(_, package)| *package).collect();
    (!missing.is_empty()).then(|| format!("missing packages: {}", missing.join(" ")))
}

/// Starts one.
pub(crate) fn start() -> Result<Guest> {
    fs::create_dir_all(HOME)?;
    let kernel = Kernel::in_folder(&Path::new(HOME).canonicalize()?)?;
    let agent = env::current_exe().context("what program is this?")?;
    let folder = folder()?;
    let jobs = folder.join("jobs");
    fs::create_dir(&jobs)?;
    let root = folder.join("root");
    let mut image = Image::new(root.clone())?;
    image.modules(&kernel, &[&SHARED[..], &WANTED[..]].concat())?;
    image.first(&agent)?;
    fs::create_dir(root.join(JOBS.trim_start_matches('/')))?;
    let archive = image.pack(&folder.join("initrd"))?;
    fs::remove_dir_all(root)?;
    let machine = Machine {
        kernel: &kernel.image,
        archive: &archive,
        clock: Clock::Virtual,
        memory: 1024,
        words: &format!("{FOLDER}={JOBS} {TAG}=jobs"),
        shared: Some((&jobs, "jobs")),
    };
    Guest::start(machine.program(), &machine.arguments(), folder, jobs, true)
}
