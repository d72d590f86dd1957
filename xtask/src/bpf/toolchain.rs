//! The compiler and linker for eBPF, unpacked under `target/bpf-toolchain`;
//! nothing is installed into the system.
//!
//! Debian ships rustc with a precompiled `core` for `bpfel-unknown-none`, and
//! the LLVM that belongs to it: no nightly compiler and no build of the
//! standard library are needed. Rustup's cargo drives that rustc.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::run::{cargo, exists, output, run, say};

/// Version of Debian's rustc 1.96 and of its libraries.
const RUST: &str = "1.96.0+dfsg1-1~deb12u2";
/// Version of Debian's LLVM 22, which that rustc is built on.
const LLVM: &str = "1:22.1.8-1~deb12u1";
/// Version of bpf-linker; its feature `llvm-22` must name rustc's LLVM.
const LINKER: &str = "0.13.0";

/// The Debian packages that are unpacked, each at its version.
const PACKAGES: [(&str, &str); 6] = [
    ("libllvm22", LLVM),
    ("llvm-22", LLVM),
    ("rustc-web", RUST),
    ("libstd-rust-web-1.96", RUST),
    ("libstd-rust-web-dev", RUST),
    ("libstd-rust-web-dev-bpf", RUST),
];
/// What libLLVM is linked with and a small installation may lack.
const LIBRARIES: [&str; 6] = ["libedit2", "libz3-4", "libxml2", "libicu72", "libbsd0", "libmd0"];

/// A line that changes whenever another object may come out.
pub(super) fn versions() -> String {
    format!("rustc {RUST} LLVM {LLVM} bpf-linker {LINKER}")
}

/// An unpacked toolchain.
#[derive(Debug)]
pub(super) struct Toolchain {
    /// Holds `debs/`, `rust/` (what the packages unpack to), `llvm/` and `bin/`.
    dir: PathBuf,
}

impl Toolchain {
    /// Unpacks and builds what is not there yet.
    pub(super) fn ready(root: &Path) -> Result<Self> {
        let toolchain = Self { dir: root.join("target/bpf-toolchain") };
        toolchain.unpack_packages()?;
        toolchain.unpack_missing_libraries()?;
        toolchain.build_linker()?;
        Ok(toolchain)
    }

    /// Where rustc finds its libraries.
    pub(super) fn sysroot(&self) -> PathBuf {
        self.dir.join("rust/usr")
    }

    /// Sets the environment of a cargo command that is to compile for eBPF.
    pub(super) fn compile_with(&self, command: &mut Command) {
        command
            .env("RUSTC", self.dir.join("rust/usr/bin/rustc"))
            .env("LD_LIBRARY_PATH", self.library_path())
            // aya-ebpf uses one unstable feature, asm_experimental_arch.
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", self.dir.join("bin/bpf-linker"));
    }

    /// A command for one of LLVM's own tools.
    pub(super) fn llvm(&self, tool: &str) -> Command {
        let mut command = Command::new(self.dir.join("rust/usr/lib/llvm-22/bin").join(tool));
        command.env("LD_LIBRARY_PATH", self.library_path());
        command
    }

    fn libraries(&self) -> PathBuf {
        self.dir.join("rust/usr/lib/x86_64-linux-gnu")
    }

    /// Only these: the libraries of the compiler that runs us must not be found.
    fn library_path(&self) -> OsString {
        self.libraries().into_os_string()
    }

    fn unpack_packages(&self) -> Result<()> {
        for (name, version) in PACKAGES {
            self.unpack(name, Some(version))?;
        }
        Ok(())
    }

    fn unpack_missing_libraries(&self) -> Result<()> {
        let mut ldd = Command::new("ldd");
        ldd.arg(self.libraries().join("libLLVM.so.22.1"))
            .env("LD_LIBRARY_PATH", self.library_path());
        if output(&mut ldd)?.contains("not found") {
            for name in LIBRARIES {
                self.unpack(name, None)?;
            }
        }
        Ok(())
    }

    fn unpack(&self, name: &str, version: Option<&str>) -> Result<()> {
        let debs = self.dir.join("debs");
        let stamp = debs.join(format!("{name}.unpacked"));
        let wanted = version.unwrap_or("any");
        if fs::read_to_string(&stamp).is_ok_and(|unpacked| unpacked == wanted) {
            return Ok(());
        }
        if !exists("dpkg-deb") {
            bail!("this is not Debian: there is no dpkg-deb");
        }
        fs::create_dir_all(&debs)?;
        let package = if let Some(package) = find(&debs, name, version)? {
            package
        } else {
            download(&debs, name, version)?;
            find(&debs, name, version)?.with_context(|| format!("apt-get brought no {name}"))?
        };
        run(Command::new("dpkg-deb").arg("-x").arg(&package).arg(self.dir.join("rust")))?;
        fs::write(&stamp, wanted).with_context(|| format!("cannot write {}", stamp.display()))
    }

    /// bpf-linker needs of LLVM a folder `lib` with a `libLLVM.so`, no more.
    fn build_linker(&self) -> Result<()> {
        let lib = self.dir.join("llvm/lib");
        fs::create_dir_all(&lib)?;
        let link = lib.join("libLLVM.so");
        if !link.exists() {
            std::os::unix::fs::symlink(
                "../../rust/usr/lib/x86_64-linux-gnu/libLLVM.so.22.1",
                &link,
            )?;
        }
        let mut version = Command::new(self.dir.join("bin/bpf-linker"));
        version.arg("--version").env("LD_LIBRARY_PATH", self.library_path());
        if version.output().is_ok_and(|it| String::from_utf8_lossy(&it.stdout).contains(LINKER)) {
            return Ok(());
        }
        say("building bpf-linker (about two minutes)");
        run(cargo()
            .env("LLVM_PREFIX", self.dir.join("llvm"))
            .env("LD_LIBRARY_PATH", self.library_path())
            // Its own profile takes half as long again, for nothing we notice.
            .env("CARGO_PROFILE_RELEASE_DEBUG", "0")
            .env("CARGO_PROFILE_RELEASE_LTO", "off")
            .args(["install", "--quiet", "bpf-linker", "--version", LINKER, "--locked"])
            .args(["--no-default-features", "--features", "llvm-22", "--force", "--root"])
            .arg(&self.dir))
    }
}

/// The downloaded package of that name and version. In file names apt writes
/// a colon as `%3a`.
fn find(debs: &Path, name: &str, version: Option<&str>) -> Result<Option<PathBuf>> {
    let start = format!("{name}_{}", version.unwrap_or_default().replace(':', "%3a"));
    for entry in fs::read_dir(debs)? {
        let path = entry?.path();
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        if file.starts_with(&start) && path.extension().is_some_and(|it| it == "deb") {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

fn download(debs: &Path, name: &str, version: Option<&str>) -> Result<()> {
    let wanted = version.map_or_else(|| name.to_owned(), |version| format!("{name}={version}"));
    say(&format!("downloading {wanted}"));
    let get = || {
        let mut apt = Command::new("apt-get");
        apt.args(["download", "--quiet=2", &wanted]).current_dir(debs);
        run(&mut apt)
    };
    // The lists may be old or absent; only root may renew them.
    get().or_else(|_| {
        run(Command::new("apt-get").args(["update", "--quiet=2"]))?;
        get()
    })
}
