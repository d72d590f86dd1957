//! Makes a kernel that has just started ready: file systems and modules.

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};
use nix::mount::{MsFlags, mount};

use super::layout::ERRORS;

/// Where modules of a kernel are: those of user-mode-linux, and the usual place.
const MODULES: [&str; 2] = ["/usr/lib/uml/modules", "/lib/modules"];
/// What scenarios need. IPv6 comes first: `ip_vs` wants its symbols.
const WANTED: [&str; 25] = [
    "ipv6",
    "ip_vs",
    "ip_vs_rr",
    "ip_vs_wrr",
    "ip_vs_lc",
    "ip_vs_wlc",
    "ip_vs_lblc",
    "ip_vs_lblcr",
    "ip_vs_dh",
    "ip_vs_sh",
    "ip_vs_sed",
    "ip_vs_nq",
    "ip_vs_fo",
    "ip_vs_ovf",
    "ip_vs_mh",
    "ip_vs_ftp",
    "ip_vs_pe_sip",
    "nf_conntrack",
    "ipip",
    "ip_gre",
    "ip6_gre",
    "ip6_tunnel",
    "sit",
    "veth",
    "sctp",
];

/// Mounts what system calls need, and loads the modules.
pub(crate) fn prepare() -> Result<()> {
    for (kind, place) in [("proc", "/proc"), ("sysfs", "/sys"), ("tmpfs", "/run")] {
        // Another init may have been there before.
        match mount(Some(kind), place, Some(kind), MsFlags::empty(), None::<&str>) {
            Ok(()) | Err(Errno::EBUSY) => {}
            Err(errno) => return Err(errno).context(format!("cannot mount {place}")),
        }
    }
    load_modules()?;
    for (key, value) in ERRORS {
        fs::write(format!("/proc/sys/net/ipv4/{key}"), value)?;
    }
    Ok(())
}

fn load_modules() -> Result<()> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let folder = MODULES.iter().map(|place| Path::new(place).join(release.trim()));
    let folder = folder.into_iter().find(|it| it.is_dir()).context("no modules of this kernel")?;
    let index = Index::read(&folder)?;
    for name in WANTED {
        index.load(name).with_context(|| format!("cannot load module {name}"))?;
    }
    Ok(())
}

/// `modules.dep`: each module's file, with the files it needs.
struct Index {
    folder: PathBuf,
    modules: HashMap<String, Vec<String>>,
}

impl Index {
    fn read(folder: &Path) -> Result<Self> {
        let text = fs::read_to_string(folder.join("modules.dep"))?;
        let mut modules = HashMap::new();
        for line in text.lines() {
            let Some((file, needed)) = line.split_once(':') else { continue };
            // What is needed is listed with the first to be loaded last.
            let files = needed.split_whitespace().rev().chain([file]).map(str::to_owned);
            modules.insert(stem(file), files.collect());
        }
        Ok(Self { folder: folder.to_owned(), modules })
    }

    fn load(&self, name: &str) -> Result<()> {
        // What is not listed is built in.
        for file in self.modules.get(name).into_iter().flatten() {
            let path = self.folder.join(file);
            let opened = File::open(&path).with_context(|| format!("no {}", path.display()))?;
            match finit_module(&opened, c"", ModuleInitFlags::empty()) {
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(errno) => return Err(errno).context(path.display().to_string()),
            }
        }
        Ok(())
    }
}

/// The name of a module by its file: `kernel/net/ipv6/ipv6.ko` is `ipv6`.
fn stem(file: &str) -> String {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.split('.').next().unwrap_or(name).replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::stem;

    #[test]
    fn a_module_is_named_by_its_file() {
        assert_eq!(stem("kernel/net/ipv4/netfilter/ip_vs-x.ko.xz"), "ip_vs_x");
    }
}
