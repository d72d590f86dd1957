//! Debian's kernel, unpacked and not installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::run::{output, run};

/// Debian's package that depends on its newest kernel.
const PACKAGE: &str = "linux-image-amd64";

/// A kernel of Debian's, unpacked and not installed.
#[derive(Debug)]
pub struct Kernel {
    /// Its release, as `uname -r` says it.
    pub release: String,
    /// The bootable image.
    pub image: PathBuf,
    /// The folder that holds `lib/modules`.
    pub(crate) root: PathBuf,
}

impl Kernel {
    /// The kernel, downloaded into `home` if it is not there yet.
    pub fn in_folder(home: &Path) -> Result<Self> {
        let depends = output(Command::new("apt-cache").args(["depends", PACKAGE]))?;
        let package = depends
            .lines()
            .find_map(|line| line.trim().strip_prefix("Depends: "))
            .with_context(|| format!("Debian's {PACKAGE} is not known: run `apt-get update`"))?;
        let release = package.trim_start_matches("linux-image-").to_owned();
        let root = home.join("kernel");
        let image = root.join(format!("boot/vmlinuz-{release}"));
        let index = root.join(format!("lib/modules/{release}/modules.dep"));
        // The index of modules is made last, so a kernel that has it is whole.
        if !image.exists() || !index.exists() {
            fs::create_dir_all(&root)?;
            run(Command::new("apt-get")
                .args(["download", "--quiet=2", package])
                .current_dir(home))?;
            let archives: Vec<PathBuf> = fs::read_dir(home)?
                .filter_map(|entry| Some(entry.ok()?.path()))
                .filter(|path| path.to_string_lossy().contains(&format!("/{package}_")))
                .collect();
            let archive = archives.first().context("no package was downloaded")?;
            run(Command::new("dpkg").arg("-x").arg(archive).arg(&root))?;
            run(Command::new("depmod").arg("-b").arg(&root).arg(&release))?;
        }
        Ok(Self { release, image, root })
    }
}
