//! The guest's kernel, and its initial file system: programs with their
//! libraries, modules, and the script that is its first process.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::guest::ENDED;
use crate::run::{output, run};

/// Debian's package that depends on its newest kernel.
const PACKAGE: &str = "linux-image-amd64";

/// A kernel of Debian's, unpacked and not installed.
#[derive(Debug)]
pub(super) struct Kernel {
    /// Its release, as `uname -r` says it.
    pub(super) release: String,
    /// The bootable image.
    pub(super) image: PathBuf,
    /// The folder that holds `lib/modules`.
    root: PathBuf,
}

/// The kernel, downloaded into `home` if it is not there yet.
pub(super) fn kernel(home: &Path) -> Result<Kernel> {
    let depends = output(Command::new("apt-cache").args(["depends", PACKAGE]))?;
    let package = depends
        .lines()
        .find_map(|line| line.trim().strip_prefix("Depends: "))
        .with_context(|| format!("Debian's {PACKAGE} is not known: run `apt-get update`"))?;
    let release = package.trim_start_matches("linux-image-").to_owned();
    let root = home.join("kernel");
    let image = root.join(format!("boot/vmlinuz-{release}"));
    if !image.exists() {
        fs::create_dir_all(&root)?;
        run(Command::new("apt-get").args(["download", "--quiet=2", package]).current_dir(home))?;
        let archives: Vec<PathBuf> = fs::read_dir(home)?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.to_string_lossy().contains(&format!("/{package}_")))
            .collect();
        let archive = archives.first().context("no package was downloaded")?;
        run(Command::new("dpkg").arg("-x").arg(archive).arg(&root))?;
        run(Command::new("depmod").arg("-b").arg(&root).arg(&release))?;
    }
    Ok(Kernel { release, image, root })
}

/// A folder that becomes the guest's file system.
#[derive(Debug)]
pub(super) struct Image {
    root: PathBuf,
    /// Modules in the order in which they are to be loaded.
    modules: Vec<String>,
}

impl Image {
    /// An empty one.
    pub(super) fn new(root: PathBuf) -> Result<Self> {
        if root.exists() {
            fs::remove_dir_all(&root)?;
        }
        for folder in ["bin", "dev", "modules", "proc", "run", "sys", "tmp"] {
            fs::create_dir_all(root.join(folder))?;
        }
        Ok(Self { root, modules: Vec::new() })
    }

    /// Puts the modules in, with those that they need, each once.
    pub(super) fn modules(&mut self, kernel: &Kernel, names: &[&str]) -> Result<()> {
        for name in names {
            let lines = output(Command::new("modprobe").arg("-d").arg(&kernel.root).args([
                "-S",
                &kernel.release,
                "--show-depends",
                name,
            ]))?;
            for path in lines.lines().filter_map(|line| line.trim().strip_prefix("insmod ")) {
                let path = Path::new(path.trim());
                let file = path.file_name().context("a module without a name")?;
                let file = file.to_string_lossy().into_owned();
                if !self.modules.contains(&file) {
                    fs::copy(path, self.root.join("modules").join(&file))?;
                    self.modules.push(file);
                }
            }
        }
        Ok(())
    }

    /// Puts a program in, under another name, with its libraries where they
    /// are here.
    pub(super) fn program(&self, path: &Path, name: &str) -> Result<()> {
        fs::copy(path, self.root.join("bin").join(name))
            .with_context(|| format!("cannot copy {}", path.display()))?;
        // A static one makes `ldd` fail, and has none.
        let Ok(listed) = Command::new("ldd").arg(path).output() else { return Ok(()) };
        for library in libraries(&String::from_utf8_lossy(&listed.stdout)) {
            self.copy(library)?;
        }
        Ok(())
    }

    /// Puts a file or folder in, under the path that it has here.
    pub(super) fn copy(&self, path: &Path) -> Result<()> {
        let place = self.root.join(path.strip_prefix("/").unwrap_or(path));
        fs::create_dir_all(place.parent().unwrap_or(&self.root))?;
        // What a link leads to, not the link.
        run(Command::new("cp").arg("-rLf").arg(path).arg(&place))
    }

    /// Writes the first process: it sets the machine up, runs `script` and
    /// powers off with the status in `$failed`.
    pub(super) fn init(&self, script: &str) -> Result<()> {
        // Names of modules hold no blanks.
        let modules = self.modules.join(" ");
        let text = format!(
            "#!/bin/busybox sh\n\
             export PATH=/bin HOME=/tmp LC_ALL=C\n\
             /bin/busybox --install -s /bin 2>/dev/null\n\
             mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev\n\
             mount -t bpf bpf /sys/fs/bpf\n\
             for module in {modules}; do insmod /modules/$module; done\n\
             ip link set lo up\n\
             {script}echo {ENDED}$failed\n\
             poweroff -f\n"
        );
        let path = self.root.join("init");
        fs::write(&path, text)?;
        Ok(fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?)
    }

    /// Packs the folder; returns where the archive is.
    pub(super) fn pack(&self, archive: &Path) -> Result<PathBuf> {
        let script = "find . | busybox cpio -o -H newc | gzip -1 > \"$0\"";
        run(Command::new("sh")
            .args(["-c", script])
            .arg(archive)
            .current_dir(&self.root)
            .stderr(std::process::Stdio::null()))?;
        Ok(archive.to_owned())
    }
}

/// The paths in what `ldd` prints.
fn libraries(listed: &str) -> impl Iterator<Item = &Path> {
    listed.lines().filter_map(|line| {
        let path = line.split_once("=>").map_or(line, |(_, path)| path).trim();
        path.starts_with('/').then(|| Path::new(path.split(' ').next().unwrap_or(path)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_the_loader_are_taken_and_what_the_kernel_gives_is_not() {
        let listed = "\tlinux-vdso.so.1 (0x00007ffc)\n\
                      \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f1e)\n\
                      \t/lib64/ld-linux-x86-64.so.2 (0x00007f1f)\n";
        let found: Vec<&Path> = libraries(listed).collect();
        let wanted = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"];
        assert_eq!(found, wanted.map(Path::new));
    }
}
