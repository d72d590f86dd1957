//! `cargo xtask deb`: a Debian package, made by cargo-deb, and tried where nothing is lost.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::packages;
use crate::run::{cargo, exists, output, run, say, workspace};

/// The names by which the program is ipvsadm.
const TOOLS: [&str; 3] = ["ipvsadm", "ipvsadm-save", "ipvsadm-restore"];
/// The release that it is tried in.
const SUITE: &str = "bookworm";

/// A network and a `/proc` for the daemon, in namespaces of its own.
const LAB: &str = "set -e; ip link add v0 type veth peer name v1; ip link set v0 up; \
    mount -t proc proc $1/proc; chroot $1 sh -e /try";
/// Loads and saves rules as Debian's package does it.
const SCRIPT: &str = "\
    mkdir -p /run/ipvs; mkfifo /ready; ipvs daemon --plane user -i v0 --ready-fd 3 3> /ready &
    daemon=$!; trap 'kill $daemon' EXIT; read -r word < /ready; test $word = ready
    printf '%s\\n' '-A -t 192.0.2.10:80 -s wlc' '-a -t 192.0.2.10:80 -r 10.1.0.11:80 -m' > /etc/ipvsadm.rules
    /etc/init.d/ipvsadm load; ipvsadm -Ln | grep 10.1.0.11
    ipvsadm -e -t 192.0.2.10:80 -r 10.1.0.11:80 -m -w 7; /etc/init.d/ipvsadm save
    grep -- '-w 7' /etc/ipvsadm.rules; ipvsadm -C; test -z \"$(ipvsadm-save)\"
";

/// What to do with the package.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Install it in a fresh Debian below this folder, beside and instead of Debian's ipvsadm,
    /// and remove it again (needs root; debootstrap is installed if it can be)
    #[arg(long = "try", value_name = "DIR")]
    trial: Option<PathBuf>,
}

/// Builds the package, says where it is, and tries it.
pub(crate) fn run_task(options: &Options) -> Result<()> {
    if !exists("cargo-deb") {
        bail!("cargo-deb is missing: cargo install cargo-deb");
    }
    run(cargo().args(["build", "--release", "--locked", "-p", "ipvs-cli", "-p", "ipvs-preload"]))?;
    stage(&workspace().join("target/package"))?;
    let mut pack = cargo();
    let package = output(pack.args(["deb", "--quiet", "--no-build", "--package", "ipvs-cli"]))?;
    let package = PathBuf::from(package.trim());
    say(&format!("package: {}", package.display()));
    match &options.trial {
        Some(folder) => try_in(folder, &package),
        None => Ok(()),
    }
}

/// Makes what is made of the program: its man pages, completions and other names.
fn stage(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    let (man, lib) = (folder.join("man"), folder.join("lib"));
    fs::create_dir_all(&man)?;
    fs::create_dir_all(&lib)?;
    for tool in TOOLS {
        symlink("/usr/bin/ipvs", lib.join(tool))?;
    }
    let program = || Command::new(workspace().join("target/release/ipvs"));
    run(program().arg("man").arg(&man))?;
    for tool in TOOLS {
        // Debian's own package has pages of these names.
        fs::remove_file(man.join(format!("{tool}.8")))?;
    }
    for (shell, file) in [("bash", "ipvs.bash"), ("zsh", "_ipvs"), ("fish", "ipvs.fish")] {
        fs::write(folder.join(file), output(program().args(["completions", shell]))?)?;
    }
    Ok(())
}

/// A Debian in a folder.
struct Root<'f>(&'f Path);

impl Root<'_> {
    fn command(&self, line: &str) -> Command {
        let mut command = Command::new("chroot");
        command.arg(self.0).args(["/bin/sh", "-c", line]);
        command
            .env("DEBIAN_FRONTEND", "noninteractive")
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command
    }

    fn run(&self, line: &str) -> Result<()> {
        say(&format!("# {line}"));
        run(&mut self.command(line))
    }

    /// What `ipvsadm` is, by where its name leads.
    fn tool(&self) -> Result<&'static str> {
        let outcome = self.command("readlink -f $(command -v ipvsadm)").output()?;
        Ok(match String::from_utf8_lossy(&outcome.stdout).trim() {
            "" => "none",
            "/usr/bin/ipvs" => "ours",
            "/usr/sbin/ipvsadm" | "/usr/sbin/ipvsadm.debian" => "Debian's",
            other => bail!("ipvsadm is {other}"),
        })
    }

    fn expect(&self, tool: &str) -> Result<()> {
        let found = self.tool()?;
        ensure!(found == tool, "ipvsadm is {found}, and not {tool}");
        say(&format!("ipvsadm is {found}"));
        Ok(())
    }
}

/// Installs and removes the package in every order.
fn try_in(folder: &Path, package: &Path) -> Result<()> {
    if !packages::install_of(&[("debootstrap", "debootstrap")]).is_empty() {
        bail!("debootstrap is missing");
    }
    ensure!(!folder.exists(), "{} is there already", folder.display());
    say(&format!("a fresh {SUITE} in {}", folder.display()));
    run(Command::new("debootstrap").args(["--variant=minbase", SUITE]).arg(folder))?;
    let root = Root(folder);
    fs::copy(package, folder.join("ipvs-rs.deb")).context("the package")?;
    let switch = |path| format!("update-alternatives --set ipvsadm {path}");
    root.run("dpkg --install /ipvs-rs.deb")?;
    root.expect("ours")?;
    root.run("ipvs --help > /dev/null && test -L /usr/lib/ipvs/ipvsadm-save")?;
    root.run("apt-get install --yes --quiet=2 ipvsadm")?;
    root.expect("Debian's")?;
    root.run(&switch("/usr/lib/ipvs/ipvsadm"))?;
    root.expect("ours")?;
    say("Debian's script at boot, with a daemon of ours");
    fs::write(folder.join("try"), SCRIPT)?;
    run(Command::new("unshare").args(["--net", "--mount", "sh", "-c", LAB, "sh"]).arg(folder))?;
    root.run("dpkg --install /ipvs-rs.deb")?;
    root.expect("ours")?;
    root.run("dpkg --remove ipvs-rs")?;
    root.expect("Debian's")?;
    root.run("dpkg --install /ipvs-rs.deb")?;
    root.expect("Debian's")?;
    root.run("apt-get remove --yes --quiet=2 ipvsadm")?;
    root.expect("ours")?;
    root.run("dpkg --purge ipvs-rs && ! test -e /etc/ipvs && ! ls /usr/sbin/ipvsadm*")?;
    root.expect("none")?;
    fs::remove_dir_all(folder)?;
    say("the package was installed beside and instead of Debian's ipvsadm, and removed");
    Ok(())
}
