//! The guest's initial file system: programs with their libraries, modules,
//! and the first process.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::kernel::Kernel;
use crate::run::{output, run};

/// A folder that becomes the guest's file system.
#[derive(Debug)]
pub struct Image {
    root: PathBuf,
    /// Where modules are in the guest, in the order in which they are to be loaded.
    modules: Vec<String>,
}

impl Image {
    /// An empty one; whatever is in the folder goes.
    pub fn new(root: PathBuf) -> Result<Self> {
        if root.exists() {
            fs::remove_dir_all(&root)?;
        }
        for folder in ["bin", "dev", "proc", "run", "sys", "tmp"] {
            fs::create_dir_all(root.join(folder))?;
        }
        Ok(Self { root, modules: Vec::new() })
    }

    /// Puts the modules in, with those that they need, each once, and the index by
    /// which they are found.
    pub fn modules(&mut self, kernel: &Kernel, names: &[&str]) -> Result<()> {
        for name in names {
            let lines = output(Command::new("modprobe").arg("-d").arg(&kernel.root).args([
                "-S",
                &kernel.release,
                "--show-depends",
                name,
            ]))?;
            for path in lines.lines().filter_map(|line| line.trim().strip_prefix("insmod ")) {
                let path = Path::new(path.trim());
                let place = path.strip_prefix(&kernel.root).context("a module of elsewhere")?;
                let place = place.to_string_lossy().into_owned();
                if !self.modules.contains(&place) {
                    self.put(path, &place)?;
                    self.modules.push(place);
                }
            }
        }
        let index = format!("lib/modules/{}/modules.dep", kernel.release);
        self.put(&kernel.root.join(&index), &index)
    }

    /// The commands of a shell that load all modules.
    pub fn loading(&self) -> String {
        // Names of modules hold no blanks.
        format!("for module in {}; do insmod /$module; done\n", self.modules.join(" "))
    }

    /// Copies a file to a place.
    fn put(&self, path: &Path, place: &str) -> Result<()> {
        let place = self.root.join(place);
        fs::create_dir_all(place.parent().unwrap_or(&self.root))?;
        fs::copy(path, &place).with_context(|| format!("cannot copy {}", path.display()))?;
        Ok(())
    }

    /// Puts a program in, under another name, with its libraries where they
    /// are here.
    pub fn program(&self, path: &Path, name: &str) -> Result<()> {
        self.put(path, &format!("bin/{name}"))?;
        // A static one makes `ldd` fail, and has none.
        let Ok(listed) = Command::new("ldd").arg(path).output() else { return Ok(()) };
        for library in libraries(&String::from_utf8_lossy(&listed.stdout)) {
            self.copy(library)?;
        }
        Ok(())
    }

    /// Puts a file or folder in, under the path that it has here.
    pub fn copy(&self, path: &Path) -> Result<()> {
        let place = self.root.join(path.strip_prefix("/").unwrap_or(path));
        fs::create_dir_all(place.parent().unwrap_or(&self.root))?;
        // What a link leads to, not the link.
        run(Command::new("cp").arg("-rLf").arg(path).arg(&place))
    }

    /// Writes the first process: a script of busybox, with its programs, in which file systems
    /// are mounted and modules loaded before it does what `text` says.
    pub fn script(&self, text: &str) -> Result<()> {
        let text = format!(
            "#!/bin/busybox sh\n\
             export PATH=/bin HOME=/tmp LC_ALL=C\n\
             /bin/busybox --install -s /bin 2>/dev/null\n\
             mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev\n\
             {}{text}",
            self.loading()
        );
        let path = self.root.join("init");
        fs::write(&path, text)?;
        Ok(fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?)
    }

    /// Makes a program the first process. It finds no file system mounted and no module loaded.
    pub fn first(&self, path: &Path) -> Result<()> {
        self.program(path, "first")?;
        Ok(std::os::unix::fs::symlink("bin/first", self.root.join("init"))?)
    }

    /// Packs the folder; returns where the archive is.
    pub fn pack(&self, archive: &Path) -> Result<PathBuf> {
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
